"""What is to become a graph: a module, its inputs and outputs with their axes, and batches to compare it on.

Knows no model and nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

Axes = Mapping[str, Mapping[int, str]]
"""Names of the axes that may have any length, by input or output and by place."""
Tensors = dict[str, Tensor]


class Case(NamedTuple):
    """A batch to compare on."""

    label: str
    """What is special about it."""
    inputs: Tensors
    """By the graph's names."""


class Difference(NamedTuple):
    """How far an output of a graph is from the model's."""

    output: str
    largest: float
    """The largest absolute difference."""


Compare = Callable[[Tensors, Tensors], list[Difference]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """Describe a graph that is to be written."""

    module: nn.Module
    """Called with all inputs in order, each a tensor; returns the outputs in order."""
    reference: Callable[[Tensors], Tensors]
    """Computes the outputs by the model itself, for comparison."""
    inputs: Axes
    outputs: Axes
    example: Tensors
    """Inputs to trace with, by name, in the order of ``inputs``; without any there are only comparisons."""
    cases: Sequence[Case] = ()
    compare: Compare | None = None
    """How outputs are compared; None: each output value by value."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    feed: Callable[[Tensors], Mapping[str, Tensor]] | None = None
    """Turns inputs of the model into those of the graph, where they differ."""
