from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from sparse_encoder.training.optimization.guard import GuardedUpdate, total_norm


def adamw(parameter: nn.Parameter, *, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter], lr=0.1, fused=fused)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(fused: bool, bad: float) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = adamw(parameter, fused=fused)
    guard = GuardedUpdate(optimizer, max_grad_norm=1.0)
    for gradient in ([1.0, 1.0], [bad, 1.0], [1.0, 1.0]):
        before = parameter.detach().clone()
        parameter.grad = torch.tensor(gradient)
        guard.step(guard.clip())
        assert torch.equal(parameter, before) == (bad in gradient)
    straight = nn.Parameter(torch.tensor([1.0, 2.0]))
    other = adamw(straight, fused=fused)
    for _ in range(2):
        straight.grad = torch.full((2,), 1 / math.sqrt(2))
        other.step()
    torch.testing.assert_close(parameter, straight, rtol=1e-6, atol=0)
    assert guard.skipped() == (0, 1)


def test_what_is_left_out_is_counted_in_a_row_and_in_all() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    guard = GuardedUpdate(adamw(parameter, fused=True), max_grad_norm=0.0, skipped_in_a_row=2)
    assert guard.skipped() == (2, 0)
    for gradient, expected in ((math.nan, (3, 1)), (1.0, (0, 1)), (math.nan, (1, 2)), (math.inf, (2, 3))):
        parameter.grad = torch.tensor([gradient])
        guard.step(guard.clip())
        assert guard.skipped() == expected


@pytest.mark.parametrize(("limit", "expected"), [(1.0, [0.6, 0.8]), (0.0, [3.0, 4.0]), (10.0, [3.0, 4.0])])
def test_the_norm_is_that_before_clipping(limit: float, expected: list[float]) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    guard = GuardedUpdate(torch.optim.SGD([parameter], lr=0.1), max_grad_norm=limit)
    assert guard.clip().item() == pytest.approx(5.0)
    assert parameter.grad.tolist() == pytest.approx(expected, rel=1e-5)


def sgd(*parameters: nn.Parameter) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


@pytest.mark.parametrize("optimizer", ["adamw", "fused", "sgd", "adagrad", "rmsprop", "adafactor"])
def test_parameters_are_the_same_to_the_bit_after_a_nan_in_any_of_them(optimizer: str) -> None:
    kinds = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rmsprop": torch.optim.RMSprop}
    parameters = [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(2))]
    if optimizer == "adafactor":
        made: torch.optim.Optimizer = torch.optim.Adafactor(parameters, lr=0.1)
    elif optimizer in kinds:
        made = kinds[optimizer](parameters, lr=0.1)
    else:
        made = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1, fused=optimizer == "fused")
    guard = GuardedUpdate(made, max_grad_norm=1.0)
    for bad in (0.0, math.nan, math.inf, -math.inf):  # with a state from the first on
        for each in parameters:
            each.grad = torch.randn_like(each)
        parameters[1].grad[0] += bad  # type: ignore[index]
        before = [each.detach().clone() for each in parameters]
        guard.step(guard.clip())
        assert [torch.equal(a, b) for a, b in zip(before, parameters, strict=True)] == [bad != 0.0] * 2
    assert guard.skipped() == (3, 3)


def test_a_loss_that_touches_only_some_parameters_moves_these() -> None:
    touched, other = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([7.0]))
    guard = GuardedUpdate(sgd(other, touched), max_grad_norm=1.0)
    touched.grad = torch.tensor([3.0, 4.0])
    assert guard.step(guard.clip())
    assert other.tolist() == [7.0]
    torch.testing.assert_close(touched.detach(), torch.tensor([1.0 - 0.3, 2.0 - 0.4]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scaler", [None, GradScaler("cpu")])
def test_an_update_without_any_gradient_moves_nothing(scaler: GradScaler | None) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    guard = GuardedUpdate(sgd(parameter), max_grad_norm=1.0, scaler=scaler)
    for _ in range(2):
        norm = guard.clip()
        assert norm.item() == 0.0
        assert guard.step(norm)
    assert parameter.tolist() == [1.0, 2.0]
    assert guard.skipped() == (0, 0)


def test_sparse_gradients_are_clipped_as_dense_ones() -> None:
    results = []
    for sparse in (True, False):
        torch.manual_seed(0)
        words, dense = nn.Embedding(7, 3, sparse=sparse), nn.Linear(3, 2)
        guard = GuardedUpdate(sgd(*words.parameters(), *dense.parameters()), max_grad_norm=0.25)
        dense(words(torch.tensor([1, 1, 4]))).square().sum().backward()
        assert words.weight.grad is not None and words.weight.grad.is_sparse == sparse
        norm = guard.clip()
        guard.step(norm)
        results.append([norm, words.weight.detach(), dense.weight.detach()])
    assert results[0][0] > 0.25
    torch.testing.assert_close(results[0], results[1])


def test_a_sparse_gradient_that_is_not_finite_moves_nothing() -> None:
    words = nn.Embedding(7, 3, sparse=True)
    before = words.weight.detach().clone()
    guard = GuardedUpdate(sgd(*words.parameters()), max_grad_norm=0.25)
    (words(torch.tensor([1, 4])) * math.nan).sum().backward()
    guard.step(guard.clip())
    assert torch.equal(words.weight, before)
    assert guard.skipped() == (1, 1)


def test_the_norm_of_16_bit_gradients_is_added_up_in_32() -> None:
    narrow = torch.full((300,), 6e4, dtype=torch.float16)  # a norm that float16 cannot hold
    wide = torch.tensor([5.0, 12.0])
    norm = total_norm([narrow, wide])
    assert norm.dtype == torch.float32
    number = narrow[0].item()
    assert norm.item() == pytest.approx(math.sqrt(300 * number**2 + 169), rel=1e-6)
    assert total_norm([wide]).item() == pytest.approx(13.0)
    assert total_norm([narrow[:1]]).item() == number


def scaled_update(guard: GuardedUpdate, parameter: nn.Parameter, gradient: float) -> bool:
    parameter.grad = None
    guard.scale(parameter.sum() * gradient).backward()
    return guard.step(guard.clip())


@pytest.mark.parametrize("fused", [True, False])
def test_scaled_losses_train_as_unscaled_ones(fused: bool) -> None:
    scaled, plain = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([1.0, 2.0]))
    guard = GuardedUpdate(adamw(scaled, fused=fused), 1.0, scaler=GradScaler("cpu"))
    other = GuardedUpdate(adamw(plain, fused=fused), 1.0)
    for gradient in (1.0, -3.0, 0.5):
        assert guard.scale(torch.tensor(2.0)).item() == 2.0 * 65536
        assert scaled_update(guard, scaled, gradient)
        assert scaled_update(other, plain, gradient)
        torch.testing.assert_close(scaled, plain, rtol=0, atol=0)  # the factor is a power of 2


def test_the_norm_of_scaled_losses_is_that_of_the_gradient() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    guard = GuardedUpdate(sgd(parameter), 1.0, scaler=GradScaler("cpu"))
    guard.scale((parameter * torch.tensor([3.0, 4.0])).sum()).backward()
    assert guard.clip().item() == pytest.approx(5.0)
    assert parameter.grad is not None
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_halves_the_scale_and_counts_only_at_its_smallest(fused: bool) -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    guard = GuardedUpdate(adamw(parameter, fused=fused), 1.0, scaler=GradScaler("cpu", init_scale=4.0))
    assert scaled_update(guard, parameter, 1.0)
    before = parameter.detach().clone()
    seen = []
    for _ in range(4):
        assert not scaled_update(guard, parameter, math.inf)
        seen.append((guard.state_dict()["scale"], *guard.skipped()))
    assert seen == [(2.0, 0, 0), (1.0, 0, 0), (1.0, 1, 1), (1.0, 2, 2)]
    assert torch.equal(parameter, before)
    assert scaled_update(guard, parameter, 1.0)
    assert guard.skipped() == (0, 2)
    assert not torch.equal(parameter, before)


def test_a_norm_that_overflows_halves_the_scale_though_no_gradient_does() -> None:
    parameter = nn.Parameter(torch.ones(2))
    guard = GuardedUpdate(sgd(parameter), 0.0, scaler=GradScaler("cpu", init_scale=4.0))
    assert scaled_update(guard, parameter, 2.0)
    assert parameter.tolist() == [0.0, 0.0]
    assert not scaled_update(guard, parameter, 3e37)
    assert guard.state_dict()["scale"] == 2.0
    assert guard.state_dict()["_growth_tracker"] == 0
    assert parameter.tolist() == [0.0, 0.0]
    assert guard.scale(torch.tensor(1.0)).item() == 2.0


def test_the_scale_grows_after_enough_updates() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    guard = GuardedUpdate(sgd(parameter), 1.0, scaler=GradScaler("cpu", init_scale=4.0, growth_interval=3))
    for expected in (4.0, 4.0, 8.0):
        assert scaled_update(guard, parameter, 1.0)
        assert guard.state_dict()["scale"] == expected


def test_the_state_of_the_scaler_goes_through_json() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    guard = GuardedUpdate(sgd(parameter), 1.0, scaler=GradScaler("cpu", init_scale=16.0, growth_interval=4))
    for gradient in (math.inf, 1.0, 1.0):
        scaled_update(guard, parameter, gradient)
    state = json.loads(json.dumps(guard.state_dict()))
    assert state["scale"] == 8.0 and state["_growth_tracker"] == 2
    other = GuardedUpdate(sgd(parameter), 1.0, scaler=GradScaler("cpu", growth_interval=4))
    other.load_state_dict(state)
    for _ in range(2):
        scaled_update(other, parameter, 1.0)
    assert other.state_dict()["scale"] == 16.0


def test_a_resumed_run_counts_on() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    guard = GuardedUpdate(sgd(parameter), 1.0)
    guard.go_on(7)
    assert guard.skipped() == (7, 0)
    parameter.grad = torch.tensor([math.nan])
    guard.step(guard.clip())
    assert guard.skipped() == (8, 1)


def test_states_with_and_without_a_scaler_do_not_mix() -> None:
    plain = GuardedUpdate(sgd(nn.Parameter(torch.zeros(1))), 1.0, scaler=GradScaler("cpu", enabled=False))
    scaled = GuardedUpdate(sgd(nn.Parameter(torch.zeros(1))), 1.0, scaler=GradScaler("cpu"))
    assert plain.state_dict() == {}
    plain.load_state_dict({})
    with pytest.raises(ValueError, match="fp16=True only, got a state without it"):
        plain.load_state_dict(scaled.state_dict())
    with pytest.raises(ValueError, match="got no state with it"):
        scaled.load_state_dict({})
    with pytest.raises(ValueError, match=r"lacks \['scale'\]"):
        scaled.load_state_dict({name: value for name, value in scaled.state_dict().items() if name != "scale"})


def test_fused_optimizers_never_make_the_process_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = adamw(parameter, fused=True)
    guard = GuardedUpdate(optimizer, max_grad_norm=1.0)

    def refuse(*_: object) -> None:
        raise AssertionError("a number was read from the device")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for gradient in (1.0, math.nan):
        parameter.grad = torch.full((2,), gradient)
        guard.step(guard.clip())
    monkeypatch.undo()
    assert guard.skipped() == (1, 1)
