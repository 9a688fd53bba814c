"""The training loop: read some batches, add up their gradients, move the weights, report; epoch after epoch.

It knows nothing of texts or losses: the trainer computes, reads and saves, the callbacks decide when.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import skip_first_batches
from accelerate.utils import gather_object
from torch import Tensor

from sparse_encoder.training.checkpoints.folders import list_checkpoints, sweep
from sparse_encoder.training.checkpoints.saving import RunFiles, mark_as_trained
from sparse_encoder.training.checkpoints.snapshot import Progress, data_identity, optimization_identity
from sparse_encoder.training.data.collator import Batch, num_texts, num_tokens
from sparse_encoder.training.meters import LossMeter, means_of, merge_sums
from sparse_encoder.training.optimization.groups import GuardedUpdate, learning_rates_of, non_embedding_parameters
from sparse_encoder.training.randomness import MODEL_STREAM, seed_everything
from sparse_encoder.training.state import TrainerControl, TrainerState, TrainOutput
from sparse_encoder.training.steps import plan_steps, steps_of

if TYPE_CHECKING:
    from sparse_encoder.training.trainer import SparseEncoderTrainer

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10
_FLOPS_PER_PARAMETER = 6  # of a token position: 2 in the forward, 4 in the backward


class TrainingRun:
    """One call of ``train()``.

    Args:
        trainer: What is trained, with what.
        checkpoint: Where to go on; None starts anew.

    Raises:
        ValueError: If there is no batch to train on.
        CheckpointError: If the checkpoint is damaged, incomplete or of another kind of run.
    """

    def __init__(self, trainer: SparseEncoderTrainer, checkpoint: Path | None) -> None:
        args = trainer.args
        self.trainer = trainer
        self.loader = trainer.get_train_dataloader()
        self.plan = plan_steps(args, len(self.loader))
        trainer.control = TrainerControl()
        trainer.state = self._first_state()
        trainer.create_optimizer_and_scheduler(self.plan.max_steps)
        assert trainer.train_rows is not None  # the loader was made from it
        rows = trainer.train_rows.fingerprint()
        sampler = args.batch_sampler
        name = getattr(sampler, "value", getattr(sampler, "__qualname__", type(sampler).__qualname__))
        data = data_identity(args, rows, trainer.accelerator.num_processes, {"batch_sampler": name})
        settings = optimization_identity(args)
        self.files = RunFiles(trainer, {**data, **settings})
        self.progress = Progress()
        self.meter = LossMeter(filter_not_finite=args.logging_nan_inf_filter)
        self._clear_output_dir(checkpoint)
        if checkpoint is not None:
            identity = settings if args.ignore_data_skip else {**data, **settings}
            self.progress = self.files.resume(checkpoint, identity)
            if trainer.is_world_process_zero():  # the sums are those of all processes
                self.meter.load(self.progress.loss_sums, trainer.accelerator.device)
        carried = self.meter.sums().get("loss", (0.0, 0.0))
        self.loss_sum, self.loss_weight = -carried[0], -carried[1]  # of this call
        self.guard = GuardedUpdate(self.files.optimizer, args.max_grad_norm, self.progress.skipped_in_a_row)
        self.grad_norm: Tensor | None = None  # of the last update of this call
        self.num_samples = 0
        self.skipped_told = 0
        self.first_step = trainer.state.global_step
        self.flops_per_token = _FLOPS_PER_PARAMETER * non_embedding_parameters(trainer.model)
        mark_as_trained(trainer.model)
        if trainer.accelerator.num_processes > 1:
            trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model)

    def run(self) -> TrainOutput:
        """Train to the end; returns updates done, mean loss and speed."""
        started = time.perf_counter()
        trainer, progress = self.trainer, self.progress
        trainer.model.train()
        trainer.loss.zero_grad(set_to_none=True)
        trainer.callback_handler.context["train_dataloader"] = self.loader
        trainer.fire("on_train_begin")
        if trainer.args.eval_on_start and trainer.state.global_step == 0:
            trainer.evaluate()
        first_epoch = progress.epoch + progress.epoch_ended
        for epoch in range(first_epoch, self.plan.num_train_epochs):
            goes_on = epoch == progress.epoch and not progress.epoch_ended and not trainer.args.ignore_data_skip
            self._run_epoch(epoch, batches_done=progress.batches_done if goes_on else 0)
            if trainer.control.should_training_stop:
                break
        return self._finish(time.perf_counter() - started)

    def _run_epoch(self, epoch: int, batches_done: int) -> None:
        """Pass over the data once, behind the batches that are done."""
        trainer, progress = self.trainer, self.progress
        progress.epoch, progress.batches_done, progress.epoch_ended = epoch, batches_done, False
        trainer.control.should_epoch_stop = False
        trainer.fire("on_epoch_begin")
        for batches in self._read(epoch, batches_done):
            self._update(batches)
            progress.batches_done += len(batches)
            trainer.state.global_step += 1
            trainer.state.epoch = epoch + progress.batches_done / self.plan.batches_per_epoch
            trainer.fire("on_step_end")
            self._report()
            if trainer.control.should_epoch_stop or trainer.control.should_training_stop:
                break
        progress.epoch_ended = True
        trainer.fire("on_epoch_end")
        self._report()

    def _read(self, epoch: int, batches_done: int) -> Iterator[list[Batch]]:
        """Yield the batches of each update that is left of an epoch."""
        for part in (self.loader, self.loader.batch_sampler, self.loader.dataset):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        batches = iter(skip_first_batches(self.loader, batches_done) if batches_done else self.loader)
        while self.trainer.state.global_step < self.plan.max_steps:
            update = list(islice(batches, self.trainer.args.gradient_accumulation_steps))
            if not update:
                return
            yield update

    def _update(self, batches: list[Batch]) -> None:
        """Add up the gradients of some batches and move the weights once."""
        trainer, optimizer = self.trainer, self.files.optimizer
        seed_everything(trainer.args.seed, MODEL_STREAM, trainer.state.global_step, trainer.accelerator.process_index)
        trainer.control.should_log = trainer.control.should_evaluate = trainer.control.should_save = False
        trainer.fire("on_step_begin")
        for index, batch in enumerate(batches):
            is_last = index == len(batches) - 1
            self._backward(batch, share=len(batches), synchronize=is_last)
            if not is_last:
                trainer.fire("on_substep_end")
        self.grad_norm = self.guard.clip()
        trainer.fire("on_pre_optimizer_step")
        self.guard.step(self.grad_norm)
        trainer.fire("on_optimizer_step")
        self.progress.learning_rate = learning_rates_of(optimizer)[0]
        self.files.scheduler.step()
        trainer.loss.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: Batch, *, share: int, synchronize: bool) -> None:
        """Add the gradient of one batch, one of ``share`` of its update."""
        trainer = self.trainer
        model = trainer.model_wrapped
        accelerator = trainer.accelerator
        with contextlib.nullcontext() if synchronize else accelerator.no_sync(model):
            losses = trainer.loss_and_terms(model, batch)
            accelerator.backward(losses["loss"] / share)
        self.meter.add(losses, weight=1 / share)
        tokens = num_tokens(batch)
        self.num_samples += num_texts(batch)
        trainer.state.num_input_tokens_seen += tokens
        trainer.state.total_flos += tokens * self.flops_per_token

    def _report(self) -> None:
        """Log, evaluate and save what the callbacks have asked for, in this order."""
        trainer = self.trainer
        if trainer.control.should_log and trainer.state.global_step > self.progress.last_logged_step:
            trainer.control.should_log = False
            self._log()
        if trainer.control.should_evaluate:
            trainer.control.should_evaluate = False
            if self._is_best(trainer.evaluate()) and (
                trainer.args.save_strategy == "best" or trainer.args.load_best_model_at_end
            ):
                trainer.control.should_save = True
        if trainer.control.should_save:
            trainer.control.should_save = False
            self._check_skipped()
            self.files.save(self._progress())
            trainer.fire("on_save")

    def _log(self) -> None:
        """Log the means since the last row."""
        sums = merge_sums(gather_object([self.meter.take_sums()]))
        self.loss_sum += sums["loss"][0]
        self.loss_weight += sums["loss"][1]
        means = means_of(sums)
        logs = {
            "loss": means.pop("loss"),
            "grad_norm": self._last_norm(),
            "learning_rate": self.progress.learning_rate,
            **means,
        }
        self._check_skipped()
        self.progress.last_logged_step = self.trainer.state.global_step
        self.trainer.log(logs)

    def _last_norm(self) -> float:
        return self.progress.grad_norm if self.grad_norm is None else self.grad_norm.item()

    def _check_skipped(self) -> None:
        """Say how many updates were left out; give up when nothing but that happens any more."""
        in_a_row, total = self.guard.skipped()
        if total > self.skipped_told:
            logger.warning("%d updates were left out: their gradient was not finite", total - self.skipped_told)
            self.skipped_told = total
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"the gradient was not finite in the last {in_a_row} updates, up to {self.trainer.state.global_step}; "
                "the weights are those before them. Try a lower learning rate, or look for texts or labels that "
                "make the loss NaN"
            )

    def _progress(self) -> Progress:
        """Return where the run stands, with the sums of all processes."""
        return replace(
            self.progress,
            loss_sums=merge_sums(gather_object([self.meter.sums()])),
            grad_norm=self._last_norm(),
            skipped_in_a_row=self.guard.skipped()[0],
        )

    def _is_best(self, metrics: dict[str, float]) -> bool:
        """Note a metric that is strictly better than all before; NaN never is.

        Raises:
            KeyError: If the metric is not among the results.
        """
        args, state = self.trainer.args, self.trainer.state
        if args.metric_for_best_model is None:
            return False
        name = args.metric_for_best_model
        name = name if name.startswith("eval_") else f"eval_{name}"
        if name not in metrics:
            raise KeyError(f"metric_for_best_model is {name!r}; the evaluation gave {sorted(metrics)}")
        value, best = metrics[name], state.best_metric
        if math.isnan(value) or (best is not None and not (value > best if args.greater_is_better else value < best)):
            return False
        state.best_metric, state.best_global_step = value, state.global_step
        return True

    def _finish(self, seconds: float) -> TrainOutput:
        """Log the speed, and give the model its best weights if they are wanted."""
        trainer, state = self.trainer, self.trainer.state
        rest = merge_sums(gather_object([self.meter.sums()])).get("loss", (0.0, 0.0))
        loss_sum, loss_weight = self.loss_sum + rest[0], self.loss_weight + rest[1]
        training_loss = loss_sum / loss_weight if loss_weight > 0 else 0.0
        num_samples = self.num_samples * trainer.accelerator.num_processes
        metrics = {
            "train_runtime": round(seconds, 4),
            "train_samples_per_second": round(num_samples / seconds, 3),
            "train_steps_per_second": round((state.global_step - self.first_step) / seconds, 3),
            "total_flos": state.total_flos,
            "train_loss": training_loss,
        }
        trainer.model_wrapped = trainer.model
        if trainer.args.load_best_model_at_end:
            self.files.load_best()
        trainer.log(metrics)
        trainer.fire("on_train_end")
        return TrainOutput(state.global_step, training_loss, {**metrics, "epoch": state.epoch})

    def _first_state(self) -> TrainerState:
        """Return the state of a run that begins."""
        args, max_steps = self.trainer.args, self.plan.max_steps
        assert args.eval_steps is not None
        return TrainerState(
            max_steps=max_steps,
            logging_steps=steps_of(args.logging_steps, max_steps),
            eval_steps=steps_of(args.eval_steps, max_steps),
            save_steps=steps_of(args.save_steps, max_steps),
            train_batch_size=args.per_device_train_batch_size,
            num_train_epochs=self.plan.num_train_epochs,
            is_local_process_zero=self.trainer.is_local_process_zero(),
            is_world_process_zero=self.trainer.is_world_process_zero(),
        )

    def _clear_output_dir(self, checkpoint: Path | None) -> None:
        """Remove what killed runs have left, and tell of checkpoints that are not of this run."""
        if not self.trainer.is_world_process_zero():
            return
        sweep(self.files.output_dir)
        others = list_checkpoints(self.files.output_dir)
        if checkpoint is None and others:
            logger.warning(
                "%s holds checkpoints of an earlier run, up to %s: resume_from_checkpoint=True would take that one",
                self.files.output_dir,
                others[-1].name,
            )
