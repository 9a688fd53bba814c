"""Where samplers draw from: generators that live for one pass, so no pass can disturb another."""

from __future__ import annotations

from numbers import Integral

import torch


def new_generator(seed: int, like: torch.Generator | None = None) -> torch.Generator:
    """Return a generator with a known state, on the device of another one, or on the CPU."""
    return torch.Generator(device="cpu" if like is None else like.device).manual_seed(seed)


def check_epoch(epoch: object) -> int:
    """Return the number of an epoch.

    Raises:
        TypeError: If it is not an integer.
    """
    if not isinstance(epoch, Integral) or isinstance(epoch, bool):
        raise TypeError(f"epoch must be an integer, got {epoch!r}")
    return int(epoch)


def shuffled(count: int, generator: torch.Generator) -> list[int]:
    """Return the numbers below ``count`` in an order that the generator draws."""
    order: list[int] = torch.randperm(count, generator=generator, device=generator.device).tolist()
    return order
