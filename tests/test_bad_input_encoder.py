"""Rows 41 to 50 of bad_inputs.py: a clear error that names the offender, or the documented result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import VOCABULARY, mixed_texts, write_masked_language_model
from torch import nn

from sparse_encoder import SparseEncoder
from sparse_encoder.encoding import encode

TEXTS = mixed_texts(9)
V = len(VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


WRONG = {
    "NoneType": None,
    "int": 3,
    "bytes": b"rain",
    "float": math.nan,
    "list": ["rain"],
    "dict": {"query": "rain"},
    "float64": np.float64(2),
}


@pytest.mark.parametrize(("kind", "value"), WRONG.items())
def test_row_41_what_is_no_text_is_refused_by_its_place(model: SparseEncoder, kind: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"inputs\[2\] must be a string, got {kind}"):
        model.encode(["rain", "sun", value, None])


@pytest.mark.parametrize("value", [None, 3, b"rain", bytearray(b"rain"), math.nan, {"query": "rain"}])
def test_row_41_what_is_no_collection_is_refused(model: SparseEncoder, value: object) -> None:
    with pytest.raises(TypeError, match="inputs must be a string or a collection of strings"):
        model.encode(value)


def test_row_42_nothing_and_empty_texts_are_valid(model: SparseEncoder) -> None:
    for tensor in (None, True):
        assert model.encode([], convert_to_tensor=tensor).shape == (0, V)
    assert model.encode([], convert_to_tensor=False) == []
    rows = model.encode(["", "   \t\n", "[CLS] [SEP] [PAD]", "\u4e00\u4e8c", "rain"])
    assert rows.shape == (5, V)
    assert rows.values().isfinite().all()
    assert torch.equal(rows[0].to_dense(), rows[1].to_dense())
    assert torch.equal(rows[4].to_dense(), model.encode("rain").to_dense())


def test_row_43_huge_texts_take_bounded_time(model: SparseEncoder) -> None:
    texts = ["rain sun " * 1_200_000, "a" * 1_000_000, " " * 2_000_000]
    started = time.monotonic()
    rows = model.encode(texts)
    assert time.monotonic() - started < 10
    assert torch.equal(rows[0].to_dense(), model.encode("rain sun " * 100).to_dense())
    assert torch.equal(rows[2].to_dense(), model.encode("").to_dense())


def test_row_44_every_string_has_a_defined_result(model: SparseEncoder) -> None:
    texts = [
        "rain \ud800 sun",
        "rain\x00sun",
        "\u202erain",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "na\u0308ive",
    ]
    rows = model.encode(texts)
    assert rows.values().isfinite().all()
    assert torch.equal(rows[0].to_dense(), model.encode("rain \ufffd sun").to_dense())
    for place, text in enumerate(texts):
        assert torch.equal(model.encode(text).to_dense(), rows[place].to_dense())
    in_workers = model.encode(texts, device=["cpu"])
    assert torch.equal(in_workers.to_dense(), rows.to_dense())


@pytest.mark.parametrize("batch_size", [0, -1, True, 2.5, None])
def test_row_45_a_batch_needs_a_positive_number_of_texts(model: SparseEncoder, batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        model.encode(TEXTS, batch_size=batch_size)


def test_row_45_a_huge_batch_size_is_bounded_by_tokens(model: SparseEncoder) -> None:
    assert torch.equal(model.encode(TEXTS, batch_size=10**9).to_dense(), model.encode(TEXTS).to_dense())


def test_row_45_lengths_must_hold_a_token_and_fit_the_positions(model: SparseEncoder) -> None:
    model.max_seq_length = 3
    assert model.encode(TEXTS).shape == (9, V)
    for length in (1, 2, 0, -1, 65):
        with pytest.raises(ValueError, match="max"):
            set_length_and_encode(model, length)


def set_length_and_encode(model: SparseEncoder, length: int) -> None:
    model.max_seq_length = length
    model.encode(TEXTS)


class FailsAbove(nn.Module):
    """Stand in for a device that has room for so many tokens."""

    def __init__(self, module: nn.Module, tokens: int, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.module, self.tokens, self.error = module, tokens, error
        self.seen: list[int] = []

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.seen.append(features["attention_mask"].numel())
        if self.seen[-1] > self.tokens:
            raise self.error()
        return self.module(features)


OUT_OF_MEMORY = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError,
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_row_46_out_of_memory_halves_the_budget_and_goes_on(
    model: SparseEncoder, error: Callable[[], BaseException]
) -> None:
    texts = [*TEXTS, *["rain sun"] * 40]
    expected = model.encode(texts).to_dense()
    guard = FailsAbove(model[1], 100, error)
    model[1] = guard
    assert torch.equal(model.encode(texts).to_dense(), expected)
    failures = [tokens for tokens in guard.seen if tokens > 100]
    assert 0 < len(failures) <= 5
    assert failures == sorted(failures, reverse=True)


def test_row_46_a_text_that_does_not_fit_alone_is_named(model: SparseEncoder) -> None:
    model[1] = FailsAbove(model[1], 20, OUT_OF_MEMORY[0])
    with pytest.raises(MemoryError, match=r"texts\[3\], padded to 32 tokens, does not fit into memory"):
        model.encode(["rain", "sun", "cloud", " ".join(["rain"] * 20)])


def test_row_46_other_errors_are_not_taken_for_it(model: SparseEncoder) -> None:
    model[1] = FailsAbove(model[1], 1, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model.encode(TEXTS)


def test_row_47_weights_that_are_not_finite_name_text_and_module(model: SparseEncoder) -> None:
    river = VOCABULARY.index("river")
    name, embedding = next(
        (n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding) and len(m.weight) == V
    )

    def spoil(module: nn.Module, ids: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((ids[0] == river).unsqueeze(-1), math.inf)

    with embedding.register_forward_hook(spoil):
        with pytest.raises(
            ValueError, match=rf"texts\[7\] has weights that are not finite; they arise in module '{name}'"
        ):
            model.encode([*["rain"] * 7, "river", "sun"], batch_size=3)
        assert model.encode(["rain", "sun"]).shape == (2, V)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("value", [0, -3, True, 1.5])
def test_row_48_limits_must_be_positive(model: SparseEncoder, folder: Path, value: int) -> None:
    with pytest.raises(ValueError, match="max_active_dims must be a positive integer"):
        model.encode(TEXTS, max_active_dims=value)
    with pytest.raises(ValueError, match="max_active_dims must be a positive integer"):
        SparseEncoder(str(folder), max_active_dims=value)
    with pytest.raises(ValueError, match="top_k must be a positive integer"):
        model.decode(model.encode(TEXTS), top_k=value)


def test_row_48_a_limit_beyond_the_dimensions_keeps_all(model: SparseEncoder) -> None:
    expected = model.encode(TEXTS)
    assert torch.equal(model.encode(TEXTS, max_active_dims=V + 1).to_dense(), expected.to_dense())
    assert len(model.decode(expected[0], top_k=V + 1)) == expected[0].nnz


def test_row_49_training_mode_is_left_for_encoding_and_restored(model: SparseEncoder) -> None:
    expected = model.encode(TEXTS).to_dense()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    model.train()
    model[1].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    assert torch.equal(model.encode(TEXTS).to_dense(), expected)
    assert {name: module.training for name, module in model.named_modules()} == modes
    with pytest.raises(TypeError):
        model.encode([None])
    assert {name: module.training for name, module in model.named_modules()} == modes


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(encode, "CHUNK_TEXTS", 4)
    yield


def test_row_50_an_interrupt_leaves_the_model_as_it_was(model: SparseEncoder, small_chunks: None) -> None:
    expected = model.encode(TEXTS).to_dense()
    model.train()
    pooling = model[1]
    model[1] = FailsAbove(pooling, 20, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        model.encode(TEXTS)
    model[1] = pooling
    assert all(module.training for module in model.modules())
    assert torch.equal(model.encode(TEXTS).to_dense(), expected)
