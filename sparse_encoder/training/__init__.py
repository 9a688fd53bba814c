"""Training: arguments, data collator, trainer, callbacks; on accelerate, for one dataset."""

from __future__ import annotations

from sparse_encoder.training.arguments import SparseEncoderTrainingArguments
from sparse_encoder.training.callbacks import CallbackHandler, TrainerCallback
from sparse_encoder.training.collator import SparseEncoderDataCollator
from sparse_encoder.training.flow import DefaultFlowCallback
from sparse_encoder.training.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.splade_weights import SchedulerType, SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState, TrainOutput
from sparse_encoder.training.trainer import SparseEncoderTrainer

__all__ = [
    "CallbackHandler",
    "DefaultFlowCallback",
    "PrinterCallback",
    "ProgressCallback",
    "SchedulerType",
    "SparseEncoderDataCollator",
    "SparseEncoderTrainer",
    "SparseEncoderTrainingArguments",
    "SpladeRegularizerWeightSchedulerCallback",
    "TrainOutput",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
]
