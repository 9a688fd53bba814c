from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sparse_encoder.training.randomness import DATA_STREAM, MODEL_STREAM, seed_everything


def draw(*position: int) -> tuple[float, float, float]:
    seed_everything(*position)
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_draws_depend_on_the_position_alone() -> None:
    first = draw(42, MODEL_STREAM, 7, 0)
    torch.rand(100)
    random.random()
    assert draw(42, MODEL_STREAM, 7, 0) == first


@pytest.mark.parametrize("other", [(43, MODEL_STREAM, 7, 0), (42, DATA_STREAM, 7, 0), (42, MODEL_STREAM, 8, 0)])
def test_other_positions_draw_other_numbers(other: tuple[int, ...]) -> None:
    assert not set(draw(42, MODEL_STREAM, 7, 0)) & set(draw(*other))
