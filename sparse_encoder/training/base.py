"""The part of a trainer that does not depend on the task: device, optimizer, schedule, callbacks, log, run and files.

It knows neither data nor losses; the loop is in :mod:`sparse_encoder.training.loop`.
"""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.checkpoints.optimizer_state import Schedule
from sparse_encoder.training.data.collator import Batch
from sparse_encoder.training.devices import build_accelerator, is_model_parallel, model_is_moved
from sparse_encoder.training.evaluating import EvalLoopOutput, PredictionOutput, evaluate_datasets, predict_dataset
from sparse_encoder.training.events.flow import DefaultFlowCallback
from sparse_encoder.training.events.progress import PrinterCallback, ProgressCallback
from sparse_encoder.training.events.protocol import CallbackHandler, TrainerCallback
from sparse_encoder.training.events.reporting import reporting_callbacks
from sparse_encoder.training.launching import check_given_optimizers, first_model, launch
from sparse_encoder.training.optimization.groups import (
    parameter_groups,
)
from sparse_encoder.training.optimization.optimizers import build_optimizer
from sparse_encoder.training.optimization.schedules import build_scheduler
from sparse_encoder.training.state import TrainerControl, TrainerState, TrainOutput
from sparse_encoder.training.trainer_facts import OptimizerRecipe, TrainerFacts, present
from sparse_encoder.training.trainer_files import TrainerFiles
from sparse_encoder.training.trainer_steps import TrainerSteps
from sparse_encoder.training.trainer_tuning import TrainerTuning

Callbacks = Sequence[TrainerCallback | type[TrainerCallback]]


class TrainerBase(TrainerFacts, TrainerFiles, TrainerSteps, TrainerTuning):
    """Own what every run needs and answer for it.

    Args:
        model: What is trained; it is moved to the device. None if ``model_init`` makes it.
        args: The settings.
        processing_class: What turns texts into inputs; saved beside the model, and given to callbacks.
        model_init: Makes the model anew for every call of ``train()``; takes nothing, or the trial of a search.
        callbacks: Called after the default flow and the trackers, before the progress bar.
        optimizers: An optimizer and a schedule in the place of those that the settings name; each may be None.
        optimizer_cls_and_kwargs: A class and its options in the place of ``args.optim``.

    Raises:
        RuntimeError: If there is neither a model nor ``model_init``, or they do not go with the optimizers given.
    """

    is_in_train: bool
    """Whether ``train()`` runs."""
    trained_in: set[Path]
    """Folders in which it has trained; the checkpoints there are its own."""

    def __init__(
        self,
        model: nn.Module | None,
        args: TrainingArguments,
        *,
        processing_class: object = None,
        model_init: Callable[..., nn.Module] | None = None,
        callbacks: Callbacks = (),
        optimizers: tuple[Optimizer | None, Schedule | None] = (None, None),
        optimizer_cls_and_kwargs: OptimizerRecipe | None = None,
    ) -> None:
        self.args = args
        args.set_log_level()
        set_seed(args.seed)  # of models and losses that are made here
        self.model_init = model_init
        self.optimizer, self.lr_scheduler = optimizers
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        check_given_optimizers(self, optimizers)
        self.owns_optimizer, self.owns_scheduler = (each is None for each in optimizers)
        self.accelerator = build_accelerator(args)
        self.model: Any = first_model(self, model)  # subclasses say of which class
        self.model_wrapped: nn.Module = self.model
        if self.place_model_on_device:
            self.model.to(self.accelerator.device)
        self.processing_class = getattr(self.model, "tokenizer", None) if processing_class is None else processing_class
        self.state = TrainerState(
            is_local_process_zero=self.is_local_process_zero(), is_world_process_zero=self.is_world_process_zero()
        )
        self.control = TrainerControl()
        self.is_in_train = False
        self.trained_in = set()
        self.publisher = self.build_publisher() if args.push_to_hub else None
        report = PrinterCallback if args.disable_tqdm else ProgressCallback
        context = {
            "model": self.model,
            "processing_class": self.processing_class,
            "log": self.log,
            "save_model": partial(self.save_model, _internal_call=True),
        }
        self.callback_handler = CallbackHandler(
            [DefaultFlowCallback, *reporting_callbacks(args.report_to), *callbacks, report], context
        )

    @abstractmethod
    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of an epoch, on the device."""

    @abstractmethod
    def get_eval_dataloader(self, eval_dataset: object = None) -> DataLoader[Batch]:
        """Return the batches of a dataset to evaluate on, or of the trainer's own, by name if it has several."""

    @abstractmethod
    def get_test_dataloader(self, test_dataset: object) -> DataLoader[Batch]:
        """Return the batches of a dataset to predict on."""

    @abstractmethod
    def evaluation_loop(  # house: peer signature
        self,
        dataloader: DataLoader[Batch],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Go through a dataset and return its metrics, with the prefix in front of every key."""

    @abstractmethod
    def data_identity(self) -> dict[str, Any]:  # settings of several types
        """Return what decides which rows are in which batch, beside the settings that every trainer has."""

    @abstractmethod
    def eval_sets(self, eval_dataset: object) -> dict[str | None, object]:
        """Return the datasets to evaluate by name; a single one has None as its name.

        Raises:
            ValueError: If there is nothing to evaluate with.
        """

    @contextmanager
    def update_context(self, computations: Sequence[Callable[[], object]]) -> Iterator[None]:
        """Enclose the forward and backward of all micro-batches of an update.

        Args:
            computations: Compute the losses of each micro-batch, always the same ones, for who needs them beforehand.
        """
        yield

    def loss_shares(self, batches: Sequence[Batch]) -> list[float]:
        """Return what the losses of the micro-batches of an update are multiplied by before they are added up."""
        return [1 / len(batches)] * len(batches)

    def evaluator_metrics(self, prefix: str) -> dict[str, float]:
        """Return metrics that do not come from a dataset, with the prefix in front of every key."""
        return {}

    def use_model(self, model: nn.Module) -> None:
        """Take another model in the place of the present one, with its tokenizer unless another was given."""
        if self.processing_class is getattr(self.model, "tokenizer", None):
            self.processing_class = getattr(model, "tokenizer", None)
            self.callback_handler.context["processing_class"] = self.processing_class
        self.model = self.model_wrapped = model
        if self.place_model_on_device:
            model.to(self.accelerator.device)
        self.callback_handler.context["model"] = model

    def unwrap(self) -> None:
        """Run the model itself from now on, without what was put around it for training."""
        self.model_wrapped = self.model

    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: object = None,
        ignore_keys_for_eval: list[str] | None = None,
        *,
        model_path: str | Path | None = None,
    ) -> TrainOutput:
        """Train the model.

        Args:
            resume_from_checkpoint: A checkpoint of an earlier run, which goes on as if it had never stopped, or True
                for the last one in ``args.output_dir`` that is whole.
            trial: Of a search for settings, or settings by name; they hold for this run, the model's making included.
            ignore_keys_for_eval: Outputs of the model that evaluations leave out.
            model_path: Older name of ``resume_from_checkpoint``.

        Returns:
            Updates done, mean loss and speed of this call.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            CheckpointError: If the checkpoint is damaged, incomplete or of another kind of run, or another run uses
                the folder or has left checkpoints in it.
            ValueError: If there is nothing to train on, no parameter to train or nothing to resume from; or if several
                adapters are active, of which no checkpoint can be written.
            FloatingPointError: If the gradient was not finite in many updates in a row.
        """
        return launch(self, resume_from_checkpoint or model_path, trial, ignore_keys_for_eval)

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute the metrics of a dataset, run the evaluator if there is one, and log both.

        The terms of a loss are in the log, not in the result. With several datasets each has its name in its keys,
        ``eval_<name>_loss``; the evaluator runs once, with the first.

        Args:
            eval_dataset: Used in the place of the trainer's own: a dataset, several by name, or a name of the own.
            ignore_keys: Outputs of the model that are left out.
            metric_key_prefix: In front of every key.

        Returns:
            ``eval_loss``, other metrics, ``eval_runtime`` in seconds, samples and batches per second, epoch.

        Raises:
            ValueError: If there is nothing to evaluate with.
        """
        return evaluate_datasets(self, eval_dataset, ignore_keys, metric_key_prefix)

    def predict(
        self, test_dataset: object, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Return outputs, labels and metrics of a dataset; nothing is logged, and no evaluator runs.

        Args:
            test_dataset: Any dataset that can be evaluated on.
            ignore_keys: Outputs of the model that are left out.
            metric_key_prefix: In front of every key.
        """
        return predict_dataset(self, test_dataset, ignore_keys, metric_key_prefix)

    def fire(self, event: str, extra: Mapping[str, object] | None = None) -> None:
        """Tell the callbacks of an event, and what it adds by name."""
        context = {"optimizer": self.optimizer, "lr_scheduler": self.lr_scheduler}
        self.callback_handler.context.update(context)
        self.control = self.callback_handler.fire(event, self.args, self.state, self.control, extra or {})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a row to the history and tell the callbacks.

        Args:
            logs: Numbers by name; not changed.
            start_time: :func:`time.time` at the start; adds the run time and the tokens per second so far.
        """
        row = {**logs, "epoch": self.state.epoch}
        if start_time is not None:
            seconds = time.time() - start_time
            row["train_runtime"] = seconds
            row["train_tokens_per_second"] = self.state.num_input_tokens_seen / seconds
        self.state.log_history.append({**row, "step": self.state.global_step})
        self.fire("on_log", {"logs": row})

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Append a callback, an instance or a class that is built without arguments."""
        self.callback_handler.add(callback)

    def pop_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> TrainerCallback | None:
        """Take out a callback, or the first of a class or its subclasses, and return it; None if there is none."""
        return self.callback_handler.pop(callback)

    def remove_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Take out a callback, or the first of a class or its subclasses, if there is one."""
        self.callback_handler.pop(callback)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Build the optimizer, unless there is one.

        Args:
            model: Whose parameters it moves; by default those of what is trained.
        """
        if self.optimizer is None:
            trained = self.objective if model is None else model
            groups = parameter_groups(
                trained,
                weight_decay=self.args.weight_decay,
                learning_rates=self.args.mapping("learning_rate_mapping"),
                decayed=self.get_decay_parameter_names(trained),
            )
            if self.optimizer_cls_and_kwargs is None:
                self.optimizer = build_optimizer(groups, self.args)
            else:
                kind, options = self.optimizer_cls_and_kwargs
                self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Schedule:
        """Build the schedule, unless there is one, for an optimizer or the trainer's own.

        Raises:
            ValueError: If there is no optimizer, or the warm-up is longer than the run.
        """
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = build_scheduler(present(chosen), self.args, num_training_steps)
        return self.lr_scheduler

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Build optimizer and schedule, unless they are there."""
        self.create_optimizer()
        self.create_scheduler(num_training_steps)

    @property
    def is_model_parallel(self) -> bool:
        """Whether the model is spread over several devices, or on one that is not the trainer's."""
        return is_model_parallel(self.model, self.accelerator.device)

    @property
    def place_model_on_device(self) -> bool:
        """Whether the trainer moves the model to its device."""
        return model_is_moved(self.model, self.args, self.accelerator)

    def is_local_process_zero(self) -> bool:
        """Return whether this is the first process of its machine."""
        return bool(self.accelerator.is_local_main_process)

    def is_world_process_zero(self) -> bool:
        """Return whether this is the first process of all."""
        return bool(self.accelerator.is_main_process)


def one_of(processing_class: object, tokenizer: object) -> object:
    """Return what was given as ``processing_class``, or under its older name.

    Raises:
        ValueError: If both are given.
    """
    if tokenizer is None:
        return processing_class
    if processing_class is not None:
        raise ValueError("tokenizer is the older name of processing_class; give one of them")
    warnings.warn("tokenizer is now called processing_class", FutureWarning, stacklevel=4)
    return tokenizer
