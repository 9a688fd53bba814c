"""First modules as users of sentence-transformers write them: features without tokens, options in any form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.modules import InputModule, Router

LETTERS = "abcde"
TEXTS = ["abba", "c", "", "deed", "eee"]


def counts(texts: list[str]) -> Tensor:
    """Count the letters of texts, (B, V)."""
    return torch.tensor([[float(text.count(letter)) for letter in LETTERS] for text in texts])


class Counting(InputModule):
    """Weighs the letters of texts."""

    forward_kwargs = frozenset({"factor"})

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 6.0))
        self.batches: list[list[str]] = []
        self.options: list[dict[str, Any]] = []

    def preprocess(self, inputs: list[str], prompt: str | None = None, **options: object) -> dict[str, Any]:  # type: ignore[override]
        self.batches.append(list(inputs))
        self.options.append(options)
        return {"counts": counts([(prompt or "") + text for text in inputs]), "words": len(inputs)}

    def forward(self, features: dict[str, Any], factor: float = 1.0) -> dict[str, Any]:
        return {**features, "sentence_embedding": features["counts"] * self.weight * factor}


class OlderCounting(Counting):
    preprocess = InputModule.preprocess  # type: ignore[assignment]

    def tokenize(self, texts: list[str], **options: object) -> dict[str, Any]:  # type: ignore[override]
        self.batches.append(list(texts))
        self.options.append(options)
        return {"counts": counts(texts)}


@pytest.mark.parametrize("kind", [Counting, OlderCounting])
@pytest.mark.parametrize("routed", [False, True])
def test_their_features_are_encoded(kind: type[Counting], routed: bool) -> None:
    module = kind()
    model = SparseEncoder(modules=[Router({"query": [module]}) if routed else module], device="cpu")
    weights = torch.arange(1.0, 6.0)
    assert torch.equal(model.encode(TEXTS, batch_size=2).to_dense(), counts(TEXTS) * weights)
    assert [len(batch) for batch in module.batches] == [2, 2, 1]
    prompted = model.encode(TEXTS, prompt="ab", task="query", factor=2.0).to_dense()
    assert torch.equal(prompted, (counts(TEXTS) + counts(["ab"])) * weights * 2)
    assert module.options[-1]["task"] == "query"
    assert module.options[-1].get("max_length") is None
    assert model.preprocess("abba")["counts"].tolist() == [[2, 2, 0, 0, 0]]
    assert model.tokenize(["c"])["counts"].tolist() == [[0, 0, 1, 0, 0]]
    assert model.max_seq_length is None
    model.encode("c", processing_kwargs={"text": {"max_length": 3}})
    assert module.options[-1]["max_length"] == 3


@pytest.mark.parametrize("routed", [False, True])
def test_they_pad_by_themselves(routed: bool) -> None:
    model = SparseEncoder(modules=[Router({"query": [Counting()]}) if routed else Counting()], device="cpu")
    with pytest.raises(ValueError, match='padding="max_length" .* cannot be had of a Counting'):
        model.encode("c", processing_kwargs={"text": {"padding": "max_length", "max_length": 3}})


def test_they_are_trained_and_not_saved(tmp_path: Path) -> None:
    model = SparseEncoder(modules=[Counting()], device="cpu")
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1.0)
    rows = Dataset.from_dict({"query": ["ab", "cd", "e", "ba"], "document": ["bb", "dd", "ee", "aa"]})
    options = {"output_dir": str(tmp_path), "max_steps": 2, "per_device_train_batch_size": 2, "report_to": "none"}
    args = SparseEncoderTrainingArguments(**options, save_strategy="no", use_cpu=True)
    SparseEncoderTrainer(model=model, args=args, train_dataset=rows, loss=loss).train()
    assert all("task" not in each for each in model[0].options)  # nothing that is None
    assert not torch.equal(model[0].weight, torch.arange(1.0, 6.0))
    with pytest.raises(TypeError, match="a Counting cannot be saved"):
        model.save_pretrained(tmp_path / "model")


class Weighing(InputModule):
    """Weighs letters; how it reads texts is left to others."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {**features, "sentence_embedding": features["counts"]}


class WithPrompt(Weighing):
    def preprocess(self, inputs: list[str], prompt: str | None = None) -> dict[str, Any]:  # type: ignore[override]
        return {"counts": counts([(prompt or "") + text for text in inputs])}


class WithTextsAlone(Weighing):
    def tokenize(self, texts: list[str]) -> dict[str, Any]:  # type: ignore[override]
        return {"counts": counts(texts)}


class WithLength(WithPrompt):
    tokenizer = None

    def __init__(self) -> None:
        super().__init__()
        self.max_seq_length = 3


@pytest.mark.parametrize("kind", [WithPrompt, WithTextsAlone])
@pytest.mark.parametrize("routed", [False, True])
def test_they_are_given_no_more_than_they_name(kind: type[InputModule], routed: bool) -> None:
    model = SparseEncoder(modules=[Router({"query": [kind()]}) if routed else kind()], device="cpu")
    expected = counts(["abba", "abc"])
    assert torch.equal(model.encode(["ba", "c"], prompt="ab").to_dense(), expected)
    assert torch.equal(model.encode_query(["ba", "c"], prompt="ab").to_dense(), expected)
    assert torch.equal(model.preprocess(["ba", "c"], prompt="ab", task="query")["counts"], expected)
    assert torch.equal(model.preprocess(["ba", "c"])["counts"], counts(["ba", "c"]))
    assert torch.equal(model.tokenize(["ba", "c"], task="query")["counts"], counts(["ba", "c"]))
    assert torch.equal(model.input_module.tokenize(["ba", "c"])["counts"], counts(["ba", "c"]))
    with pytest.raises(TypeError, match="max_length"):
        model.encode("c", processing_kwargs={"text": {"max_length": 3}})


@pytest.mark.parametrize("routed", [False, True])
def test_what_they_do_not_have_is_told(routed: bool) -> None:
    model = SparseEncoder(modules=[Router({"query": [WithPrompt()]}) if routed else WithPrompt()], device="cpu")
    with pytest.raises(
        ValueError, match=f"a {'Router' if routed else 'WithPrompt'} have no names: it has no tokenizer"
    ):
        model.decode(model.encode("ab"))
    with pytest.raises(ValueError, match="max_seq_length cannot be 7: a WithPrompt makes its features by itself"):
        model.max_seq_length = 7
    model.max_seq_length = None
    assert model.max_seq_length is None


def test_a_length_of_their_own_is_set() -> None:
    model = SparseEncoder(modules=[Router({"query": [WithPrompt()], "document": [WithLength()]})], device="cpu")
    assert model.max_seq_length == 3
    model.max_seq_length = 7
    lengths = [module.max_seq_length for module in model.input_module.input_modules]
    assert lengths == [None, 7]


def test_one_that_reads_no_texts_is_refused() -> None:
    for module in (Weighing(), InputModule()):
        for read in (module.preprocess, module.tokenize):
            with pytest.raises(TypeError, match=f"{type(module).__name__} must define preprocess"):
                read(["a"])
    with pytest.raises(TypeError, match="must read texts, a Weighing does not"):
        SparseEncoder(modules=[Weighing()], device="cpu")
