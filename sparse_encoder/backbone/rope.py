"""Rotary positions: pairs of features turned by an angle that grows with the place. Knows nothing of layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, pi
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_FACTOR = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Llama3Scaling:
    r"""Stretch long waves and leave short ones, as Llama 3.1 does.

    A frequency f of wavelength w, in tokens, becomes f where w is below ``original_max_positions / high_frequency``,
    :math:`f / s` with the factor s where it is above ``original_max_positions / low_frequency``, and between them

    .. math:: (1 - m) f / s + m f, \quad m = \frac{P / w - l}{h - l}

    Source: Grattafiori et al., 2024, https://arxiv.org/abs/2407.21783.

    Raises:
        ValueError: If a value is out of range.
    """

    factor: float
    """Of the longest waves, s."""
    low_frequency: float
    """Waves longer than the original text length, P, divided by this are stretched in full, l."""
    high_frequency: float
    """Those shorter than P divided by this are left, h."""
    original_max_positions: int
    """Length of the texts that the model was trained with first, in tokens."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not 1 <= self.factor <= LARGEST_FACTOR:
            raise ValueError(f"factor must be between 1 and {LARGEST_FACTOR}, got {self.factor}")
        if not (isfinite(self.high_frequency) and 0 < self.low_frequency < self.high_frequency):
            rule = f"must be above 0 and below high_frequency {self.high_frequency}, got {self.low_frequency}"
            raise ValueError(f"low_frequency {rule}")
        if not 1 <= self.original_max_positions <= 1 << 24:
            got = self.original_max_positions
            raise ValueError(f"original_max_positions must be between 1 and {1 << 24}, got {got}")

    def scaled(self, frequencies: Tensor) -> Tensor:
        """Return the frequencies that the model turns with, (K/2,)."""
        waves = self.original_max_positions / (2 * pi / frequencies)  # in a text of the original length
        share = ((waves - self.low_frequency) / (self.high_frequency - self.low_frequency)).clamp(0, 1)
        return (1 - share) * frequencies / self.factor + share * frequencies


class Rotation(NamedTuple):
    """Cosine and sine of every angle, float32, both (T, 1, K) or (B, T, 1, K)."""

    cos: Tensor
    sin: Tensor


def rotation(
    positions: Tensor, head_size: int, theta: float, *, stretch: float = 1.0, scaling: Llama3Scaling | None = None
) -> Rotation:
    r"""Compute the angles of places.

    .. math:: \phi_{p,i} = \tfrac{p}{s} \, \theta^{-2i/K}, \quad i < K/2

    Source: Su et al., 2021, https://arxiv.org/abs/2104.09864.

    Args:
        positions: Place of each token, (T,) or (B, T).
        head_size: Size of a head, K, even.
        theta: Base of the wavelengths.
        stretch: By how much places are drawn together, s.
        scaling: Changes the frequencies :math:`\theta^{-2i/K}`, some more than others.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
    frequencies = 1.0 / theta**exponents / stretch  # (K/2,)
    if scaling is not None:
        frequencies = scaling.scaled(frequencies)
    angles = positions[..., None].float() * frequencies  # (.., T, K/2)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(-2)  # (.., T, 1, K)
    return Rotation(angles.cos(), angles.sin())


def rotate(vectors: Tensor, by: Rotation) -> Tensor:
    """Turn the first half of each head's features against the second half.

    Computed in float32, as the angles are, whatever the dtype of the vectors.

    Args:
        vectors: Queries or keys, (B, T, H, K).
        by: Their angles.

    Returns:
        Turned vectors, same shape and dtype.
    """
    first, second = vectors.chunk(2, dim=-1)
    turned = vectors * by.cos + torch.cat((-second, first), dim=-1) * by.sin
    return turned.to(vectors.dtype)
