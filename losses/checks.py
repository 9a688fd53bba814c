"""What losses refuse, told by their name; values only where they are at hand, so that no check waits for a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from numbers import Integral

from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, Regularizer, check_number, full_precision


def checked_columns(loss: nn.Module, columns: Sequence[Tensor], at_least: int, what: str) -> list[Tensor]:
    """Check that a batch has the columns that a loss needs.

    Args:
        loss: Whose name the error bears.
        columns: Term weights, (B, V) each.
        at_least: Fewest columns.
        what: Names them, "a query, a positive and a negative".

    Returns:
        The columns in float32 or wider.

    Raises:
        ValueError: If there are fewer columns, or they differ in shape.
    """
    if len(columns) < at_least:
        raise ValueError(f"{type(loss).__name__} needs at least {_columns(at_least)}, {what}, got {len(columns)}")
    if len({column.shape for column in columns}) > 1:
        shapes = [tuple(column.shape) for column in columns]
        raise ValueError(f"the columns of {type(loss).__name__} must have one shape, got {shapes}")
    return [full_precision(column) for column in columns]


def exact_columns(loss: nn.Module, columns: Sequence[Tensor], count: int, what: str) -> list[Tensor]:
    """Check that a batch has as many columns as a loss compares; as :func:`checked_columns`.

    Raises:
        ValueError: If there are more or fewer columns, or they differ in shape.
    """
    if len(columns) != count:
        raise ValueError(f"{type(loss).__name__} needs {_columns(count)}, {what}, got {len(columns)}")
    return checked_columns(loss, columns, count, what)


def checked_labels(
    loss: nn.Module, labels: Tensor | None, what: str, *shapes: tuple[int, ...], is_bounded: bool = False
) -> Tensor:
    """Check that the labels of a batch are there and of a shape that a loss can read.

    NaN among labels that are not on an accelerator is refused; there, nobody waits for them to be looked at, and what
    comes out is NaN. (A trainer's collator has refused them before.)

    Args:
        loss: Whose name the error bears.
        labels: As the collator made them.
        what: Names them, "a teacher's scores".
        shapes: Those that are possible.
        is_bounded: Whether +inf is refused as NaN is; -inf takes a document out on purpose.

    Returns:
        The labels, apart from any gradient.

    Raises:
        TypeError: If they are no tensor.
        ValueError: If there are none, they have another shape, or one is NaN, or +inf if they are bounded.
    """
    allowed = " or ".join(str(shape) for shape in shapes)
    if labels is None:
        raise ValueError(f"{type(loss).__name__} needs labels: {what}, of shape {allowed}; the batch has none")
    if not isinstance(labels, Tensor):
        raise TypeError(f"the labels of {type(loss).__name__} must be a tensor, {what}, got {type(labels).__name__}")
    if tuple(labels.shape) not in shapes:
        raise ValueError(
            f"the labels of {type(loss).__name__} are {what}, of shape {allowed}, got {tuple(labels.shape)}"
        )
    if is_at_hand(labels):
        _refuse_where(labels.isnan(), f"the labels of {type(loss).__name__}, {what}, hold NaN")
        if is_bounded:
            _refuse_where(labels.isposinf(), f"the labels of {type(loss).__name__}, {what}, hold infinity")
    return labels.detach()


def is_at_hand(tensor: Tensor) -> bool:
    """Return whether values can be looked at without waiting for an accelerator."""
    return tensor.device.type == "cpu"


def checked_row_labels(loss: nn.Module, labels: Tensor | None, num_rows: int) -> Tensor:
    """Check that there is one label per row; returns them as (B,).

    Raises:
        TypeError: If they are no tensor.
        ValueError: If there are none, more or fewer than rows, or one is NaN.
    """
    flat = labels.reshape(-1) if isinstance(labels, Tensor) and labels.numel() == num_rows else labels
    return checked_labels(loss, flat, "one number per row", (num_rows,))


def check_regularizer(name: str, regularizer: object) -> None:
    """Check that an object penalises one matrix of term weights.

    Args:
        name: Of the argument.
        regularizer: An object, not its class, that is no loss on the columns of a batch.

    Raises:
        ValueError: If it does not.
    """
    if isinstance(regularizer, EmbeddingLoss) or not _computes(regularizer, Tensor()):
        got = f"the class {regularizer.__name__}" if isinstance(regularizer, type) else type(regularizer).__name__
        raise ValueError(
            f"{name} must be a regularizer with compute_loss_from_embeddings(embeddings: Tensor), "
            f"as FlopsLoss(model), got {got}"
        )


def check_ranking_loss(loss: object) -> None:
    """Check that an object compares the columns of a batch, as the losses do that others are made of.

    Raises:
        ValueError: If it does not.
    """
    if isinstance(loss, Regularizer) or not compares_columns(loss):
        raise ValueError(
            "loss must be a ranking loss with compute_loss_from_embeddings(embeddings: list, labels), "
            f"got {type(loss).__name__}"
        )


def compares_columns(loss: object) -> bool:
    """Tell whether an object has ``compute_loss_from_embeddings`` that can be given embeddings and labels."""
    return _computes(loss, [], None)


def check_integer(name: str, value: object, at_least: int = 1) -> None:
    """Check a setting that counts.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be >= {at_least}, got {value}")


def check_positive(name: str, value: object) -> None:
    """Check a setting that multiplies or divides.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not above 0, or infinite.
    """
    if not 0 < check_number(name, value) < math.inf:
        raise ValueError(f"{name} must be > 0 and finite, got {value}")


def check_finite(name: str, value: object) -> None:
    """Check a setting that is added.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is infinite or NaN.
    """
    if not math.isfinite(check_number(name, value)):
        raise ValueError(f"{name} must be finite, got {value}")


def check_function(name: str, value: object, known: str) -> None:
    """Check a setting that is called.

    Args:
        name: Of the setting.
        value: What was given.
        known: Says what to give.

    Raises:
        ValueError: If it cannot be called, as the name of a function cannot.
    """
    if not callable(value):
        raise ValueError(f"unknown {name} {value!r}; give {known}")


def name_of(function: Callable[..., object]) -> str:
    """Name a function as a reader would, with the arguments that are bound to it."""
    if isinstance(function, partial):
        bound = ", ".join(f"{name}={value!r}" for name, value in function.keywords.items())
        return f"{name_of(function.func)}({bound})"
    return getattr(function, "__name__", type(function).__name__)


def _computes(loss: object, *arguments: object) -> bool:
    """Tell whether an object, which is no class, has ``compute_loss_from_embeddings`` that takes the arguments."""
    compute = getattr(loss, "compute_loss_from_embeddings", None)
    if isinstance(loss, type) or not callable(compute):
        return False
    try:
        signature(compute).bind(*arguments)
    except TypeError:
        return False
    return True


def _refuse_where(is_bad: Tensor, message: str) -> None:
    """Raise a message with the first row that is marked, if one is."""
    if is_bad.any():
        row = int(is_bad.reshape(len(is_bad), -1).any(dim=1).nonzero()[0])
        raise ValueError(f"{message} in row {row}")


def _columns(count: int) -> str:
    return f"{count} column" if count == 1 else f"{count} columns"
