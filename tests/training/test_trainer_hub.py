"""Trainers and models that upload to a hub on this machine with the real client, and models that come back from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_helpers import tree_of
from hub_server import CLIENTS_OWN, TOKEN, WritableHub, writable_hub
from model_helpers import mixed_texts, write_encoder
from training_helpers import tiny_encoder, trainer

from sparse_encoder import SparseEncoder
from sparse_encoder.training.events.protocol import TrainerCallback

pytestmark = pytest.mark.filterwarnings(CLIENTS_OWN)
SETTINGS: dict[str, Any] = {"hub_token": TOKEN, "hub_model_id": "me/mine", "push_to_hub": True}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with writable_hub(monkeypatch) as served:
        yield served


class Announced(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_push_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:  # noqa: ANN401
        self.steps.append(state.global_step)


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_a_run_uploads_what_its_strategy_says(hub: WritableHub, tmp_path: Path, strategy: str) -> None:
    announced = Announced()
    run = trainer(
        tmp_path / "run",
        tiny_encoder(),
        hub_strategy=strategy,
        hub_always_push=True,
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        callbacks=[announced],
        **SETTINGS,
    )
    run.train()
    progress = [f"Training in progress, step {step}{more}" for step in (2, 4) for more in ("", ", checkpoint")]
    expected = {"end": [], "every_save": progress[::2]}.get(strategy, progress)
    assert hub.messages() == expected
    assert announced.steps == ([] if strategy == "end" else [2, 4])
    if strategy != "end":
        checkpoint = tree_of(tmp_path / "run" / "checkpoint-4")
        assert hub.files("me/mine")["model.safetensors"] == checkpoint["model.safetensors"]
        names = {"checkpoint": ["last-checkpoint"], "all_checkpoints": ["checkpoint-2", "checkpoint-4"]}.get(
            strategy, []
        )
        assert sorted({name.split("/")[0] for name in hub.files("me/mine") if "checkpoint" in name}) == names
        for name, data in checkpoint.items() if names else ():
            assert hub.files("me/mine")[f"{names[-1]}/{name}"] == data
    commit = run.push_to_hub()
    assert commit.commit_message == hub.messages()[-1] == "End of training"
    assert not any(name.startswith("_") or ".tmp-" in name for name in hub.files("me/mine"))
    run.save_model()
    assert hub.messages()[-1] == "Model save"
    assert TOKEN.encode() not in b"".join(hub.files("me/mine").values())
    assert TOKEN.encode() not in b"".join(tree_of(tmp_path / "run").values())


def test_a_hub_that_fails_stops_no_run(hub: WritableHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.broken = True
    run = trainer(tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=1, **SETTINGS)
    assert run.train().global_step == 2
    assert "an upload to 'me/mine' failed, the run goes on" in caplog.text and TOKEN not in caplog.text
    with pytest.raises(OSError, match="the disk of the hub is full"):
        run.push_to_hub()


def test_a_model_is_pushed_and_loaded_again(hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    model = SparseEncoder(str(write_encoder(tmp_path / "model")), device="cpu")
    address = model.push_to_hub("mine", token=TOKEN, private=True)
    assert address == f"{hub.url}/me/mine/commit/{hub.branches['me/mine']['main']}"
    again = SparseEncoder("me/mine", token=TOKEN, cache_folder=str(tmp_path / "cache"), device="cpu")
    texts = mixed_texts(3, seed=1, longest=9)
    torch.testing.assert_close(
        again.encode(texts, convert_to_tensor=True).to_dense(), model.encode(texts, convert_to_tensor=True).to_dense()
    )
    assert model.push_to_hub("mine", token=TOKEN, exist_ok=True, revision="next", commit_message="again")
    assert (hub.pushed[-1].branch, hub.messages()[-1]) == ("next", "again")
