"""From a folder or the hub to a model whose parameters are in their place: which files, which names, which devices."""

from __future__ import annotations
