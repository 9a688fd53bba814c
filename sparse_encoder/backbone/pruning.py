"""Taking heads out of attention. Knows layers of attention, no model and no files.

Heads keep the numbers that they had at first, however many are gone already.

Source: Michel et al., 2019, https://arxiv.org/abs/1905.10650.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.few_rows import StepLinear
from sparse_encoder.backbone.integers import plain_integer

HeadsByLayer = tuple[tuple[int, ...], ...]
"""For each layer the heads that are gone, in order."""


def merged_heads(before: HeadsByLayer | None, more: Mapping[int, Collection[int]], num_layers: int) -> HeadsByLayer:
    """Join what is gone already and what shall go.

    Args:
        before: Of each layer; None for none.
        more: By layer.
        num_layers: How many there are.

    Raises:
        ValueError: If there is no such layer.
        TypeError: If a head is no integer.
    """
    merged = [set(heads) for heads in before or [()] * num_layers]
    for layer, heads in more.items():
        number = plain_integer(layer)
        if number is None or not 0 <= number < num_layers:
            raise ValueError(f"layers are numbered from 0 to {num_layers - 1}, got {layer!r}")
        for head in heads:
            found = plain_integer(head)
            if found is None:
                raise TypeError(f"heads must be integers, got {head!r} in layer {layer}")
            merged[number].add(found)
    return tuple(tuple(sorted(heads)) for heads in merged)


def check_prunable(attention: object) -> None:
    """Refuse attention with parts that this module does not know to cut.

    Raises:
        ValueError: If it is of another kind, has other parameters, or its projections are wrapped or shared out.
    """
    if not isinstance(attention, Attention) or type(attention) is not Attention:
        raise ValueError(f"heads of a {type(attention).__name__} cannot be pruned, only those of plain attention")
    if attention.num_kv_heads != attention.num_heads:
        raise ValueError(
            f"the {attention.num_heads} heads of a layer share {attention.num_kv_heads} pairs of keys and values in "
            "this model, so that no head can be taken out alone; head_mask of forward silences heads without that"
        )
    parts = _projections(attention)
    known = {id(parameter) for part in parts for parameter in part.parameters()}
    other = sorted(name for name, parameter in attention.named_parameters() if id(parameter) not in known)
    if other or any(type(part) not in (nn.Linear, StepLinear) for part in parts):
        raise ValueError(
            "heads can be pruned of plain projections only; merge or remove adapters first, and what else was put in: "
            f"{other or [type(part).__name__ for part in parts]}"
        )
    if any(type(parameter.data) is not Tensor for parameter in attention.parameters()):
        raise ValueError("attention that is shared out among processes cannot be pruned; prune before")


def prune_attention(attention: Attention, heads: Collection[int]) -> None:
    """Take heads out of a layer: their rows of queries, keys and values, their columns of the output.

    Parameters stay the same objects, without their gradients; an optimizer must be made afterwards.

    Args:
        attention: Checked by :func:`check_prunable`.
        heads: By their first numbers; those that are gone already do not count. One head at least must stay.
    """
    kept = [place for place, head in enumerate(attention.kept_heads) if head not in heads]
    if len(kept) == attention.num_heads:
        return
    attention.pruned_heads = tuple(sorted({*attention.pruned_heads, *heads}))
    places = torch.tensor(kept)[:, None] * attention.head_size + torch.arange(attention.head_size)
    rows = places.flatten()
    if attention.qkv is not None:
        parts = torch.arange(3)[:, None] * attention.all_head_size + rows
        _keep_rows(attention.qkv, parts.flatten())
    else:
        for projection in (attention.q, attention.k, attention.v, *_place_projections(attention)):
            _keep_rows(projection, rows)
    _set(attention.output.weight, attention.output.weight.detach().index_select(1, _on(rows, attention.output)))
    attention.output.in_features = len(rows)
    attention.num_heads = attention.num_kv_heads = len(kept)


def apply_pruning(layers: Iterable[nn.Module], pruned: HeadsByLayer | None) -> None:
    """Give new layers the shapes that their config says.

    Args:
        layers: Each with an ``attention``.
        pruned: The heads that are gone, by layer; None for none.

    Raises:
        ValueError: As :func:`check_prunable`.
    """
    for layer, heads in zip(layers, pruned or (), strict=False):
        if heads:
            check_prunable(layer.attention)
            assert isinstance(layer.attention, Attention)
            prune_attention(layer.attention, heads)


def _projections(attention: Attention) -> list[nn.Module]:
    inputs = [attention.qkv] if attention.qkv is not None else [attention.q, attention.k, attention.v]
    return [*inputs, *_place_projections(attention), attention.output]


def _place_projections(attention: Attention) -> list[nn.Linear]:
    """Return the projections that attention has for places alone."""
    positions = attention.positions
    return [] if positions is None else [part for part in (positions.q, positions.k) if part is not None]


def _keep_rows(projection: nn.Linear, rows: Tensor) -> None:
    for parameter in projection.parameters():
        _set(parameter, parameter.detach().index_select(0, _on(rows, projection)))
    projection.out_features = len(rows)


def _on(rows: Tensor, projection: nn.Linear) -> Tensor:
    return rows.to(projection.weight.device)


def _set(parameter: Tensor, value: Tensor) -> None:
    parameter.data = value
    parameter.grad = None
