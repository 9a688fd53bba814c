"""Training: arguments, data collator, trainer, callbacks; on accelerate, for one dataset."""

from __future__ import annotations

from sparse_encoder.training.data.collator import SparseEncoderDataCollator
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.events.protocol import CallbackHandler, TrainerCallback
from sparse_encoder.training.events.splade_weights import SchedulerType, SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.sparse_arguments import SparseEncoderTrainingArguments
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
