"""Which places of a text are scored, and what is no such thing."""

from __future__ import annotations

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS

from sparse_encoder.generation import CausalLanguageModel
from sparse_encoder.generation.kept_places import kept_places

B, T, D = 2, 5, 3
HIDDEN = torch.arange(B * T * D, dtype=torch.float32).reshape(B, T, D)


def test_places_from_the_end_and_by_number() -> None:
    assert torch.equal(kept_places(HIDDEN, 0), HIDDEN)
    assert torch.equal(kept_places(HIDDEN, 2), HIDDEN[:, 3:])
    assert torch.equal(kept_places(HIDDEN, T + 4), HIDDEN)
    assert torch.equal(kept_places(HIDDEN, torch.tensor([4, 0, -5])), HIDDEN[:, [4, 0, 0]])


@pytest.mark.parametrize("wrong", [None, "a", 1.0, [1]])
def test_what_is_neither_a_number_nor_a_tensor(wrong: object) -> None:
    with pytest.raises(TypeError, match="logits_to_keep must be an integer or a tensor, got .*; 0 scores all"):
        kept_places(HIDDEN, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (True, "must be 0 for all places, or a number of them, got True"),
        (-1, "must be 0 for all places, or a number of them, got -1"),
        (torch.tensor([1.0]), r"must hold places, int64 and of one axis, got torch.float32 of shape \(1,\)"),
        (torch.tensor(1), r"must hold places, int64 and of one axis, got torch.int64 of shape \(\)"),
        (torch.tensor([], dtype=torch.int64), "must hold at least one place, got an empty tensor; pass 0 to score all"),
        (torch.tensor([0, T]), r"must hold places from -5 to 4, which this call has, got \[0, 5\]; leave out"),
        (torch.tensor([-T - 1]), r"must hold places from -5 to 4, which this call has, got \[-6\]; leave out"),
    ],
)
def test_places_that_are_not_there(wrong: int | torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"logits_to_keep {message}"):
        kept_places(HIDDEN, wrong)


def test_a_model_tells_the_same() -> None:
    model, ids = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"]), torch.tensor([[5, 6, 7]])
    with pytest.raises(TypeError, match="logits_to_keep must be an integer"):
        model(ids, logits_to_keep=None)
    with pytest.raises(ValueError, match="logits_to_keep must hold places from -3 to 2"):
        model(ids, logits_to_keep=torch.tensor([3]))
