"""Fewer or smaller weights in embeddings that are there already: pure functions of SparseEmbeddings, row by row.

None of them adds a term or changes the order of the weights of a row. Zeros that were stored are dropped. Axes: N rows,
V columns, Z stored entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from sparse_encoder.csr import Csr, drop_zeros, keep_entries, row_numbers, slice_rows
from sparse_encoder.embeddings import SparseEmbeddings

LEVELS = 255
"""Weights that 8 bits hold besides 0."""
MAX_BLOCK = 1 << 22
"""Most entries, padding included, that are sorted at a time."""


def keep_top_k(embeddings: SparseEmbeddings, k: int) -> SparseEmbeddings:
    """Keep the k entries of greatest absolute value of each row; of equals the first columns stay.

    Args:
        embeddings: (N, V).
        k: At least 1.

    Raises:
        ValueError: If ``k`` is below 1 or no integer.
    """
    if k != int(k):
        raise ValueError(f"k must be an integer, got {k}")
    return _made(drop_zeros(_csr(embeddings.top_k(int(k)))), embeddings)


def keep_ratio_to_max(embeddings: SparseEmbeddings, ratio: float) -> SparseEmbeddings:
    """Keep the entries whose absolute value is at least a share of the greatest of their row, which always stays.

    Args:
        embeddings: (N, V).
        ratio: From 0, which keeps all, to 1.

    Raises:
        ValueError: If ``ratio`` is out of range.
    """
    _check(ratio, "ratio", 1.0)
    csr = drop_zeros(_csr(embeddings))
    sizes = csr.values.abs().double()
    greatest = torch.zeros(csr.crow.numel() - 1, dtype=torch.float64, device=sizes.device)
    rows = row_numbers(csr.crow)
    greatest.scatter_reduce_(0, rows, sizes, "amax")
    return _made(keep_entries(csr, sizes >= ratio * greatest[rows]), embeddings)


def keep_mass(embeddings: SparseEmbeddings, mass: float) -> SparseEmbeddings:
    """Keep the fewest entries of each row, the greatest first, whose absolute values make up a share of the row's sum.

    Of equals the first columns stay.

    Args:
        embeddings: (N, V).
        mass: Above 0, up to 1, which keeps all.

    Raises:
        ValueError: If ``mass`` is out of range.
    """
    _check(mass, "mass", 1.0)
    if mass == 0:
        raise ValueError("mass must be above 0, or nothing would stay")
    csr = drop_zeros(_csr(embeddings))
    if mass == 1:
        return _made(csr, embeddings)
    keep = torch.zeros(csr.values.numel(), dtype=torch.bool, device=csr.values.device)
    longest = int(csr.crow.diff().max()) if csr.crow.numel() > 1 else 0
    step = max(1, MAX_BLOCK // max(1, longest))
    for start in range(0, csr.crow.numel() - 1, step):
        block = slice_rows(csr, start, min(start + step, csr.crow.numel() - 1))
        begin = int(csr.crow[start])
        keep[begin : begin + block.values.numel()] = _heaviest(block, mass)
    return _made(keep_entries(csr, keep), embeddings)


def _heaviest(csr: Csr, mass: float) -> Tensor:
    """Mark the entries that :func:`keep_mass` keeps, (Z) bool."""
    rows = row_numbers(csr.crow)
    places = torch.arange(rows.numel(), device=rows.device) - csr.crow[rows]
    width = int(csr.crow.diff().max())
    sizes = torch.zeros(csr.crow.numel() - 1, max(width, 1), dtype=torch.float64, device=rows.device)  # (N, width)
    sizes[rows, places] = csr.values.abs().double()
    falling, order = sizes.sort(dim=1, descending=True, stable=True)
    sums = falling.cumsum(dim=1)
    before = torch.cat((torch.zeros_like(sums[:, :1]), sums[:, :-1]), dim=1)
    keep = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, before < mass * sums[:, -1:])
    return keep[rows, places]


def keep_above(embeddings: SparseEmbeddings, threshold: float) -> SparseEmbeddings:
    """Keep the entries whose absolute value is at least a threshold.

    Args:
        embeddings: (N, V).
        threshold: From 0, which keeps all, up.

    Raises:
        ValueError: If ``threshold`` is negative or not finite.
    """
    _check(threshold, "threshold", math.inf)
    csr = drop_zeros(_csr(embeddings))
    return _made(keep_entries(csr, csr.values.abs().double() >= threshold), embeddings)


def quantize_to_8_bits(embeddings: SparseEmbeddings, maximum: float | None = None) -> SparseEmbeddings:
    """Round weights to 255 steps of one size, from 0 to a maximum; what rounds to 0 is dropped.

    A weight moves by at most half a step, ``maximum / 510``; one above the maximum becomes the maximum. The results
    are multiples of the step in float32, so that scores stay comparable; an index of 8 bits stores the multiples.

    Args:
        embeddings: Not negative, (N, V).
        maximum: Of all weights that are to be told apart; ``None`` takes the greatest there is.

    Raises:
        ValueError: If a weight is negative, or ``maximum`` is not a positive finite number.
    """
    csr = drop_zeros(_csr(embeddings))
    if bool((csr.values < 0).any()):
        raise ValueError(f"weights must not be negative to be rounded to 8 bits, got {float(csr.values.min())}")
    if maximum is None:
        maximum = float(csr.values.max()) if csr.values.numel() else 1.0
    if not 0 < maximum < math.inf:
        raise ValueError(f"maximum must be a positive number, got {maximum}")
    steps = (csr.values.double() / maximum * LEVELS).round().clamp(max=LEVELS)
    values = (steps * (maximum / LEVELS)).float()
    return _made(drop_zeros(csr._replace(values=values)), embeddings)


_BY_NAME: dict[str, Callable[[SparseEmbeddings, float], SparseEmbeddings]] = {
    "mass": keep_mass,
    "ratio": keep_ratio_to_max,
    "threshold": keep_above,
    "top_k": lambda embeddings, k: keep_top_k(embeddings, int(k)),
}
UINT8 = "uint8"


@dataclass(frozen=True, slots=True)
class Pruning:
    """One way to prune: perhaps fewer terms, perhaps 8-bit weights. Equal, hashable, and written as it is read.

    ``none``, ``top_k=64``, ``ratio=0.1``, ``mass=0.9``, ``threshold=0.2``, ``uint8``, or one of them and then 8 bits:
    ``top_k=64+uint8``.

    Raises:
        TypeError: If the value is not a number.
        ValueError: If the name is unknown or the value is out of range.
    """

    name: str | None = None
    """``top_k``, ``ratio``, ``mass`` or ``threshold``; ``None`` keeps all terms."""
    value: float = 0.0
    """What the function of that name takes."""
    eight_bits: bool = False
    """Whether weights are rounded to 8 bits afterwards."""

    def __post_init__(self) -> None:
        """Refuse what the function would refuse."""
        if self.name is None:
            if self.value != 0:
                raise ValueError(f"a value needs the name of what it prunes by, {sorted(_BY_NAME)}, got {self.value}")
            return
        if self.name not in _BY_NAME:
            raise ValueError(f"unknown pruning {self.name!r}; choose from {sorted(_BY_NAME)}")
        _check_number(f"the value of {self.name}", self.value)
        if self.name == "top_k" and not float(self.value).is_integer():
            raise ValueError(f"top_k must be an integer, got {self.value}")
        _BY_NAME[self.name](SparseEmbeddings.empty(1), self.value)

    @classmethod
    def parse(cls, text: str) -> Pruning:
        """Read a pruning as ``str()`` writes it.

        Raises:
            ValueError: If it is none.
        """
        first, plus, last = text.strip().partition("+")
        if plus and last != UINT8:
            raise ValueError(f"after + there may be {UINT8!r} only, got {text!r}")
        if first == UINT8 and not plus:
            return cls(eight_bits=True)
        if first == "none" and not plus:
            return cls()
        name, equals, value = first.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not equals or not math.isfinite(number):
            raise ValueError(
                f"a pruning is none, uint8 or NAME=NUMBER with a name from {sorted(_BY_NAME)}, perhaps with +uint8 "
                f"behind it, got {text!r}"
            )
        return cls(name, number, bool(plus))

    def __str__(self) -> str:
        """Write the pruning; :meth:`parse` reads the same one, to the bit."""
        value = repr(float(self.value)).removesuffix(".0")
        parts = [f"{self.name}={value}"] if self.name is not None else []
        return "+".join([*parts, *([UINT8] if self.eight_bits else [])]) or "none"

    def __call__(self, embeddings: SparseEmbeddings) -> SparseEmbeddings:
        """Prune rows, (N, V)."""
        if self.name is not None:
            embeddings = _BY_NAME[self.name](embeddings, self.value)
        return quantize_to_8_bits(embeddings) if self.eight_bits else embeddings


def _csr(embeddings: SparseEmbeddings) -> Csr:
    return Csr(embeddings.crow_indices(), embeddings.col_indices(), embeddings.values())


def _made(csr: Csr, like: SparseEmbeddings) -> SparseEmbeddings:
    return SparseEmbeddings(*csr, like.shape, validate=False)


def _check(value: float, name: str, most: float) -> None:
    if not 0 <= value <= most or value == math.inf:
        raise ValueError(f"{name} must lie in [0, {most:g}], got {value}")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
