"""Few rows times a large weight: the same numbers in another order, and only where that order is meant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, randomise
from decoder_helpers import DECODER_CONFIGS
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone import MaskedLanguageModel, few_rows
from sparse_encoder.backbone.adapters.layer import LoraLinear
from sparse_encoder.backbone.few_rows import LEAST_WEIGHTS, MOST_ENTRIES, MOST_ROWS, StepLinear, linear
from sparse_encoder.generation import CausalLanguageModel

D = 160
V = LEAST_WEIGHTS // D + 1
WRITER = {**DECODER_CONFIGS["llama"], "vocab_size": V, "hidden_size": D, "intermediate_size": V, "head_dim": 40}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Collect the shapes of what goes the usual way."""
    shapes: list[tuple[int, ...]] = []

    def spied(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append(tuple(hidden.shape))
        return F.linear(hidden, weight, bias)

    monkeypatch.setattr(few_rows, "F", SimpleNamespace(linear=spied))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    return shapes


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("bias", [None, drawn(V, seed=2)], ids=["no bias", "bias"])
@pytest.mark.parametrize("shape", [(1, 1, D), (2, 1, D), (5, 1, D), (8, 1, D)])
@torch.inference_mode()
def test_few_rows_give_the_usual_product(
    shape: tuple[int, ...], bias: Tensor | None, plain: list[tuple[int, ...]]
) -> None:
    hidden, weight = drawn(*shape), drawn(V, D, seed=1)
    got = linear(hidden, weight, bias)
    torch.testing.assert_close(got, F.linear(hidden, weight, bias), atol=1e-4, rtol=1e-4)
    assert got.is_contiguous()
    assert plain == []


@torch.no_grad()
def test_rows_that_are_no_neighbours_are_few_as_well(plain: list[tuple[int, ...]]) -> None:
    hidden, weight = drawn(3, 5, D)[:, -1:], drawn(V, D, seed=1)
    torch.testing.assert_close(linear(hidden, weight), F.linear(hidden, weight), atol=1e-4, rtol=1e-4)
    assert plain == []


@pytest.mark.parametrize(
    ("hidden", "weight"),
    [
        (drawn(1, 2, D), drawn(V, D)),
        (drawn(2, D), drawn(V, D)),
        (drawn(MOST_ROWS + 1, 1, D), drawn(V, D)),
        (drawn(0, 1, D), drawn(V, D)),
        (drawn(2, 1, MOST_ENTRIES // 2 + 1), drawn(64, MOST_ENTRIES // 2 + 1)),
        (drawn(1, 1, MOST_ENTRIES // 3 + 1), drawn(128, MOST_ENTRIES // 3 + 1)),
        (drawn(2, 1, D), drawn(V - 2, D)),
        (drawn(2, 1, D, dtype=torch.float64), drawn(V, D, dtype=torch.float64)),
        (drawn(2, 1, D, dtype=torch.bfloat16), drawn(V, D, dtype=torch.bfloat16)),
        (torch.empty(2, 1, D, device="meta"), torch.empty(V, D, device="meta")),
    ],
    ids=[
        "two tokens",
        "no texts",
        "many rows",
        "no row",
        "wide rows",
        "one wide row",
        "a small weight",
        "float64",
        "bfloat16",
        "no CPU",
    ],
)
@torch.no_grad()
def test_all_else_goes_the_usual_way(hidden: Tensor, weight: Tensor, plain: list[tuple[int, ...]]) -> None:
    got = linear(hidden, weight)
    assert plain == [tuple(hidden.shape)]
    assert got.shape == (*hidden.shape[:-1], len(weight))
    assert got.device.type == "meta" or torch.equal(got, F.linear(hidden, weight))


def test_gradients_go_the_usual_way(plain: list[tuple[int, ...]]) -> None:
    weight = drawn(V, D, seed=1).requires_grad_()
    linear(drawn(2, 1, D), weight).sum().backward()
    assert plain == [(2, 1, D)]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, drawn(2, D).sum(dim=0).expand(V, D))


@torch.no_grad()
def test_without_mkl_the_usual_way_is_taken(plain: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    linear(drawn(2, 1, D), drawn(V, D))
    assert plain == [(2, 1, D)]


@torch.no_grad()
def test_a_graph_holds_for_other_numbers_of_rows() -> None:
    layer = StepLinear(nn.Linear(D, V))
    rows = torch.export.Dim("rows", min=1, max=64)
    graph = torch.export.export(layer, (drawn(3, 1, D),), dynamic_shapes=({0: rows},)).module()
    for count in (1, 12):
        torch.testing.assert_close(graph(drawn(count, 1, D)), layer(drawn(count, 1, D)), atol=1e-4, rtol=1e-4)


def step_layers(model: nn.Module) -> list[bool]:
    return [isinstance(part, StepLinear) for part in model.modules() if isinstance(part, nn.Linear)]


def test_models_that_write_take_steps_and_encoders_do_not() -> None:
    writer = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"])
    assert step_layers(writer) == [True] * (3 * 7)
    encoder = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"])
    assert step_layers(encoder) and not any(step_layers(encoder))
    bidirectional = MaskedLanguageModel.from_config({**DECODER_CONFIGS["llama"], "is_causal": False})
    assert not any(step_layers(bidirectional))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("rows", [1, 2])
def test_both_orders_write_the_same(
    rows: int, settings: dict[str, Any], plain: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CausalLanguageModel.from_config(WRITER).eval()
    randomise(model)
    prompts = torch.tensor([[5, 6, 7], [8, 9, 4]])[:rows]
    asked = {**settings, "max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    fast = model.generate(prompts, **asked)
    fewer = len(plain)
    plain.clear()
    monkeypatch.setattr(few_rows, "MOST_ROWS", 0)
    assert torch.equal(model.generate(prompts, **asked), fast)
    assert fewer < len(plain)


@pytest.mark.parametrize("takes_steps", [True, False])
@torch.no_grad()
def test_a_layer_with_adapters_takes_steps_as_the_layer_did(takes_steps: bool, plain: list[tuple[int, ...]]) -> None:
    base = nn.Linear(D, V)
    layer = StepLinear(base) if takes_steps else base
    adapted, usual = LoraLinear(layer), F.linear(drawn(2, 1, D), base.weight, base.bias)
    torch.testing.assert_close(adapted(drawn(2, 1, D)), usual, atol=1e-4, rtol=1e-4)
    assert takes_steps or torch.equal(adapted(drawn(2, 1, D)), usual)
    assert type(adapted.plain()) is type(layer)
    assert adapted.plain().weight is base.weight
    assert plain == []
