"""The schedule of regulariser weights, where scripts for sentence-transformers import it from."""

from __future__ import annotations

from sparse_encoder.training import SchedulerType, SpladeRegularizerWeightSchedulerCallback

__all__ = ["SchedulerType", "SpladeRegularizerWeightSchedulerCallback"]
