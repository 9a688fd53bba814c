"""Functions and attributes that are others while a model is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass
class PatchingSpec:
    """Say which attribute is replaced.

    Unlike elsewhere the attribute is put back whatever happens.
    """

    o: Any  # the object that has it, of any kind
    """The object, class or module."""
    name: str
    """Of the attribute."""
    custom_op: Callable[..., Any]
    """What it is meanwhile."""
    orig_op: Callable[..., Any] | None = None
    """What it was; found when it is replaced, if it is not given."""
    op_wrapper: Callable[..., Any] | None = None
    """Applied to what is put in, both times, as ``staticmethod`` is for a class."""


def found(specs: Sequence[PatchingSpec] | None) -> list[PatchingSpec]:
    """Return specs that know what they replace.

    Args:
        specs: Any; None for none.

    Raises:
        AttributeError: If an object has no such attribute.
    """
    return [
        spec if spec.orig_op is not None else replace(spec, orig_op=getattr(spec.o, spec.name)) for spec in specs or ()
    ]


def put(spec: PatchingSpec, value: Any) -> None:  # noqa: ANN401 - a function of any form
    """Set the attribute of a spec."""
    setattr(spec.o, spec.name, value if spec.op_wrapper is None else spec.op_wrapper(value))
