"""Training: settings, trainers, callbacks, optimizers, schedules; on accelerate."""

from __future__ import annotations

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.data.collator import SparseEncoderDataCollator
from sparse_encoder.training.data.padding import DataCollatorWithPadding, default_data_collator
from sparse_encoder.training.data.prepare import prepare_dataset
from sparse_encoder.training.evaluating import EvalLoopOutput, PredictionOutput
from sparse_encoder.training.events.active_terms import ActiveTerms
from sparse_encoder.training.events.codecarbon import CodeCarbonCallback
from sparse_encoder.training.events.early_stopping import EarlyStoppingCallback
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.hub_push import HubPushCallback
from sparse_encoder.training.events.metric import MetricCallback
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.events.protocol import CallbackHandler, ExportableState, TrainerCallback
from sparse_encoder.training.events.sparsity import SparsityMonitorCallback
from sparse_encoder.training.events.splade_weights import SchedulerType, SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.events.tensorboard import TensorBoardCallback
from sparse_encoder.training.events.wandb import WandbCallback
from sparse_encoder.training.generic import Trainer
from sparse_encoder.training.optimization import (
    Adafactor,
    AdamW,
    GradientAccumulator,
    get_constant_schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_scheduler,
)
from sparse_encoder.training.outputs import EvalPrediction
from sparse_encoder.training.script_tools import (
    HubStrategy,
    IntervalStrategy,
    SaveStrategy,
    get_last_checkpoint,
    set_seed,
)
from sparse_encoder.training.sparse_arguments import SparseEncoderTrainingArguments
from sparse_encoder.training.state import TrainerControl, TrainerState, TrainOutput
from sparse_encoder.training.trainer import SparseEncoderTrainer
from sparse_encoder.training.tuning import (
    BestRun,
    default_compute_objective,
    default_hp_space_optuna,
    default_hp_space_ray,
)

__all__ = [
    "ActiveTerms",
    "Adafactor",
    "AdamW",
    "BestRun",
    "CallbackHandler",
    "CodeCarbonCallback",
    "DataCollatorWithPadding",
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "EvalLoopOutput",
    "EvalPrediction",
    "ExportableState",
    "GradientAccumulator",
    "HubPushCallback",
    "HubStrategy",
    "IntervalStrategy",
    "MetricCallback",
    "PredictionOutput",
    "PrinterCallback",
    "ProgressCallback",
    "SaveStrategy",
    "SchedulerType",
    "SparseEncoderDataCollator",
    "SparseEncoderTrainer",
    "SparseEncoderTrainingArguments",
    "SparsityMonitorCallback",
    "SpladeRegularizerWeightSchedulerCallback",
    "TensorBoardCallback",
    "TrainOutput",
    "Trainer",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "TrainingArguments",
    "WandbCallback",
    "default_compute_objective",
    "default_data_collator",
    "default_hp_space_optuna",
    "default_hp_space_ray",
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_last_checkpoint",
    "get_linear_schedule_with_warmup",
    "get_polynomial_decay_schedule_with_warmup",
    "get_scheduler",
    "prepare_dataset",
    "set_seed",
]
