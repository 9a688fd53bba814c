from __future__ import annotations

import pytest
import torch
from torch import nn

from sparse_encoder.training.optimization import GradientAccumulator


def test_gradients_are_added_and_counted() -> None:
    accumulator = GradientAccumulator()
    assert accumulator.step == 0
    accumulator([torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 1.0])])
    accumulator([torch.tensor([-2.0, 1.0]), torch.tensor([-1.0, 2.0])])
    assert accumulator.step == 2
    assert [each.tolist() for each in accumulator.gradients if each is not None] == [[-1.0, 3.0], [-2.0, 3.0]]
    accumulator.reset()
    assert accumulator.step == 0
    assert [each.tolist() for each in accumulator.gradients if each is not None] == [[0.0, 0.0], [0.0, 0.0]]


def test_what_was_added_is_not_changed() -> None:
    accumulator = GradientAccumulator()
    first = torch.tensor([1.0])
    accumulator([first])
    taken = accumulator.gradients
    accumulator([torch.tensor([2.0])])
    accumulator.reset()
    assert first.tolist() == [1.0]
    assert taken[0] is not None and taken[0].tolist() == [1.0]


def test_a_gradient_may_be_missing() -> None:
    accumulator = GradientAccumulator()
    accumulator([None, torch.tensor([1.0]), None])
    accumulator([None, None, torch.tensor([2.0])])
    assert [None if each is None else each.tolist() for each in accumulator.gradients] == [None, [1.0], [2.0]]
    accumulator.reset()
    assert accumulator.gradients[0] is None


def test_reading_before_the_first_call_is_refused() -> None:
    with pytest.raises(ValueError, match="no gradients have been added yet"):
        _ = GradientAccumulator().gradients
    GradientAccumulator().reset()


def test_another_number_of_gradients_is_refused() -> None:
    accumulator = GradientAccumulator()
    accumulator([torch.zeros(1), torch.zeros(1)])
    with pytest.raises(ValueError, match="expected 2 gradients, got 1"):
        accumulator([torch.zeros(1)])
    accumulator.reset()
    with pytest.raises(ValueError, match="expected 2 gradients, got 3"):
        accumulator([torch.zeros(1)] * 3)


def test_three_batches_add_up_to_three_times_the_large_one() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    rows, targets = torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)

    def gradients(part: slice) -> list[torch.Tensor | None]:
        layer.zero_grad(set_to_none=True)
        (layer(rows[part]) - targets[part]).square().sum(dim=1).mean().backward()
        return [each.grad for each in layer.parameters()]

    accumulator = GradientAccumulator()
    for start in (0, 4, 8):
        accumulator(gradients(slice(start, start + 4)))
    for total, whole in zip(accumulator.gradients, gradients(slice(0, 12)), strict=True):
        assert total is not None and whole is not None
        torch.testing.assert_close(total / 3, whole, rtol=1e-13, atol=1e-14)
