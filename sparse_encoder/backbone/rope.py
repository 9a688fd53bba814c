"""Rotary positions: pairs of features turned by an angle that grows with the place. Knows nothing of layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.backbone.rope_scaling import RotaryScaling


class Rotation(NamedTuple):
    """Cosine and sine of every angle, float32, both (T, 1, K) or (B, T, 1, K)."""

    cos: Tensor
    sin: Tensor


def rotation(
    positions: Tensor, head_size: int, theta: float, *, stretch: float = 1.0, scaling: RotaryScaling | None = None
) -> Rotation:
    r"""Compute the angles of places.

    .. math:: \phi_{p,i} = \tfrac{p}{s} \, \theta^{-2i/K}, \quad i < K/2

    Source: Su et al., 2021, https://arxiv.org/abs/2104.09864.

    Args:
        positions: Place of each token, (T,) or (B, T).
        head_size: Size of a head, K, even.
        theta: Base of the wavelengths.
        stretch: By how much places are drawn together, s.
        scaling: Changes the frequencies :math:`\theta^{-2i/K}`, some more than others, in the place of ``stretch``.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
    lengths = theta**exponents  # places that a radian takes, (K/2,)
    frequencies = 1.0 / lengths / stretch if scaling is None else scaling.frequencies(lengths, theta)
    angles = positions[..., None].float() * frequencies  # (.., T, K/2)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(-2)  # (.., T, 1, K)
    if scaling is None or scaling.amplitude == 1:
        return Rotation(angles.cos(), angles.sin())
    return Rotation(angles.cos() * scaling.amplitude, angles.sin() * scaling.amplitude)


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
