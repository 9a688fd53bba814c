r"""Tables with one row per token, made longer or shorter. Knows tables and biases, no model.

New rows are drawn close to the mean of the old ones, so that new tokens start as likely as an average one:

.. math:: \mathcal N(\mu, 10^{-9} \Sigma), \quad \Sigma = \tfrac 1 V \sum_v (w_v - \mu)(w_v - \mu)^T

Source: Hewitt, 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsIndex

import torch
from torch import Tensor

from sparse_encoder.backbone.integers import plain_integer

SPREAD = 1e-9
"""Share of the old rows' covariance, and of their biases' deviation, that new ones have."""

NewRows = Callable[[Tensor, int], Tensor]
"""Makes so many rows for a table."""


def rows_wanted(current: int, asked: SupportsIndex | None, multiple: SupportsIndex | None) -> int:
    """Return how many rows a table shall have.

    Args:
        current: Rows it has.
        asked: Rows wanted; None keeps them.
        multiple: Round up to a multiple of it; None does not.

    Raises:
        ValueError: If a number is no integer from 1 on.
    """
    rows = current if asked is None else _positive("new_num_tokens", asked)
    if multiple is None:
        return rows
    multiple = _positive("pad_to_multiple_of", multiple)
    return -(-rows // multiple) * multiple


def _positive(name: str, value: SupportsIndex) -> int:
    """Return any kind of integer from 1 on as one of Python's."""
    number = plain_integer(value)
    if number is None or number < 1:
        raise ValueError(f"{name} must be an integer from 1 on, got {value!r}")
    return number


def check_resizable(parameter: Tensor) -> None:
    """Refuse a table that is not here as a whole.

    Raises:
        ValueError: If it is shared out among processes, or its values are elsewhere.
    """
    if type(parameter.data) is not Tensor:
        raise ValueError("embeddings that are shared out among processes cannot be resized; resize them before")
    if parameter.is_meta:
        raise ValueError("embeddings on the meta device have no rows to resize; load the model without offloading")


def set_rows(parameter: Tensor, rows: int, new_rows: NewRows) -> None:
    """Cut a parameter's rows off or add some at the end; it stays the same object, without its gradient.

    Args:
        parameter: A table (V, E), or a bias (V,).
        rows: How many it shall have.
        new_rows: Makes those to add.
    """
    old = parameter.detach()
    if rows == len(old):
        return
    parameter.data = old[:rows].clone() if rows < len(old) else torch.cat([old, new_rows(old, rows - len(old))])
    parameter.grad = None


def rows_near_the_mean(table: Tensor, added: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw rows for a table from the distribution above; the mean itself where it has none.

    That is where the rows do not span the space, with fewer rows than columns for example.

    Args:
        table: Rows, (V, E).
        added: How many to draw.
        generator: Of the table's device; None means torch's own.

    Returns:
        Rows of the table's dtype, computed in float32 or wider, (added, E).
    """
    wide = _at_least_float32(table)
    mean = wide.mean(dim=0)
    centred = wide - mean
    factor, failed = torch.linalg.cholesky_ex(SPREAD * (centred.mT @ centred / len(wide)))
    new = mean.expand(added, -1)
    if not failed:
        noise = torch.randn(new.shape, dtype=new.dtype, device=new.device, generator=generator)
        new = new + noise @ factor.mT
    return new.to(table.dtype)


def entries_near_the_mean(bias: Tensor, added: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw entries for a bias: the mean and a billionth of the deviation of the old ones.

    Args:
        bias: Entries, (V,).
        added: How many to draw.
        generator: Of the bias's device; None means torch's own.

    Returns:
        Entries of the bias's dtype, (added,).
    """
    wide = _at_least_float32(bias)
    noise = torch.randn(added, dtype=wide.dtype, device=wide.device, generator=generator)
    deviation = wide.std(correction=1 if len(wide) > 1 else 0)
    return (wide.mean() + SPREAD * deviation * noise).to(bias.dtype)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
