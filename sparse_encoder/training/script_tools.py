"""Small things that training scripts import from transformers: names of strategies, a seed, the last checkpoint."""

from __future__ import annotations

import random
from enum import Enum
from pathlib import Path

import numpy as np
import torch

from sparse_encoder.training.checkpoints.folders import list_checkpoints


class IntervalStrategy(str, Enum):
    """When to log or evaluate; each equals its value, which arguments take as well."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class SaveStrategy(str, Enum):
    """When to save."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"
    BEST = "best"


class HubStrategy(str, Enum):
    """What to upload, and when."""

    END = "end"
    EVERY_SAVE = "every_save"
    CHECKPOINT = "checkpoint"
    ALL_CHECKPOINTS = "all_checkpoints"


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch, for what a script draws itself; a run of a trainer seeds by ``args.seed``.

    Args:
        seed: From 0 to 2**32 - 1.
        deterministic: Let torch use deterministic algorithms only.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True)


def get_last_checkpoint(folder: str | Path) -> str | None:
    """Return the checkpoint with the highest number in a folder; ``None`` if there is none."""
    checkpoints = list_checkpoints(Path(folder))
    return str(checkpoints[-1]) if checkpoints else None
