"""Callbacks of the trainer, where scripts for sentence-transformers and transformers import them from."""

from __future__ import annotations

from sparse_encoder.callbacks.splade_callbacks import SchedulerType, SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.events.codecarbon import CodeCarbonCallback
from sparse_encoder.training.events.early_stopping import EarlyStoppingCallback
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.events.protocol import ExportableState, TrainerCallback
from sparse_encoder.training.events.tensorboard import TensorBoardCallback
from sparse_encoder.training.events.wandb import WandbCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

__all__ = [
    "CodeCarbonCallback",
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "ExportableState",
    "PrinterCallback",
    "ProgressCallback",
    "SchedulerType",
    "SpladeRegularizerWeightSchedulerCallback",
    "TensorBoardCallback",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "WandbCallback",
]
