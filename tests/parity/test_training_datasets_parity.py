"""Training on several datasets here and with sentence-transformers: the same batches, losses, prompts and routes."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from model_helpers import WORDS, write_masked_language_model

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments, losses, models

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sparse_encoder import losses as peer_losses
    from sentence_transformers.sparse_encoder import models as peer_models

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

OURS = (SparseEncoder, SparseEncoderTrainingArguments, SparseEncoderTrainer, losses, models)
PEER = (
    peer.SparseEncoder,
    peer.SparseEncoderTrainingArguments,
    peer.SparseEncoderTrainer,
    peer_losses,
    peer_models,
)

PROMPTS: dict[str, Any] = {
    "none": None,
    "one": "query ",
    "by column": {"anchor": "query ", "positive": "text ", "answer": "word "},
    "by dataset": {"pairs": "query ", "questions": "word "},
    "nested": {"pairs": {"anchor": "query "}, "questions": {"question": "word ", "answer": ""}},
}
ROUTES: dict[str, Any] = {
    "none": {},
    "flat": {"anchor": "query", "positive": "document", "question": "query", "answer": "document"},
    "nested": {
        "pairs": {"anchor": "document", "positive": "document"},
        "questions": {"question": "query", "answer": "document"},
    },
}


def texts(count: int, columns: tuple[str, ...], seed: int) -> Dataset:
    draw = random.Random(seed)
    return Dataset.from_dict(
        {name: [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)] for name in columns}
    )


def data() -> DatasetDict:
    return DatasetDict(
        {"pairs": texts(10, ("anchor", "positive"), 1), "questions": texts(17, ("question", "answer"), 2)}
    )


def build(library: tuple[Any, ...], folder: Path, *, with_router: bool) -> Any:  # noqa: ANN401  (either's model)
    """Return a model of the same weights in either library."""
    if not (folder / "plain").exists():
        write_masked_language_model(folder / "plain")
    encoder, *_, parts = library
    if not with_router:
        return encoder(str(folder / "plain"), device="cpu")
    document = [parts.MLMTransformer(str(folder / "plain")), parts.SpladePooling("max")]
    torch.manual_seed(0)
    query = parts.SparseStaticEmbedding(tokenizer=document[0].tokenizer, frozen=False)
    with torch.no_grad():
        query.weight.copy_(torch.linspace(0, 2, len(query.weight)))
    return encoder(
        modules=[parts.Router.for_query_document(query_modules=[query], document_modules=document)], device="cpu"
    )


def train(library: tuple[Any, ...], folder: Path, *, with_router: bool, **options: Any) -> Any:  # noqa: ANN401
    """Train with a loss for each of two datasets."""
    _, arguments, trainer, functions, _ = library
    model = build(library, folder, with_router=with_router)

    def loss(scale: float, weight: float) -> Any:  # noqa: ANN401  (either library's)
        base = functions.SparseMultipleNegativesRankingLoss(model, scale=scale)
        return functions.SpladeLoss(
            model, loss=base, document_regularizer_weight=weight, query_regularizer_weight=2 * weight
        )

    settings: dict[str, Any] = {
        "output_dir": str(folder / ("ours" if library is OURS else "peer")),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
        "num_train_epochs": 2,
        **options,
    }
    args = arguments(**settings)
    return trainer(
        model=model,
        args=args,
        train_dataset=data(),
        eval_dataset=data(),
        loss={"pairs": loss(1.0, 3e-3), "questions": loss(0.5, 1e-3)},
    )


def tensors_of(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("routes", ROUTES)
@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("order", ["proportional", "round_robin"])
def test_batches_and_losses_are_those_of_the_peer(order: str, prompts: str, routes: str, tmp_path: Path) -> None:
    options = {
        "multi_dataset_batch_sampler": order,
        "prompts": PROMPTS[prompts],
        "router_mapping": ROUTES[routes],
        "with_router": routes != "none",
    }
    ours, theirs = (train(library, tmp_path, **options) for library in (OURS, PEER))
    found, expected = list(ours.get_train_dataloader()), list(theirs.get_train_dataloader())
    assert len(found) == len(expected) == (8 if order == "proportional" else 6)
    for batch, other in zip(found, expected, strict=True):
        assert batch["dataset_name"] == other["dataset_name"]
        wanted = tensors_of(other)
        assert wanted.keys() <= batch.keys()
        assert all(torch.equal(batch[key], value) for key, value in wanted.items())
        assert {key: value for key, value in batch.items() if key.endswith("_task")} == {
            key: value for key, value in other.items() if key.endswith("_task")
        }
    for run in (ours, theirs):
        run.train()
    rows, others = ([row for row in run.state.log_history if "loss" in row] for run in (ours, theirs))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in others], rel=1e-4)
    assert [row["grad_norm"] for row in rows] == pytest.approx([row["grad_norm"] for row in others], rel=2e-3)
    assert len(rows) == 2 * len(found)


def test_evaluations_have_the_losses_and_keys_of_the_peer(tmp_path: Path) -> None:
    ours, theirs = (train(library, tmp_path, with_router=False, max_steps=6) for library in (OURS, PEER))
    for run in (ours, theirs):  # behind the first third of a run the peer has the full weights too
        run.train()
    found = ours.evaluate()
    torch.manual_seed(theirs.args.seed)  # which the order of rows goes by there, and the other run has changed
    expected = theirs.evaluate()
    leaked = {"document_regularizer_weight", "query_regularizer_weight"}  # from the peer's log into its results
    assert set(expected) - set(found) == leaked
    assert set(found) <= set(expected)
    for name in ("pairs", "questions"):
        assert found[f"eval_{name}_loss"] == pytest.approx(expected[f"eval_{name}_loss"], rel=1e-4)
    assert found["eval_pairs_loss"] != pytest.approx(found["eval_questions_loss"], rel=1e-2)
