"""What a README tells of a training, against the peer's README of the same training."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from model_helpers import write_masked_language_model

import sparse_encoder
from sparse_encoder import evaluation, losses

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    import sentence_transformers.sparse_encoder as peer_sparse
    from sentence_transformers.sparse_encoder import evaluation as peer_evaluation
    from sentence_transformers.sparse_encoder import losses as peer_losses

Anything = Any  # modules of two libraries

PAIRS = {
    "anchor": ["rain | sun", "cloud\nriver", "stone bread flour"] * 4,
    "positive": ["the cat", "dog", "a tree by the river"] * 4,
    "negative": ["sun", "index", "query"] * 4,
}
QUERIES = {"1": "rain", "2": "cloud"}
CORPUS = {"a": "rain", "b": "cloud", "c": "bread"}


class Cards(NamedTuple):
    ours: ModelCard
    theirs: ModelCard


def train(library: Anything, parts: tuple[Anything, Anything, Anything], source: Path, target: Path) -> ModelCard:
    sparse, loss_functions, evaluators = parts
    model = library.SparseEncoder(str(source), device="cpu", similarity_fn_name="dot")
    evaluator = evaluators.SparseInformationRetrievalEvaluator(
        queries=QUERIES, corpus=CORPUS, relevant_docs={"1": {"a"}, "2": {"b"}}, name="tiny"
    )
    args = sparse.SparseEncoderTrainingArguments(
        output_dir=str(target / "run"),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        learning_rate=1e-4,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    inner = loss_functions.SparseMultipleNegativesRankingLoss(model)
    loss = loss_functions.SpladeLoss(model, inner, document_regularizer_weight=3e-5, query_regularizer_weight=5e-5)
    data = Dataset.from_dict(PAIRS)
    sparse.SparseEncoderTrainer(model, args, data, data, loss, evaluator).train()
    model.save_pretrained(str(target / "final"))
    return ModelCard.load(target / "final" / "README.md")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Cards:
    folder = tmp_path_factory.mktemp("cards")
    source = write_masked_language_model(folder / "source")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("HF_HUB_OFFLINE", "1")
        ours = train(sparse_encoder, (sparse_encoder, losses, evaluation), source, folder / "ours")
        theirs = train(peer, (peer_sparse, peer_losses, peer_evaluation), source, folder / "theirs")
    return Cards(ours, theirs)


def lines(card: ModelCard, start: str) -> list[str]:
    return [line.strip() for line in card.text.splitlines() if line.strip().startswith(start)]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def test_the_front_matter_tells_the_same(cards: Cards) -> None:
    ours, theirs = cards.ours.data.to_dict(), cards.theirs.data.to_dict()
    assert set(theirs) <= set(ours)
    assert ours["tags"] == theirs["tags"]
    assert ours["metrics"] == theirs["metrics"]
    assert ours["pipeline_tag"] == theirs["pipeline_tag"]
    assert {text for widget in ours["widget"] for text in widget.values()} <= set(PAIRS["anchor"])


def test_the_model_index_tells_the_same(cards: Cards) -> None:
    for mine, other in zip(cards.ours.data.eval_results, cards.theirs.data.eval_results, strict=True):
        for name in ("task_type", "task_name", "dataset_type", "dataset_name", "metric_type", "metric_name"):
            assert getattr(mine, name) == getattr(other, name)
        assert mine.metric_value == pytest.approx(other.metric_value, abs=1e-4)


@pytest.mark.parametrize("start", ["* Size:", "* Columns:", "* Approximate statistics", "| type", "| modality"])
def test_datasets_are_told_alike(cards: Cards, start: str) -> None:
    def told(card: ModelCard) -> list[str]:
        return [re.sub(r"\s+", " ", line) for line in lines(card, start)]

    assert told(cards.ours) == told(cards.theirs) != []


def test_statistics_are_the_same(cards: Cards) -> None:
    ours, theirs = lines(cards.ours, "| details"), lines(cards.theirs, "| details")
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert numbers(mine) == numbers(other)
        assert len(numbers(mine)) == 9
        assert re.findall("min|mean|max|tokens", mine) == re.findall("min|mean|max|tokens", other)


def test_samples_are_the_same(cards: Cards) -> None:
    def samples(card: ModelCard) -> list[str]:
        return [re.sub(r" +\|", " |", line) for line in lines(card, "| <code>")]

    assert samples(cards.ours) == samples(cards.theirs)
    assert len(samples(cards.ours)) == 6


def test_the_training_log_has_the_same_rows(cards: Cards) -> None:
    def rows(card: ModelCard) -> list[list[float | str]]:
        table = card.text.split("| Epoch")[1].split("\n\n")[0].splitlines()[2:]
        cells = [[cell.strip(" *") for cell in row.strip("| ").split("|")] for row in table]
        return [[cell if cell == "-" else round(float(cell), 2) for cell in row] for row in cells]

    ours, theirs = rows(cards.ours), rows(cards.theirs)
    assert ours == theirs
    assert len(ours) == 6
    assert lines(cards.ours, "| **2.0**")
    assert lines(cards.theirs, "| **2.0**")


def test_settings_that_were_chosen_are_told(cards: Cards) -> None:
    def chosen(card: ModelCard) -> set[str]:
        part = re.split("#### Non-[dD]efault", card.text)[1].split("#### All")[0]
        return {line.strip() for line in part.splitlines() if line.startswith("- `")}

    ours = chosen(cards.ours)
    theirs = chosen(cards.theirs)
    assert theirs - {"- `dataloader_pin_memory`: False", "- `disable_tqdm`: True"} <= ours
    assert "- `learning_rate`: 0.0001" in ours


def test_every_paper_of_the_peer_is_cited(cards: Cards) -> None:
    for source in ("SpladeLoss", "SparseMultipleNegativesRankingLoss", "FlopsLoss"):
        assert f"#### {source}\n" in cards.ours.text
        assert f"#### {source}\n" in cards.theirs.text
    assert re.findall(r"arXiv.2205.04733|2205\.04733", cards.ours.text)


def test_the_parts_of_the_peers_card_are_there(cards: Cards) -> None:
    for heading in ("Model Details", "Usage", "Evaluation", "Training Details", "Training Time", "Citation"):
        assert re.search(rf"^#+ {heading}$", cards.theirs.text, flags=re.MULTILINE)
        assert re.search(rf"^#+ {heading}$", cards.ours.text, flags=re.MULTILINE | re.IGNORECASE)
    assert '"document_regularizer_weight": 3e-05' in cards.ours.text
    assert '"document_regularizer_weight": 3e-05' in cards.theirs.text
