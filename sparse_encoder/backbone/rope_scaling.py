"""Ways to stretch rotary positions to longer texts that treat short and long waves differently. Knows no positions."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, isfinite, log, pi
from typing import Protocol

import torch
from torch import Tensor

LARGEST_FACTOR = 1 << 20
LARGEST_LENGTH = 1 << 24


class RotaryScaling(Protocol):
    """What :func:`rotation` needs to know of a way to stretch."""

    @property
    def amplitude(self) -> float:
        """What turned queries and keys are multiplied with, each."""

    def frequencies(self, lengths: Tensor, theta: float) -> Tensor:
        """Return the frequencies that the model turns with, in radians a place, (K/2,).

        Args:
            lengths: Places that a radian takes without scaling, (K/2,).
            theta: Base of the wavelengths.
        """


def _check_range(name: str, value: float, largest: int) -> None:
    if not 1 <= value <= largest:
        raise ValueError(f"{name} must be between 1 and {largest}, got {value}")


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
        _check_range("factor", self.factor, LARGEST_FACTOR)
        if not (isfinite(self.high_frequency) and 0 < self.low_frequency < self.high_frequency):
            rule = f"must be above 0 and below high_frequency {self.high_frequency}, got {self.low_frequency}"
            raise ValueError(f"low_frequency {rule}")
        _check_range("original_max_positions", self.original_max_positions, LARGEST_LENGTH)

    @property
    def amplitude(self) -> float:
        """What turned queries and keys are multiplied with: nothing."""
        return 1.0

    def frequencies(self, lengths: Tensor, theta: float) -> Tensor:
        """Return the frequencies that the model turns with, (K/2,); arguments as :class:`RotaryScaling`."""
        frequencies = 1.0 / lengths
        waves = self.original_max_positions / (2 * pi / frequencies)  # in a text of the original length
        share = ((waves - self.low_frequency) / (self.high_frequency - self.low_frequency)).clamp(0, 1)
        return (1 - share) * frequencies / self.factor + share * frequencies


@dataclass(frozen=True, kw_only=True, slots=True)
class YarnScaling:
    r"""Stretch waves that turn seldom in a text of the original length, and look harder, as YaRN does.

    With wavelength :math:`2 \pi \lambda_i`, feature i turns :math:`n_i = P / 2 \pi \lambda_i` times; let i(n) be the
    feature that turns n times, a real number. Then

    .. math:: f_i = \frac{r_i}{s \lambda_i} + \frac{1 - r_i}{\lambda_i}, \quad
        r_i = \operatorname{clamp}\Bigl(\frac{i - i(n_+)}{i(n_-) - i(n_+)}, 0, 1\Bigr)

    Source: Peng et al., 2023, https://arxiv.org/abs/2309.00071.

    Raises:
        ValueError: If a value is out of range.
    """

    factor: float
    """Of the longest waves, s."""
    amplitude: float
    """What turned queries and keys are multiplied with, each."""
    original_max_positions: int
    """Length of the texts that the model was trained with first, P, in tokens."""
    fast: float = 32.0
    """Features that turn more often in them are left, n+."""
    slow: float = 1.0
    """Those that turn less often are stretched in full, n-."""
    whole_features: bool = True
    """Round i(n+) down and i(n-) up."""

    def __post_init__(self) -> None:
        """Check every value."""
        _check_range("factor", self.factor, LARGEST_FACTOR)
        _check_range("original_max_positions", self.original_max_positions, LARGEST_LENGTH)
        if not 1 / LARGEST_FACTOR <= self.slow < self.fast <= LARGEST_FACTOR:
            limits = f"{1 / LARGEST_FACTOR} and {LARGEST_FACTOR}"
            raise ValueError(f"slow must be below fast, and both between {limits}, got {self.slow} and {self.fast}")
        if not (isfinite(self.amplitude) and self.amplitude > 0):
            raise ValueError(f"amplitude must be finite and greater than 0, got {self.amplitude}")

    def frequencies(self, lengths: Tensor, theta: float) -> Tensor:
        """Return the frequencies that the model turns with, (K/2,); arguments as :class:`RotaryScaling`."""
        head_size = 2 * len(lengths)
        first, last = (self._feature(turns, head_size, theta) for turns in (self.fast, self.slow))
        if self.whole_features:
            first, last = floor(first), ceil(last)
        first, last = max(first, 0), min(last, head_size - 1)
        if first == last:
            last += 0.001  # as transformers does, where nothing lies between them
        features = torch.arange(len(lengths), dtype=torch.float32, device=lengths.device)
        kept = 1 - ((features - first) / (last - first)).clamp(0, 1)
        return 1.0 / (self.factor * lengths) * (1 - kept) + 1.0 / lengths * kept

    def _feature(self, turns: float, head_size: int, theta: float) -> float:
        """Return which feature turns so often in a text of the original length."""
        return head_size * log(self.original_max_positions / (turns * 2 * pi)) / (2 * log(theta))
