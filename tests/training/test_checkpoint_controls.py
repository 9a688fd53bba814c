"""Negative controls: whatever is taken out of a checkpoint, resuming from it fails, so all of it is needed and read."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_helpers import Anything, small_run, weights_digest
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparse_encoder.checkpoint import CheckpointError, LoadError
from sparse_encoder.losses import EmbeddingLoss
from sparse_encoder.training.checkpoints.manifest import MANIFEST, check_manifest, write_manifest
from sparse_encoder.training.checkpoints.saving import RunFiles
from sparse_encoder.training.checkpoints.snapshot import Progress

FILES = [
    "loss.safetensors",
    "model.safetensors",
    "optimizer.json",
    "optimizer.safetensors",
    "run.json",
    "scheduler.json",
    "trainer_state.json",
    "training_args.json",
]
Place = tuple[str | int, ...]


class Learned(EmbeddingLoss):
    """A loss with a parameter and a buffer of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.scale = nn.Parameter(torch.tensor([2.0, 1.0]))
        self.register_buffer("seen", torch.zeros(()))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        self.seen += self.scale.detach().sum()
        return (self.scale.sum() * embeddings[0] - embeddings[1]).square().mean()

    def get_config_dict(self) -> dict[str, object]:
        return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = small_run(tmp_path_factory.mktemp("made"), loss=Learned, max_steps=2)
    run.train()
    return Path(str(run.args.output_dir)) / "checkpoint-1"


def copied(made: Path, tmp_path: Path) -> Path:
    checkpoint = tmp_path / "checkpoint-1"
    shutil.rmtree(checkpoint, ignore_errors=True)
    shutil.copytree(made, checkpoint)
    return checkpoint


def listed_anew(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)


AGAIN: dict[str, Anything] = {"max_steps": 2, "seed": 99, "save_strategy": "no"}


def resume(checkpoint: Path, **options: Anything) -> str:
    run = small_run(checkpoint.parent / "out", loss=Learned, **{**AGAIN, **options})
    run.train(resume_from_checkpoint=checkpoint)
    return weights_digest(run.model)


def places(value: Anything, *, nested: bool = True) -> Iterator[Place]:
    """Yield where there are members of objects."""
    for key, each in value.items():
        yield (key,)
        if nested and isinstance(each, dict) and key in ("versions", "identity", "progress"):
            yield from ((key, *place) for place in places(each, nested=False))


def test_the_copy_itself_can_be_resumed_from(made: Path, tmp_path: Path) -> None:
    checkpoint = copied(made, tmp_path)
    listed_anew(checkpoint)
    assert resume(checkpoint) == weights_digest(_straight(tmp_path))


def _straight(tmp_path: Path) -> nn.Module:
    run = small_run(tmp_path / "straight", loss=Learned, max_steps=2)
    run.train()
    return run.model


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_needed(made: Path, tmp_path: Path, name: str) -> None:
    checkpoint = copied(made, tmp_path)
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        resume(checkpoint)
    listed_anew(checkpoint)
    with pytest.raises((LoadError, FileNotFoundError), match=name.replace("optimizer.safetensors", "optimizer")):
        resume(checkpoint)


def test_these_are_all_files(made: Path) -> None:
    assert sorted({path.name for path in made.iterdir()} - {"README.md"}) == [MANIFEST, "config.json", *FILES]
    assert check_manifest(made) | {MANIFEST} == {path.name for path in made.iterdir()}


@pytest.mark.parametrize("name", ["run.json", "scheduler.json", "trainer_state.json", "optimizer.json"])
def test_every_field_is_needed(made: Path, tmp_path: Path, name: str) -> None:
    values = json.loads((made / name).read_text())
    found = list(places(values))
    assert len(found) > 3
    for place in found:
        checkpoint = copied(made, tmp_path)
        rest = json.loads((made / name).read_text())
        holder = rest
        for key in place[:-1]:
            holder = holder[key]
        del holder[place[-1]]
        (checkpoint / name).write_text(json.dumps(rest))
        listed_anew(checkpoint)
        with pytest.raises(CheckpointError) as refused:
            resume(checkpoint)
        assert str(place[-1]) in str(refused.value), place


def test_every_option_of_a_parameter_group_is_needed(made: Path, tmp_path: Path) -> None:
    groups = json.loads((made / "optimizer.json").read_text())["groups"]
    assert len(groups) == 2 and {"lr", "betas", "weight_decay", "initial_lr"} <= set(groups[1])
    for option in groups[1]:
        checkpoint = copied(made, tmp_path)
        rest = json.loads((made / "optimizer.json").read_text())
        del rest["groups"][1][option]
        (checkpoint / "optimizer.json").write_text(json.dumps(rest))
        listed_anew(checkpoint)
        with pytest.raises(CheckpointError, match="groups"):
            resume(checkpoint)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "loss.safetensors", "model.safetensors"])
def test_every_tensor_is_needed(made: Path, tmp_path: Path, name: str) -> None:
    tensors = load_file(made / name)
    assert len(tensors) > 1
    for key in tensors:
        checkpoint = copied(made, tmp_path)
        save_file({other: tensor for other, tensor in tensors.items() if other != key}, checkpoint / name)
        listed_anew(checkpoint)
        with pytest.raises((CheckpointError, RuntimeError)) as refused:
            resume(checkpoint)
        assert key in str(refused.value)


def test_a_loss_of_another_shape_is_refused(made: Path, tmp_path: Path) -> None:
    checkpoint = copied(made, tmp_path)
    tensors = load_file(made / "loss.safetensors")
    save_file({**tensors, "scale": tensors["scale"][:1]}, checkpoint / "loss.safetensors")
    listed_anew(checkpoint)
    with pytest.raises(CheckpointError, match="scale.*another shape"):
        resume(checkpoint)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "scaler.json"])
def test_a_file_that_was_added_is_refused(made: Path, tmp_path: Path, name: str) -> None:
    checkpoint = copied(made, tmp_path)
    listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
    if name in listed:
        (checkpoint / name).rename(tmp_path / name)
        listed_anew(checkpoint)
        (tmp_path / name).rename(checkpoint / name)
    else:
        (checkpoint / name).write_text("{}")
    with pytest.raises(CheckpointError, match=f"{name}.*was added"):
        resume(checkpoint)


def test_notes_beside_the_state_do_no_harm(made: Path, tmp_path: Path) -> None:
    checkpoint = copied(made, tmp_path)
    (checkpoint / "notes.txt").write_text("my own")
    assert resume(checkpoint) == resume(made)


def test_another_torch_is_told(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = copied(made, tmp_path)
    values = json.loads((made / "run.json").read_text())
    values["versions"]["torch"] = "1.0"
    (checkpoint / "run.json").write_text(json.dumps(values))
    listed_anew(checkpoint)
    with caplog.at_level(logging.WARNING):
        resume(checkpoint)
    assert "was written with torch 1.0" in caplog.text


def test_any_flipped_bit_is_found(made: Path, tmp_path: Path) -> None:
    checkpoint = copied(made, tmp_path)
    draw = random.Random(5)
    contents = {path: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    for _ in range(120):
        for path, content in contents.items():  # every file as often, whatever its size
            place, bit = draw.randrange(len(content)), draw.randrange(8)
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            with pytest.raises(CheckpointError):
                check_manifest(checkpoint)
            path.write_bytes(content)
    check_manifest(checkpoint)


class Scaler:
    """A scaler of losses as far as its state goes."""

    def __init__(self, **state: float) -> None:
        self.state = state

    def state_dict(self) -> dict[str, float]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.state = state_dict


def files_with(folder: Path, scaler: Scaler | None) -> RunFiles:
    run = small_run(folder)
    run.create_optimizer_and_scheduler(3)
    return RunFiles(run, {"seed": 3}, scaler)


def test_a_scaler_goes_on_where_it_was(tmp_path: Path) -> None:
    files_with(tmp_path, Scaler(scale=512.0, growth_interval=7)).save(Progress())
    checkpoint = tmp_path / "checkpoint-0"
    assert json.loads((checkpoint / "scaler.json").read_text()) == {"scale": 512.0, "growth_interval": 7}
    files_with(tmp_path, now := Scaler(scale=1.0, growth_interval=2)).resume(checkpoint, {"seed": 3})
    assert now.state == {"scale": 512.0, "growth_interval": 7}
    for other in (None, Scaler(), Scaler(scale=1.0), Scaler(scale=1.0, growth_interval=2, more=1.0)):
        with pytest.raises(CheckpointError, match=r"scaler.json.*fp16=True"):
            files_with(tmp_path, other).resume(checkpoint, {"seed": 3})


def test_a_run_without_a_scaler_writes_none(tmp_path: Path) -> None:
    files_with(tmp_path, Scaler()).save(Progress())
    assert not (tmp_path / "checkpoint-0" / "scaler.json").exists()
    files_with(tmp_path, None).resume(tmp_path / "checkpoint-0", {"seed": 3})


def altered_json(path: Path, *place: str | int) -> None:
    """Make the number at a place of a file another one."""
    values = json.loads(path.read_text())
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] += 1
    path.write_text(json.dumps(values))


def altered_tensor(path: Path, name: str) -> None:
    tensors = load_file(path)
    save_file({**tensors, name: tensors[name] + 1}, path)


ALTERED: dict[str, tuple[str, Any]] = {
    "schedule's step": ("scheduler.json", lambda path: altered_json(path, "last_epoch")),
    "learning rate": ("optimizer.json", lambda path: altered_json(path, "groups", 0, "initial_lr")),
    "optimizer's step": ("optimizer.safetensors", lambda path: altered_tensor(path, "0.step")),
    "buffer of the loss": ("loss.safetensors", lambda path: altered_tensor(path, "seen")),
    "buffer of the model": ("model.safetensors", lambda path: altered_tensor(path, "calls")),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_a_value_that_was_altered_is_found_by_its_digest_alone(made: Path, tmp_path: Path, kind: str) -> None:
    name, alter = ALTERED[kind]
    checkpoint = copied(made, tmp_path)
    alter(checkpoint / name)
    with pytest.raises(CheckpointError, match=name):
        resume(checkpoint)
    listed_anew(checkpoint)
    resume(checkpoint)  # nothing else is wrong with it
