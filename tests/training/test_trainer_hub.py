"""Trainers and models that upload to a hub on this machine with the real client, and models that come back from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_helpers import tree_of
from hub_server import CLIENTS_OWN, TOKEN, WritableHub, writable_hub
from huggingface_hub import ModelCard
from model_helpers import mixed_texts, write_encoder
from safetensors.torch import load, save_file
from torch import nn
from training_helpers import tiny_encoder, trainer

from sparse_encoder import SparseEncoder
from sparse_encoder.training import Trainer, TrainingArguments
from sparse_encoder.training.events.hub_push import HubPushCallback
from sparse_encoder.training.events.metric import MetricCallback
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


class Classifier(nn.Module):
    """Computes its own loss, as models of the generic trainer do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.project = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        logits = self.project(x)
        return (logits,) if labels is None else (nn.functional.cross_entropy(logits, labels), logits)

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(dict(self.state_dict()), Path(folder) / "model.safetensors")


def test_the_generic_trainer_has_metrics_and_pushes_at_its_epochs(hub: WritableHub, tmp_path: Path) -> None:
    rows = [{"x": [float(row % 3 == each) for each in range(5)], "labels": row % 3} for row in range(12)]
    accuracy = MetricCallback(lambda p, y: {"accuracy": (p.argmax(axis=1) == y).mean()}, rows, batch_size=5)
    pushing = HubPushCallback(tmp_path / "pushed", hub_token=TOKEN, hub_model_id="me/mine", license="mit")
    args = TrainingArguments(
        str(tmp_path / "run"),
        num_train_epochs=4,
        learning_rate=0.5,
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model="accuracy",
        load_best_model_at_end=True,
        disable_tqdm=True,
        use_cpu=True,
    )
    run = Trainer(Classifier(), args, train_dataset=rows, eval_dataset=rows, callbacks=[accuracy, pushing])
    run.callback_handler.context.setdefault("save_model", lambda folder: run.save_model(folder, _internal_call=True))
    run.train()
    assert [row["epoch"] for row in run.state.log_history if "eval_accuracy" in row] == [1, 2, 3, 4]
    assert run.state.best_metric == 1.0
    assert hub.messages()[0] == "Training in progress, epoch 1" and hub.messages()[-1] == "End of training"
    files = hub.files("me/mine")
    assert load(files["model.safetensors"])["project.weight"].equal(run.model.project.weight)
    readme = files["README.md"].decode()
    assert ModelCard(readme).data.to_dict()["license"] == "mit" and "Classifier" in readme
