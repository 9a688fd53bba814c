"""What pruning keeps, by hand and as properties of any rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.search import pruning
from sparse_encoder.search.pruning import (
    LEVELS,
    Pruning,
    keep_above,
    keep_mass,
    keep_ratio_to_max,
    keep_top_k,
    quantize_to_8_bits,
)

ROWS = torch.tensor([[0.0, 1.0, 4.0, 2.0, 3.0], [0.0] * 5, [0.5, 0.0, 0.0, 0.5, 0.0]])
WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.integers(1, 7)),
    elements=st.one_of(st.just(0.0), st.floats(2.0**-10, 2.0**6, width=32)),
)
PRUNINGS = st.one_of(
    st.builds(Pruning, st.just("top_k"), st.integers(1, 8).map(float), st.booleans()),
    st.builds(Pruning, st.just("ratio"), st.floats(0, 1), st.booleans()),
    st.builds(Pruning, st.just("mass"), st.floats(0.01, 1), st.booleans()),
    st.builds(Pruning, st.just("threshold"), st.floats(0, 70), st.booleans()),
    st.builds(Pruning, eight_bits=st.booleans()),
)


def kept(embeddings: SparseEmbeddings) -> list[list[float]]:
    return embeddings.to_dense().tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", ROWS.tolist()),
        ("top_k=2", [[0, 0, 4, 0, 3], [0] * 5, [0.5, 0, 0, 0.5, 0]]),
        ("top_k=1", [[0, 0, 4, 0, 0], [0] * 5, [0.5, 0, 0, 0, 0]]),
        ("ratio=0.5", [[0, 0, 4, 2, 3], [0] * 5, [0.5, 0, 0, 0.5, 0]]),
        ("ratio=0.51", [[0, 0, 4, 0, 3], [0] * 5, [0.5, 0, 0, 0.5, 0]]),
        ("ratio=1", [[0, 0, 4, 0, 0], [0] * 5, [0.5, 0, 0, 0.5, 0]]),
        ("mass=0.7", [[0, 0, 4, 0, 3], [0] * 5, [0.5, 0, 0, 0.5, 0]]),
        ("mass=0.5", [[0, 0, 4, 0, 3], [0] * 5, [0.5, 0, 0, 0, 0]]),
        ("mass=0.4", [[0, 0, 4, 0, 0], [0] * 5, [0.5, 0, 0, 0, 0]]),
        ("mass=1", ROWS.tolist()),
        ("threshold=2", [[0, 0, 4, 2, 3], [0] * 5, [0] * 5]),
        ("threshold=9", [[0] * 5] * 3),
    ],
)
def test_values_by_hand(text: str, expected: list[list[float]]) -> None:
    assert kept(Pruning.parse(text)(SparseEmbeddings.from_dense(ROWS))) == expected


def test_8_bits_by_hand() -> None:
    rows = SparseEmbeddings.from_dense(torch.tensor([[2.55, 0.014, 0.016, 0.004]]))
    torch.testing.assert_close(quantize_to_8_bits(rows).to_dense(), torch.tensor([[2.55, 0.01, 0.02, 0.0]]))
    assert quantize_to_8_bits(rows).nnz == 3
    clipped = quantize_to_8_bits(rows, maximum=0.0255)
    torch.testing.assert_close(clipped.to_dense(), torch.tensor([[0.0255, 0.014, 0.016, 0.004]]))
    assert quantize_to_8_bits(SparseEmbeddings.empty(3)).shape == (0, 3)


def test_negative_weights_count_by_their_size() -> None:
    rows = SparseEmbeddings.from_dense(torch.tensor([[-4.0, 1.0, 3.0]]))
    assert kept(keep_top_k(rows, 2)) == kept(keep_ratio_to_max(rows, 0.5)) == [[-4, 0, 3]]
    assert kept(keep_mass(rows, 0.5)) == kept(keep_above(rows, 3.5)) == [[-4, 0, 0]]
    with pytest.raises(ValueError, match=r"must not be negative to be rounded to 8 bits, got -4\.0"):
        quantize_to_8_bits(rows)


@given(weights=WEIGHTS, prune=PRUNINGS)
def test_no_new_term_and_the_order_of_weights_stays(weights: np.ndarray, prune: Pruning) -> None:
    before = SparseEmbeddings.from_dense(torch.from_numpy(weights))
    after = prune(before)
    SparseEmbeddings(after.crow_indices(), after.col_indices(), after.values(), after.shape)  # checks the arrays
    assert after.shape == before.shape
    assert bool((after.values() != 0).all())
    dense = after.numpy()
    assert ((dense == 0) | (weights != 0)).all()
    if not prune.eight_bits:
        assert ((dense == 0) | (dense == weights)).all()
    for row, pruned in zip(weights, dense, strict=True):
        greater = row[:, None] > row[None, :]
        assert (pruned[:, None] >= pruned[None, :])[greater].all()


@given(weights=WEIGHTS)
def test_8_bits_move_a_weight_by_half_a_step_at_most(weights: np.ndarray) -> None:
    rows = SparseEmbeddings.from_dense(torch.from_numpy(weights))
    step = float(weights.max(initial=0)) / LEVELS
    rounded = quantize_to_8_bits(rows).numpy()
    assert np.abs(rounded - weights).max(initial=0) <= step * (0.5 + 1e-4)
    levels = rounded / step if step else rounded
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)


@given(weights=WEIGHTS, mass=st.floats(0.01, 1))
def test_mass_keeps_enough_and_not_one_more(weights: np.ndarray, mass: float) -> None:
    rows = keep_mass(SparseEmbeddings.from_dense(torch.from_numpy(weights)), mass).numpy().astype(np.float64)
    for row, pruned in zip(weights.astype(np.float64), rows, strict=True):
        if row.any():
            assert pruned.sum() >= mass * row.sum() * (1 - 1e-12)
            assert pruned.sum() - pruned[pruned > 0].min() < mass * row.sum() * (1 + 1e-12) or mass == 1


def test_rows_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = SparseEmbeddings.from_dense(torch.rand(23, 17, generator=generator).clamp(min=0.5) - 0.5)
    whole = keep_mass(rows, 0.8)
    assert 0 < whole.nnz < rows.nnz
    monkeypatch.setattr(pruning, "MAX_BLOCK", 40)
    assert keep_mass(rows, 0.8).equal(whole)


@given(prune=PRUNINGS)
def test_a_pruning_reads_as_it_is_written(prune: Pruning) -> None:
    written = str(prune)
    again = Pruning.parse(written)
    assert again == prune
    assert str(again) == written


def test_prunings_are_written_as_short_as_they_can_be() -> None:
    texts = [
        "none",
        "uint8",
        "top_k=64",
        "ratio=0.1",
        "mass=1",
        "threshold=1e-05+uint8",
        "threshold=0.12345678901234566",
    ]
    assert [str(Pruning.parse(text)) for text in texts] == texts
    assert str(Pruning("top_k", 64)) == "top_k=64"
    assert str(Pruning("ratio", np.float32(0.5))) == "ratio=0.5"  # type: ignore[arg-type]


def test_values_that_no_text_could_hold_are_refused() -> None:
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match=f"top_k must be an integer, got {value}"):
            Pruning("top_k", value)
    with pytest.raises(TypeError, match="the value of ratio must be a number, got '0.5'"):
        Pruning("ratio", "0.5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a value needs the name of what it prunes by, .* got 3"):
        Pruning(None, 3.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a pruning is none, uint8 or NAME=NUMBER"),
        ("top_k", "a pruning is none, uint8 or NAME=NUMBER"),
        ("top_k=many", "a pruning is none, uint8 or NAME=NUMBER"),
        ("mass=nan", "a pruning is none, uint8 or NAME=NUMBER"),
        ("alpha=1", r"unknown pruning 'alpha'; choose from \['mass', 'ratio', 'threshold', 'top_k'\]"),
        ("top_k=0", "k must be at least 1, got 0"),
        ("top_k=2.5", "top_k must be an integer, got 2.5"),
        ("ratio=1.5", r"ratio must lie in \[0, 1\], got 1.5"),
        ("mass=0", "mass must be above 0"),
        ("mass=-1", r"mass must lie in \[0, 1\], got -1"),
        ("threshold=-1", r"threshold must lie in \[0, inf\], got -1"),
        ("top_k=4+int4", "after \\+ there may be 'uint8' only"),
        ("none+uint8", "a pruning is none, uint8"),
    ],
)
def test_what_is_no_pruning(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Pruning.parse(text)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 2.5])
def test_a_count_of_terms_is_an_integer(value: float) -> None:
    with pytest.raises(ValueError, match=f"^top_k must be an integer, got {value}$"):
        Pruning("top_k", value)


@pytest.mark.parametrize("value", ["3", True, None])
def test_a_value_is_a_number(value: float) -> None:
    with pytest.raises(TypeError, match=f"^the value of top_k must be a number, got {value!r}$"):
        Pruning("top_k", value)


def test_a_maximum_that_is_none() -> None:
    rows = SparseEmbeddings.from_dense(ROWS)
    with pytest.raises(ValueError, match="maximum must be a positive number, got 0"):
        quantize_to_8_bits(rows, maximum=0)
    with pytest.raises(ValueError, match="k must be an integer, got 1.5"):
        keep_top_k(rows, 1.5)  # type: ignore[arg-type]
