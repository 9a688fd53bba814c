from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from model_helpers import write_masked_language_model
from torch import nn

from sparse_encoder import SparseEncoder
from sparse_encoder.training.card import CardOptions, ModelCardCallback, create_model_card
from sparse_encoder.training.state import TrainerControl, TrainerState

OPTIONS = CardOptions(
    language="en",
    license="mit",
    tags=["weather", "weather"],
    model_name="Rain search",
    finetuned_from="me/base",
    tasks=["feature-extraction", "sentence-similarity"],
    dataset_tags=["me/rain", "me/sun"],
    dataset="Rain",
    dataset_args=["daily", "hourly"],
)


@dataclass
class Arguments:
    output_dir: str = "unused"
    learning_rate: float = 5e-5
    hub_token: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Trainer(SimpleNamespace):
    """Only what a card reads of a trainer."""

    def __init__(self, model: nn.Module, folder: Path, **more: object) -> None:
        data = Dataset.from_dict({"text": ["rain | sun", "cloud"], "label": [0, 1]})
        given = {"train_dataset": data, "eval_dataset": None, "state": TrainerState(), "control": TrainerControl()}
        args = Arguments(output_dir=str(folder), learning_rate=0.5, hub_token="hf_secret")
        super().__init__(model=model, args=args, **{**given, **more})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("splade"))


def test_every_option_is_on_the_card(folder: Path, tmp_path: Path) -> None:
    model = SparseEncoder(str(folder), device="cpu")
    trainer = Trainer(model, tmp_path / "run")
    callback = ModelCardCallback(Arguments().to_dict())
    callback.on_init_end(trainer.args, trainer.state, trainer.control, model=model, trainer=trainer)
    for _ in range(2):  # once more changes nothing
        path = create_model_card(trainer, OPTIONS)
        assert path == tmp_path / "run" / "README.md"
        card = ModelCard.load(path)
        assert card.data.language == ["en"]
        assert card.data.license == "mit"
        assert card.data.tags.count("weather") == 1
        assert card.data.base_model == "me/base"
        assert card.data.pipeline_tag == "feature-extraction"
        assert card.data.datasets == ["me/rain", "me/sun"]
        assert card.text.startswith("\n# Rain search")
        assert "- **Base model:** `me/base`" in card.text
        assert "#### Rain\n\n* Dataset: [Rain](https://huggingface.co/datasets/me/rain), configuration" in card.text
        assert "- **Training datasets:** [Rain](https://huggingface.co/datasets/me/rain), [me/sun](" in card.text
    model.save_pretrained(str(tmp_path / "later"))
    assert ModelCard.load(tmp_path / "later" / "README.md").data.license == "mit"


def test_nothing_given_leaves_the_card_as_it_is(folder: Path, tmp_path: Path) -> None:
    model = SparseEncoder(str(folder), device="cpu")
    model.model_card_data.set_license("mit")
    path = create_model_card(Trainer(model, tmp_path), CardOptions())
    assert path is not None
    assert ModelCard.load(path).data.license == "mit"


def test_only_the_first_process_writes(folder: Path, tmp_path: Path) -> None:
    state = TrainerState(is_world_process_zero=False)
    trainer = Trainer(SparseEncoder(str(folder), device="cpu"), tmp_path / "run", state=state)
    assert create_model_card(trainer, OPTIONS) is None
    assert not (tmp_path / "run").exists()


def test_a_configuration_needs_its_dataset(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(SparseEncoder(str(folder), device="cpu"), tmp_path)
    with pytest.raises(ValueError, match="dataset_args needs dataset_tags or dataset"):
        create_model_card(trainer, CardOptions(dataset_args="daily"))


class Tagger(nn.Module):
    """A model without a card of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="bert", name_or_path="me/base")
        self.head = nn.Linear(3, 5)


def test_other_models_get_a_plainer_card(tmp_path: Path) -> None:
    state = TrainerState(
        best_global_step=2,
        log_history=[
            {"loss": 2.0, "epoch": 0.5, "step": 1},
            {"eval_loss": 1.0, "eval_f1": 0.25, "eval_runtime": 3.0, "epoch": 0.5, "step": 1},
            {"eval_loss": 0.5, "eval_f1": 0.75, "epoch": 1.0, "step": 2},
            {"train_runtime": 90.0, "train_loss": 2.0, "epoch": 1.0, "step": 2},
        ],
    )
    trainer = Trainer(Tagger(), tmp_path, state=state)
    path = create_model_card(trainer, CardOptions(tasks="token-classification", license="mit", dataset_tags="me/tags"))
    assert path is not None
    card = ModelCard.load(path)
    assert card.data.to_dict() | {"model-index": None} == {
        "base_model": "me/base",
        "datasets": ["me/tags"],
        "library_name": "sparse-encoder",
        "license": "mit",
        "metrics": ["loss", "f1"],
        "model-index": None,
        "pipeline_tag": "token-classification",
        "tags": ["generated_from_trainer", "dataset_size:2"],
    }
    assert {each.metric_type: each.metric_value for each in card.data.eval_results} == {
        "loss": 0.5,
        "f1": 0.75,
    }
    assert {(each.task_type, each.dataset_type) for each in card.data.eval_results} == {
        ("token-classification", "me/tags")
    }
    assert card.text.startswith("\n# Tagger based on me/base\n")
    for line in (
        "- **Model type:** Tagger (bert)",
        "- **Parameters:** 20",
        "- **Tasks:** token-classification",
        "- `learning_rate`: 0.5",
        "| 0.5 | 1 | 2.0 | 1.0 | 0.25 |",
        "| **1.0** | **2** | **-** | **0.5** | **0.75** |",
        "- **Training:** 1.5 minutes",
        r"  | <code>rain \| sun</code> | <code>0</code> |",
        f"- PyTorch: {torch.__version__}",
    ):
        assert line in card.text.splitlines(), line
    assert "hf_secret" not in path.read_text()
    assert str(tmp_path) not in card.text


def test_a_model_of_which_little_is_known_gets_a_card_too(tmp_path: Path) -> None:
    trainer = Trainer(nn.Linear(2, 3), tmp_path, train_dataset=None)
    path = create_model_card(trainer, CardOptions())
    assert path is not None
    card = ModelCard.load(path)
    assert card.data.to_dict() == {"library_name": "sparse-encoder", "tags": ["generated_from_trainer"]}
    assert card.text.startswith("\n# Linear\n")
    assert "- **Model type:** Linear\n" in card.text
    assert "None" not in card.text.split("### Training hyper")[0]
    assert create_model_card(trainer, CardOptions(), tmp_path / "beside") == tmp_path / "beside" / "README.md"
