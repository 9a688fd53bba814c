"""Whether training runs in several processes; knows nothing of what they do."""

from __future__ import annotations

import torch.distributed as dist


def world_size() -> int:
    """Return the number of processes; 1 if there is no group of them."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
