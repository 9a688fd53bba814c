"""Callbacks of the trainer, where scripts for sentence-transformers import them from."""

from __future__ import annotations

from sparse_encoder.callbacks.splade_callbacks import SchedulerType, SpladeRegularizerWeightSchedulerCallback

__all__ = ["SchedulerType", "SpladeRegularizerWeightSchedulerCallback"]
