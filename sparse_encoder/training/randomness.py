"""Random numbers as a function of where training stands; knows nothing of what they are used for."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

DATA_STREAM, MODEL_STREAM, ORDER_STREAM, METRIC_STREAM = 0, 1, 2, 3
"""What rows draw (augmentation), the model (dropout), torch's samplers (order) and metrics never share numbers."""


def seed_of(*position: int) -> int:
    """Return a seed of 64 bits as a function of a position, for example (seed, stream, step)."""
    return int.from_bytes(hashlib.blake2b(repr(position).encode(), digest_size=8).digest(), "little")


def seed_everything(*position: int) -> None:
    """Seed Python, numpy and torch as a function of a position, by :func:`seed_of`.

    Nothing that was drawn before has an influence, so training can be taken up at a position without stored states.
    Devices are seeded once they are in use; :func:`torch.manual_seed` would spend a millisecond on each that is not.
    """
    seed = seed_of(*position)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    for backend in (torch.cuda, torch.xpu):
        if backend.is_initialized():
            backend.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
