from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_helpers import Anything, digest, pairs, rows_of, splade_loss, tiny_encoder, trainer

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.losses import EmbeddingLoss
from sparse_encoder.training import SparseEncoderTrainer, TrainerCallback, TrainerControl, TrainerState

OPTIONS: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "eval_strategy": "epoch",
    "warmup_steps": 2,
    "weight_decay": 0.1,
}
ROWS = 21  # batches of 4: 4 4 4 4 4 1; updates of 2 batches: 3 an epoch


def run(folder: Path, *, seed: int = 3, **options: Anything) -> SparseEncoderTrainer:
    model = tiny_encoder(dropout=0.3, seed=seed)
    rows = options.pop("rows", pairs(ROWS))
    return trainer(folder, model, rows=rows, eval_dataset=pairs(5), **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoderTrainer:
    whole = run(tmp_path_factory.mktemp("straight"))
    whole.train()
    return whole


def same(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = digest(left), digest(right)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_a_resumed_run_ends_with_the_same_bits(straight: SparseEncoderTrainer, tmp_path: Path, step: int) -> None:
    checkpoint = Path(str(straight.args.output_dir)) / f"checkpoint-{step}"
    resumed = run(tmp_path, seed=99)  # other weights, which the checkpoint's replace
    torch.rand(step)  # another history of the generator
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert same(resumed.model, straight.model)
    assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]  # the last has the mean loss of the call
    assert resumed.state.best_metric == straight.state.best_metric
    assert resumed.state.total_flos == straight.state.total_flos


def test_dropout_does_matter(straight: SparseEncoderTrainer, tmp_path: Path) -> None:
    other = trainer(tmp_path, tiny_encoder(), rows=pairs(ROWS), eval_dataset=pairs(5), **OPTIONS)
    other.train()
    assert not same(other.model, straight.model)


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(straight: SparseEncoderTrainer, tmp_path: Path) -> None:
    class Kill(TrainerCallback):
        def on_substep_end(self, args: Anything, state: TrainerState, control: TrainerControl, **_: object) -> None:
            if state.global_step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, callbacks=[Kill]).train()
    resumed = run(tmp_path, seed=99)
    resumed.train(resume_from_checkpoint=True)
    assert same(resumed.model, straight.model)


def test_a_checkpoint_at_the_end_of_an_epoch_is_behind_its_evaluation(tmp_path: Path) -> None:
    options = {"save_strategy": "epoch", "logging_strategy": "epoch"}
    straight = run(tmp_path / "straight", **options)
    straight.train()
    resumed = run(tmp_path / "resumed", seed=99, **options)
    resumed.train(tmp_path / "straight" / "checkpoint-3")
    assert same(resumed.model, straight.model)
    assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]
    assert [row["step"] for row in resumed.state.log_history] == [3, 3, 6, 6, 6]


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    first = run(tmp_path, num_train_epochs=1)
    first.train()
    second = run(tmp_path, num_train_epochs=2)
    assert second.train(resume_from_checkpoint=True).global_step == 6
    assert second.state.max_steps == 6


def test_rows_that_draw_random_numbers_do_so_again(tmp_path: Path) -> None:
    def noisy(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        words = [f"{text} {int(torch.randint(50, ()))}" for text in batch["anchor"]]
        return {"anchor": words, "positive": batch["positive"]}

    straight = run(tmp_path / "straight", rows=pairs(ROWS).with_transform(noisy))
    straight.train()
    resumed = run(tmp_path / "resumed", rows=pairs(ROWS).with_transform(noisy))
    resumed.train(tmp_path / "straight" / "checkpoint-2")
    assert same(resumed.model, straight.model)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_worker_processes_change_nothing(straight: SparseEncoderTrainer, tmp_path: Path, workers: int) -> None:
    other = run(tmp_path, dataloader_num_workers=workers, eval_strategy="no")
    other.train()
    assert same(other.model, straight.model)


class Learned(EmbeddingLoss):
    """A loss with a parameter and a buffer of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.zeros(()))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        self.seen += self.scale.detach()
        return (self.scale * embeddings[0] - embeddings[1]).square().mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def test_what_a_loss_has_of_its_own_is_resumed(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", loss=Learned)
    straight.train()
    resumed = run(tmp_path / "resumed", loss=Learned)
    resumed.train(tmp_path / "straight" / "checkpoint-4")
    assert same(resumed.loss, straight.loss)
    assert straight.loss.scale.item() != 2.0
    other = run(tmp_path / "other", loss=splade_loss)
    with pytest.raises(CheckpointError, match=r"the loss has other tensors.*\['scale', 'seen'\]"):
        other.train(tmp_path / "straight" / "checkpoint-4")


class Remembering(Learned):
    """A loss with a buffer that is in no ``state_dict``, and as long as the batches so far."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.register_buffer("rows", torch.zeros(1), persistent=False)

    def forward(self, features: Anything, labels: Anything = None) -> Anything:
        self.rows = torch.cat([self.rows, self.rows[-1:] + 1])
        return super().forward(features, labels) * (1 + self.rows[-1] / 100)


def test_a_buffer_outside_of_the_state_dict_is_resumed_too(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", loss=Remembering)
    straight.train()
    resumed = run(tmp_path / "resumed", loss=Remembering)
    resumed.train(tmp_path / "straight" / "checkpoint-4")
    assert resumed.loss.rows.tolist() == straight.loss.rows.tolist()
    assert same(resumed.model, straight.model)


class Pickled(Learned):
    def get_extra_state(self) -> Anything:
        return {"queue": []}


def test_a_loss_whose_state_is_no_tensor_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Pickled has get_extra_state.*save_strategy='no'"):
        run(tmp_path, loss=Pickled).train()
    assert run(tmp_path, loss=Pickled, save_strategy="no", max_steps=2).train().global_step == 2


class Overshooting(nn.Module):
    """Falls, and rises again, in a parameter of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.place = nn.Parameter(torch.zeros(()))

    def forward(self, features: Anything, labels: Anything = None) -> Tensor:
        return 0 * self.model(features[0])["sentence_embedding"].sum() + (self.place - 1).square()


def test_the_best_model_comes_with_what_its_loss_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 0.45}
    options |= {"lr_scheduler_type": "constant", "warmup_steps": 0, "max_steps": 5, "save_total_limit": 1}
    best = run(tmp_path / "all", loss=Overshooting, **options)
    best.train()
    losses = [row["eval_loss"] for row in best.state.log_history if "eval_loss" in row]
    assert best.state.best_metric == min(losses) < losses[-1]
    assert best.evaluate()["eval_loss"] == min(losses)
    run(tmp_path / "model", loss=Overshooting, **options, save_only_model=True).train()
    assert "the loss keeps its last weights" in caplog.text


def test_a_checkpoint_holds_no_pickle(straight: SparseEncoderTrainer) -> None:
    checkpoint = Path(str(straight.args.output_dir)) / "checkpoint-2"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "MANIFEST.json",
        "README.md",
        "config.json",
        "model.safetensors",
        "optimizer.json",
        "optimizer.safetensors",
        "run.json",
        "scheduler.json",
        "trainer_state.json",
        "training_args.json",
    ]
    for path in checkpoint.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


FILES = [
    "MANIFEST.json",
    "config.json",
    "model.safetensors",
    "optimizer.json",
    "optimizer.safetensors",
    "run.json",
    "scheduler.json",
    "trainer_state.json",
    "training_args.json",
]


@pytest.mark.parametrize("change", ["delete", "flip"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_refused_by_name(
    straight: SparseEncoderTrainer, tmp_path: Path, name: str, change: str
) -> None:
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(Path(str(straight.args.output_dir)) / "checkpoint-2", checkpoint)
    data = bytearray((checkpoint / name).read_bytes())
    data[len(data) // 2] ^= 0x10
    (checkpoint / name).unlink()
    if change == "flip":
        (checkpoint / name).write_bytes(data)
    resumed = run(tmp_path / "out")
    before = digest(resumed.model)
    with pytest.raises(CheckpointError, match=name if name != "MANIFEST.json" else "checkpoint-2"):
        resumed.train(checkpoint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in digest(resumed.model).items())
    assert not resumed.is_in_train


def test_a_model_without_its_training_state_cannot_be_resumed_from(tmp_path: Path) -> None:
    run(tmp_path, save_only_model=True, num_train_epochs=1).train()
    checkpoint = tmp_path / "checkpoint-3"
    assert not (checkpoint / "optimizer.json").exists()
    with pytest.raises(CheckpointError, match="there is no run.json.*save_only_model"):
        run(tmp_path).train(checkpoint)


OTHER = [
    ({"rows": pairs(20)}, "train_dataset"),
    ({"seed_": 7}, "seed"),
    ({"data_seed": 7}, "data_seed"),
    ({"per_device_train_batch_size": 3}, "per_device_train_batch_size"),
    ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps"),
    ({"dataloader_drop_last": True}, "dataloader_drop_last"),
    ({"learning_rate": 1e-3}, "learning_rate"),
    ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type"),
    ({"optim": "sgd"}, "optim"),
    ({"max_grad_norm": 0.5}, "max_grad_norm"),
    ({"bf16": True}, "bf16"),
]


def with_settings(folder: Path, options: dict[str, Any]) -> SparseEncoderTrainer:
    options = {("seed" if name == "seed_" else name): value for name, value in options.items()}
    model = tiny_encoder(dropout=0.3)
    rows = options.pop("rows", pairs(ROWS))
    return trainer(folder, model, rows=rows, eval_dataset=pairs(5), **{**OPTIONS, **options})


@pytest.mark.parametrize(("options", "name"), OTHER)
def test_another_kind_of_run_is_refused_by_name(
    straight: SparseEncoderTrainer, tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(CheckpointError, match=f"field '{name}'"):
        with_settings(tmp_path, options).train(Path(str(straight.args.output_dir)) / "checkpoint-2")


def test_other_intervals_are_told_and_change_no_weights(
    straight: SparseEncoderTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Path(str(straight.args.output_dir)) / "checkpoint-4"
    resumed = run(tmp_path, logging_steps=5, save_steps=2)
    resumed.train(resume_from_checkpoint=checkpoint)
    told = [message.partition(" was written with ")[2] for message in caplog.messages if "goes on with" in message]
    expected = ["logging_steps=2, and the run goes on with 5", "save_steps=1, and the run goes on with 2"]
    assert told == expected  # evaluations are by epoch
    assert same(resumed.model, straight.model)


def test_options_of_the_optimizer_belong_to_the_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optim": "adafactor", "max_steps": 2}
    run(tmp_path / "old", **options, optim_args="clip_threshold=0.5").train()
    with pytest.raises(CheckpointError, match="field 'optim_args'.*Give the old value"):
        run(tmp_path / "other", **options).train(tmp_path / "old" / "checkpoint-1")
    run(tmp_path / "same", **options, optim_args="clip_threshold=0.5").train(tmp_path / "old" / "checkpoint-1")


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for options, name in OTHER[:6]])
def test_other_data_may_be_taken_at_the_start_of_the_epoch(
    straight: SparseEncoderTrainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    other = with_settings(tmp_path, {**options, "ignore_data_skip": True, "save_strategy": "no"})
    other.train(Path(str(straight.args.output_dir)) / "checkpoint-4")
    assert other.state.global_step == other.state.max_steps
    assert [row["step"] for row in other.state.log_history if "loss" in row][:2] == [2, 4]
    if other.state.max_steps == 6:  # two of three updates of the second epoch, which began anew
        assert other.state.epoch == 1 + 4 / len(other.get_train_dataloader())


def test_a_model_of_another_shape_is_refused(straight: SparseEncoderTrainer, tmp_path: Path) -> None:
    model = tiny_encoder()
    model.project = nn.Linear(12, 5)
    other = trainer(tmp_path, model, rows=pairs(ROWS), eval_dataset=pairs(5), **OPTIONS)
    with pytest.raises(RuntimeError, match="project.weight"):
        other.train(Path(str(straight.args.output_dir)) / "checkpoint-2")


def test_a_place_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(tmp_path).train(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        run(tmp_path).train(resume_from_checkpoint=True)
    assert run(tmp_path, max_steps=2).train(resume_from_checkpoint=False).global_step == 2


def test_a_damaged_last_checkpoint_falls_back(straight: SparseEncoderTrainer, tmp_path: Path) -> None:
    shutil.copytree(str(straight.args.output_dir), tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint-6" / "optimizer.safetensors").write_bytes(b"")
    resumed = run(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert same(resumed.model, straight.model)
    assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]


def test_a_new_run_does_not_begin_among_older_checkpoints(tmp_path: Path) -> None:
    first = run(tmp_path, num_train_epochs=1)
    first.train()
    with pytest.raises(CheckpointError, match="holds checkpoints of another run, up to checkpoint-3"):
        run(tmp_path, num_train_epochs=1).train()
    assert run(tmp_path, num_train_epochs=1, overwrite_output_dir=True).train().global_step == 3
    assert first.train().global_step == 3  # its own may go


def test_the_best_checkpoint_moves_with_the_others(tmp_path: Path) -> None:
    options = {"save_strategy": "epoch", "load_best_model_at_end": True}
    first = run(tmp_path / "first", **options)
    first.train()
    best = str(first.state.best_model_checkpoint)
    (tmp_path / "first").rename(tmp_path / "moved")
    second = run(tmp_path / "moved", **options)
    second.train(resume_from_checkpoint=True)
    assert second.state.best_model_checkpoint == best.replace("first", "moved")


def test_a_best_checkpoint_that_is_gone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"save_strategy": "epoch", "load_best_model_at_end": True}
    first = run(tmp_path, **options)
    first.train()
    assert str(first.state.best_model_checkpoint).endswith("checkpoint-3")  # the loss rises
    shutil.rmtree(tmp_path / "checkpoint-3")
    with caplog.at_level(logging.WARNING):
        second = run(tmp_path, **options)
        second.train(resume_from_checkpoint=True)
    assert "checkpoint-3, is gone" in caplog.text
    assert second.state.best_model_checkpoint is None
