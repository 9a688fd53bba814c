"""A model of anybody's, called with the inputs and read by the outputs that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class NamedCall(nn.Module):
    """Call a model by the names of its inputs and take its outputs by theirs.

    Args:
        model: Returns a tensor, several in order, or values by key or attribute.
        inputs: Names of its arguments, in the order in which they come here.
        outputs: Names of what is taken, in order.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Run the model."""
        found = self.model(**dict(zip(self.inputs, values, strict=True)))
        return tuple(take(found, name, place) for place, name in enumerate(self.outputs))


def take(found: Any, name: str, place: int) -> Tensor:  # noqa: ANN401 - whatever a model returns
    """Take one output of a model.

    Args:
        found: What it returned.
        name: Of the output.
        place: Of the output, where there are no names.

    Raises:
        ValueError: If there is no such output.
    """
    if isinstance(found, Mapping):
        value = found.get(name)
    elif isinstance(found, Tensor):
        value = found if place == 0 else None
    elif isinstance(found, (tuple, list)) and not hasattr(found, name):
        value = found[place] if place < len(found) else None
    else:
        value = getattr(found, name, None)
    if not isinstance(value, Tensor):
        raise ValueError(f"the model gives no output {name!r}, which the configuration names")
    return value
