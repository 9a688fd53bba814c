from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import VOCABULARY, mixed_texts, write_masked_language_model, write_tokenizer
from torch import nn

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone.modes import evaluating
from sparse_encoder.encoding import encode
from sparse_encoder.encoding.encode import EncodeSettings, encode_texts, is_out_of_memory
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.token_batches import TOKEN_BUDGET
from sparse_encoder.tokenizer import Tokenizer

TEXTS = mixed_texts(41, longest=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


class Spy(nn.Module):
    """Passes features on and keeps the shapes of the masks that it saw."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.shapes: list[tuple[int, int]] = []

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        mask = features["attention_mask"]
        assert torch.is_inference_mode_enabled()
        assert not self.training
        self.shapes.append(tuple(mask.shape))
        lengths = mask.sum(dim=1)
        assert (lengths > mask.shape[1] - 16).all() or mask.shape[1] == 16  # one padded length only
        return self.module(features)


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_each_text_is_run_once_in_batches_of_one_length(model: SparseEncoder, batch_size: int) -> None:
    model[1] = spy = Spy(model[1])
    counts: list[int] = []
    rows = encode_texts(model, TEXTS, EncodeSettings(batch_size=batch_size), on_done=counts.append)
    assert rows.shape == (41, len(VOCABULARY))
    assert sum(counts) == sum(size for size, _ in spy.shapes) == 41
    assert counts == [size for size, _ in spy.shapes]
    assert max(counts) <= batch_size
    assert {length for _, length in spy.shapes} <= {16, 32, 48, 64}
    assert [length for _, length in spy.shapes] == sorted((length for _, length in spy.shapes), reverse=True)


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"max_length": 21}, 21),
        ({"max_length": 500}, 64),
        ({"task": "query"}, 9),
        ({"task": "query", "max_length": 30}, 30),
        ({}, 64),
    ],
)
def test_all_texts_are_padded_to_one_length(folder: Path, options: dict[str, Any], length: int) -> None:
    transformer = Transformer(str(folder), transformer_task="fill-mask", query_length=9)
    model = SparseEncoder(modules=[transformer, SpladePooling()], device="cpu")
    expected = encode_texts(model, TEXTS, EncodeSettings(**options)).to_dense()
    shapes: list[tuple[int, int]] = []
    transformer.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0]["input_ids"].shape)))
    rows = encode_texts(model, TEXTS, EncodeSettings(**options, padded_to_max_length=True))
    assert shapes == [(32, length), (9, length)]
    torch.testing.assert_close(rows.to_dense(), expected)


def test_a_call_cuts_and_pads_by_its_own_options(folder: Path) -> None:
    options = {"text": {"max_length": 7}}
    transformer = Transformer(str(folder), transformer_task="fill-mask", processing_kwargs=options)
    text = "rain sun cloud river stone bread flour"
    words = [text.split()[:count] for count in (2, 5, 7)]
    plain = SparseEncoder(str(folder), device="cpu")
    for modules in ([transformer, SpladePooling()], [Router({"query": [transformer, SpladePooling()]})]):
        model = SparseEncoder(modules=modules, device="cpu")
        found = [model.encode(text, processing_kwargs={"text": {"max_length": limit}}) for limit in (4, 7, 9)]
        for row, each in zip(found, words, strict=True):
            assert torch.equal(row.to_dense(), plain.encode(" ".join(each)).to_dense())
        shapes: list[tuple[int, int]] = []
        hook = transformer.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0]["input_ids"].shape)))  # noqa: B023
        model.encode([text, "rain"], processing_kwargs={"text": {"padding": "max_length"}})
        hook.remove()
        assert shapes == [(2, 7)]


def test_texts_are_not_padded_beyond_where_they_are_cut(folder: Path) -> None:
    transformer = Transformer(str(folder), transformer_task="fill-mask")
    model = SparseEncoder(modules=[transformer, SpladePooling()], device="cpu")
    model.max_seq_length = 20
    shapes: list[tuple[int, int]] = []
    transformer.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0]["input_ids"].shape)))
    for length in (40, 12):
        model.encode("rain " * 50, processing_kwargs={"text": {"padding": "max_length", "max_length": length}})
    assert shapes == [(1, 20), (1, 12)]


def test_texts_that_are_cut_nowhere_cannot_be_padded_to_there(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    static = SparseStaticEmbedding(Tokenizer.from_pretrained(tmp_path))
    static.max_seq_length = None
    model = SparseEncoder(modules=[static], device="cpu")
    assert static.max_seq_length is None
    with pytest.raises(ValueError, match="needs max_length"):
        model.encode("rain", processing_kwargs={"text": {"padding": "max_length"}})
    assert model.encode("rain", processing_kwargs={"text": {"padding": "max_length", "max_length": 5}}).nnz == 1


def test_a_batch_never_has_more_tokens_than_the_budget(model: SparseEncoder) -> None:
    model[1] = spy = Spy(model[1])
    encode_texts(model, ["rain " * 70] * 600, EncodeSettings(batch_size=10**6))
    assert max(size * length for size, length in spy.shapes) == TOKEN_BUDGET
    assert len(spy.shapes) == math.ceil(600 * 64 / TOKEN_BUDGET)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_texts_are_tokenised_in_chunks(model: SparseEncoder, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    expected = model.encode(TEXTS).to_dense()
    seen: list[int] = []
    tokenize = type(model[0]).tokenize_batch

    def count(
        self: nn.Module, texts: list[str], *, prompt: str | None, task: str | None, max_length: int | None
    ) -> object:
        seen.append(len(texts))
        return tokenize(self, texts, prompt=prompt, task=task, max_length=max_length)

    monkeypatch.setattr(type(model[0]), "tokenize_batch", count)
    monkeypatch.setattr(encode, "CHUNK_TEXTS", chunk)
    assert torch.equal(model.encode(TEXTS).to_dense(), expected)
    assert max(seen) <= chunk
    assert sum(seen) == 41


def test_a_text_of_a_later_chunk_is_named_by_its_place(model: SparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "CHUNK_TEXTS", 4)

    def spoil(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((inputs[0] == VOCABULARY.index("river")).unsqueeze(-1), math.nan)

    embedding = next(m for m in model.modules() if isinstance(m, nn.Embedding) and len(m.weight) == len(VOCABULARY))
    embedding.register_forward_hook(spoil)
    with pytest.raises(ValueError, match=r"texts\[9\] has weights that are not finite"):
        model.encode([*["rain"] * 9, "river", "sun"])


def test_rows_can_leave_the_device_batch_by_batch(model: SparseEncoder) -> None:
    rows = encode_texts(model, TEXTS, EncodeSettings(save_to_cpu=True))
    assert rows.device.type == "cpu"
    assert torch.equal(rows.to_dense(), model.encode(TEXTS).to_dense())


def test_modes_come_back_also_after_an_error(model: SparseEncoder) -> None:
    model.train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of range"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
