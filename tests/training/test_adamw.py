from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.training.optimization import AdamW

Options = dict[str, Any]  # of the optimizer


def test_the_first_step_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = AdamW([parameter], lr=0.1, betas=(0.8, 0.9), eps=0.5, weight_decay=0.25)
    parameter.grad = torch.tensor([3.0, -4.0], dtype=torch.float64)
    optimizer.step()
    expected = []
    for value, gradient in ((1.0, 3.0), (-2.0, -4.0)):
        size = 0.1 * math.sqrt(1 - 0.9) / (1 - 0.8)
        value -= size * (0.2 * gradient) / (math.sqrt(0.1 * gradient**2) + 0.5)
        expected.append(value - 0.1 * 0.25 * value)
    assert parameter.tolist() == pytest.approx(expected, rel=1e-14)


def test_without_the_correction_the_rate_is_as_given() -> None:
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = AdamW([parameter], lr=0.1, betas=(0.8, 0.9), eps=0.5, correct_bias=False)
    parameter.grad = torch.tensor([3.0], dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(1.0 - 0.1 * 0.6 / (math.sqrt(0.9) + 0.5), rel=1e-14)


def test_the_defaults_are_those_of_transformers() -> None:
    defaults = AdamW([nn.Parameter(torch.zeros(1))]).defaults
    wanted = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "correct_bias": True}
    assert {name: defaults[name] for name in wanted} == wanted
    AdamW([nn.Parameter(torch.zeros(1))], 1e-3, (0.9, 0.999), 1e-6, 0.0, True, True)  # in the peer's order


def second_implementation(start: Tensor, gradients: list[Tensor], options: Options) -> Tensor:
    """The formula over whole histories instead of running means."""
    value, (first, second) = start.clone(), options["betas"]
    for t in range(1, len(gradients) + 1):
        mean = sum((1 - first) * first ** (t - i) * gradients[i - 1] for i in range(1, t + 1))
        square = sum((1 - second) * second ** (t - i) * gradients[i - 1] ** 2 for i in range(1, t + 1))
        if options["correct_bias"]:
            mean, eps = mean / (1 - first**t), options["eps"] / math.sqrt(1 - second**t)
            value = value - options["lr"] * mean / ((square / (1 - second**t)) ** 0.5 + eps)
        else:
            value = value - options["lr"] * mean / (square**0.5 + options["eps"])
        value = value * (1 - options["lr"] * options["weight_decay"])
    return value


@pytest.mark.parametrize("correct_bias", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("foreach", [True, False, None])
def test_twenty_steps_follow_a_second_implementation(
    correct_bias: bool, weight_decay: float, foreach: bool | None
) -> None:
    torch.manual_seed(0)
    options: Options = {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-3}
    options |= {"weight_decay": weight_decay, "correct_bias": correct_bias}
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in [(3, 2), (5,), ()]]
    starts = [each.detach().clone() for each in parameters]
    gradients = [[torch.randn_like(each) * 1e-2 for each in starts] for _ in range(20)]
    optimizer = AdamW(parameters, **options, foreach=foreach)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for index, start in enumerate(starts):
        expected = second_implementation(start, [step[index] for step in gradients], options)
        torch.testing.assert_close(parameters[index].detach(), expected, rtol=1e-12, atol=1e-14)


def test_all_at_once_is_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    shapes = [(3, 2), (5,), (2, 2), (4,)]
    kinds = [torch.float32, torch.float32, torch.bfloat16, torch.float64]
    one = [nn.Parameter(torch.randn(shape).to(kind)) for shape, kind in zip(shapes, kinds, strict=True)]
    many = copy.deepcopy(one)
    optimizers = [
        AdamW(
            [{"params": part[:1], "weight_decay": 0.1}, {"params": part[1:], "lr": 0.2, "eps": 1e-3}],
            lr=0.1,
            foreach=foreach,
        )
        for part, foreach in ((one, False), (many, True))
    ]
    for step in range(5):
        for a, b in zip(one, many, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        if step == 2:  # then one of them is a step behind
            one[1].grad = many[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


def test_decay_comes_after_the_update_and_epsilon_is_not_corrected() -> None:
    """What sets it apart from torch's: 20 steps on small gradients end apart, by the order of eps over the gradient."""
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(4)) for _ in range(2))
    optimizers = [AdamW([ours], lr=1e-2, eps=1e-6), torch.optim.AdamW([theirs], lr=1e-2, eps=1e-6, weight_decay=0.0)]
    for _ in range(20):
        ours.grad = torch.rand(4) * 1e-5
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    apart = (ours - theirs).abs().max().item()
    assert 1e-3 < apart < 0.2


def test_a_closure_is_run_with_gradients() -> None:
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamW([parameter], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert parameter.item() == pytest.approx(1.9, abs=1e-4)
    assert optimizer.step() is None


def test_the_state_has_the_keys_of_transformers_and_goes_on() -> None:
    parameter, other = (nn.Parameter(torch.tensor([2.0, 3.0])) for _ in range(2))
    first, second = AdamW([parameter], lr=0.1), AdamW([other], lr=0.7)
    parameter.grad = torch.tensor([1.0, -1.0])
    first.step()
    assert set(first.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}
    assert first.state[parameter]["step"] == 1
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        other.copy_(parameter)
    for optimizer, each in ((first, parameter), (second, other)):
        each.grad = torch.tensor([0.5, 0.25])
        optimizer.step()
    assert torch.equal(parameter, other)


def test_parameters_without_a_gradient_stay() -> None:
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    optimizer = AdamW(parameters, lr=0.1, weight_decay=0.5)
    parameters[1].grad = torch.ones(2)
    optimizer.step()
    assert parameters[0].tolist() == [1.0, 1.0]
    assert parameters[0] not in optimizer.state
    assert parameters[1].tolist() != [1.0, 1.0]


def test_sparse_gradients_are_refused() -> None:
    words = nn.Embedding(5, 2, sparse=True)
    words(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not take sparse gradients"):
        AdamW(words.parameters()).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be >= 0, got -1.0"),
        ({"lr": math.nan}, "lr must be >= 0, got nan"),
        ({"betas": (1.0, 0.9)}, r"betas must be >= 0 and < 1, got \(1.0, 0.9\)"),
        ({"betas": (0.9, -0.1)}, r"betas must be >= 0 and < 1"),
        ({"eps": -1e-8}, "eps must be >= 0, got -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamW([nn.Parameter(torch.zeros(1))], **options)
