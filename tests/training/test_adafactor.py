from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from sparse_encoder.training.optimization import Adafactor

Options = dict[str, Any]  # of the optimizer


def test_the_first_step_of_a_vector_is_its_sign() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = Adafactor([parameter], lr=0.25)
    parameter.grad = torch.tensor([0.5, -4.0, 0.01])
    optimizer.step()
    assert parameter.tolist() == pytest.approx([0.75, 2.25, 2.75])


def test_the_first_step_of_a_matrix_by_hand() -> None:
    gradient = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, -6.0]], dtype=torch.float64)
    parameter = nn.Parameter(torch.full((2, 3), 10.0, dtype=torch.float64))
    parameter.grad = gradient.clone()
    Adafactor([parameter], lr=0.5, clip_threshold=0.5, weight_decay=0.1).step()
    rows = [(1 + 4 + 9) / 3, (16 + 25 + 36) / 3]
    columns = [(1 + 16) / 2, (4 + 25) / 2, (9 + 36) / 2]
    mean = sum(rows) / 2
    update = [[float(gradient[i, j]) / math.sqrt(rows[i] * columns[j] / mean) for j in range(3)] for i in range(2)]
    size = math.sqrt(sum(each**2 for row in update for each in row) / 6)
    assert size > 0.5
    expected = [[10.0 * (1 - 0.05) - 0.5 * each / (size / 0.5) for each in row] for row in update]
    torch.testing.assert_close(parameter.detach(), torch.tensor(expected, dtype=torch.float64))


def test_what_a_matrix_keeps_is_two_vectors() -> None:
    matrix, vector = nn.Parameter(torch.ones(7, 4, 3)), nn.Parameter(torch.ones(5))
    optimizer = Adafactor([{"params": [matrix]}, {"params": [vector], "beta1": 0.5}], lr=0.1)
    matrix.grad, vector.grad = torch.ones(7, 4, 3), torch.ones(5)
    optimizer.step()
    shapes = {name: tuple(each.shape) for name, each in optimizer.state[matrix].items() if name != "step"}
    assert shapes == {"exp_avg_sq_row": (7, 4), "exp_avg_sq_col": (7, 3)}
    assert set(optimizer.state[vector]) == {"step", "exp_avg_sq", "exp_avg"}
    assert optimizer.state[vector]["step"] == 1


@pytest.mark.parametrize("beta1", [None, 0.5])
def test_weights_of_16_bits_are_updated_in_32(beta1: float | None) -> None:
    torch.manual_seed(0)
    narrow = nn.Parameter(torch.randn(4, 3).bfloat16())
    wide = nn.Parameter(narrow.detach().float())
    narrow.grad = torch.randn(4, 3).bfloat16()
    wide.grad = narrow.grad.float()
    for each in (narrow, wide):
        Adafactor([each], lr=0.1, beta1=beta1, weight_decay=0.1).step()
    assert torch.equal(narrow, wide.bfloat16())


@pytest.mark.parametrize("beta1", [None, 0.5])
def test_a_state_goes_on(beta1: float | None) -> None:
    torch.manual_seed(0)
    straight, resumed = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    first, second = Adafactor([straight], lr=0.1, beta1=beta1), Adafactor([resumed], lr=0.7)
    straight.grad = torch.randn(4, 3)
    first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        resumed.copy_(straight)
    straight.grad = torch.randn(4, 3)
    resumed.grad = straight.grad.clone()
    first.step()
    second.step()
    assert torch.equal(straight, resumed)


def test_a_closure_is_run_with_gradients() -> None:
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = Adafactor([parameter], lr=0.5)

    def closure() -> float:
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert parameter.item() == pytest.approx(1.5)


def test_parameters_without_a_gradient_stay() -> None:
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    optimizer = Adafactor(parameters, lr=0.25, weight_decay=0.5)
    parameters[1].grad = torch.ones(2)
    optimizer.step()
    assert parameters[0].tolist() == [1.0, 1.0]
    assert parameters[1].tolist() == pytest.approx([1.0 * (1 - 0.125) - 0.25] * 2)


def test_sparse_gradients_are_refused() -> None:
    words = nn.Embedding(5, 2, sparse=True)
    words(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not take sparse gradients"):
        Adafactor(words.parameters(), lr=0.1).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be >= 0, got -1.0"),
        ({"eps": -1.0}, "eps must be >= 0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"decay_rate": 0.0}, "decay_rate must be < 0, got 0.0"),
        ({"clip_threshold": 0.0}, "clip_threshold must be > 0, got 0.0"),
        ({"beta1": 1.0}, "beta1 must be None or >= 0 and < 1, got 1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adafactor([nn.Parameter(torch.zeros(1))], **{"lr": 0.1, **options})
