"""The training loop: read some batches, add up their gradients, move the weights, report; epoch after epoch.

It knows nothing of texts or losses: the trainer computes, reads and saves, the callbacks decide when.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from sparse_encoder.backbone.counting import count_tokens
from sparse_encoder.backbone.flops import operations_per_token
from sparse_encoder.training.best import metric_of, note_best
from sparse_encoder.training.checkpoints.folders import checkpoint_path
from sparse_encoder.training.checkpoints.saving import RunFiles, mark_as_trained
from sparse_encoder.training.checkpoints.signals import StopRequest
from sparse_encoder.training.checkpoints.snapshot import Progress, data_identity, optimization_identity
from sparse_encoder.training.data.collator import Batch, num_texts
from sparse_encoder.training.data.loaders import end_workers, epoch_lengths_of, length_of, seed_order, skip_batches
from sparse_encoder.training.devices import wrap_model
from sparse_encoder.training.events.stateful import collect_states, restore_states
from sparse_encoder.training.meters import LossMeter, TokenCount, means_of, merge_sums, own_tables, sums_in
from sparse_encoder.training.micro_batches import MicroBatches
from sparse_encoder.training.optimization.groups import learning_rates_of
from sparse_encoder.training.optimization.guard import GuardedUpdate
from sparse_encoder.training.optimization.schedules import takes_metric
from sparse_encoder.training.state import TrainerControl, TrainerState, TrainOutput
from sparse_encoder.training.steps import plan_steps, steps_of
from sparse_encoder.training.tuning.trials import trial_facts

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10


class TrainingRun:
    """One call of ``train()``.

    Args:
        trainer: What is trained, with what.
        checkpoint: Where to go on; None starts anew.
        ignore_keys: Outputs of the model that evaluations leave out.
        stop: Tells of a signal to end after the present update.

    Raises:
        ValueError: If there is no batch to train on.
        CheckpointError: If the checkpoint is damaged, incomplete or of another kind of run.
    """

    def __init__(
        self,
        trainer: TrainerBase,
        checkpoint: Path | None,
        *,
        ignore_keys: list[str] | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        args = trainer.args
        self.trainer, self.ignore_keys, self.stop = trainer, ignore_keys, stop
        self.loader = trainer.get_train_dataloader()
        num_epochs = 1 if args.max_steps > 0 else math.ceil(args.num_train_epochs)
        self.plan = plan_steps(args, epoch_lengths_of(self.loader, num_epochs))
        trainer.control = TrainerControl()
        trainer.state = self._first_state()
        trainer.create_optimizer_and_scheduler(self.plan.max_steps)
        assert trainer.optimizer is not None
        scaler = torch.amp.GradScaler(trainer.accelerator.device.type) if args.fp16 else None
        self.guard = GuardedUpdate(trainer.optimizer, args.max_grad_norm, scaler=scaler)
        data = data_identity(args, trainer.accelerator.num_processes, trainer.data_identity())
        settings = optimization_identity(args)
        self.files = RunFiles(trainer, {**data, **settings}, self.guard)
        self.progress = Progress()
        self.meter = LossMeter(filter_not_finite=args.logging_nan_inf_filter)
        if checkpoint is not None:
            identity = settings if args.ignore_data_skip else {**data, **settings}
            self.progress = self.files.resume(checkpoint, identity)
            self.guard.go_on(self.progress.skipped_in_a_row)
            if args.restore_callback_states_from_checkpoint:
                states = trainer.state.stateful_callbacks
                trainer.control = restore_states(trainer.callback_handler, trainer.control, states)
            self.meter.load(own_tables(self.progress.loss_tables, trainer.accelerator), trainer.accelerator.device)
        carried = merge_sums(sums_in(tables) for tables in self.progress.loss_tables).get("loss", (0.0, 0.0))
        self.loss_sum, self.loss_weight = -carried[0], -carried[1]  # of this call
        self.grad_norm: Tensor | None = None  # of the last update of this call
        self.num_samples = 0
        self.tokens = TokenCount(padding=args.include_num_input_tokens_seen != "non_padding")
        self.skipped_told = 0
        self.saved_step = -1
        self.stream_ended = False
        self.first_step = trainer.state.global_step
        self.flops_per_token = operations_per_token(trainer.model)
        mark_as_trained(trainer.model)
        trainer.model_wrapped = wrap_model(trainer.model, args)
        self.micro_batches = MicroBatches(trainer, self.guard)

    def run(self) -> TrainOutput:
        """Train to the end; returns updates done, mean loss and speed."""
        started = time.perf_counter()
        trainer = self.trainer
        trainer.model.train()
        trainer.objective.zero_grad(set_to_none=True)
        trainer.callback_handler.context["train_dataloader"] = self.loader
        trainer.callback_handler.context["save_checkpoint"] = self.save_checkpoint
        trainer.callback_handler.context["objective"] = trainer.objective
        try:
            self._run_epochs()
        finally:  # also when a callback raises, memory runs out or the user has had enough
            end_workers(self.loader)
        if self._stop_if_told() and self.saved_step < trainer.state.global_step:
            self._save()
        return self._finish(time.perf_counter() - started)

    def _run_epochs(self) -> None:
        """Pass over the data until all updates are done or a callback ends the run."""
        trainer, progress = self.trainer, self.progress
        trainer.fire("on_train_begin")
        if trainer.args.eval_on_start and trainer.state.global_step == 0:
            trainer.evaluate(ignore_keys=self.ignore_keys)
        first_epoch = progress.epoch + progress.epoch_ended
        last_epoch = sys.maxsize if trainer.args.max_steps > 0 else self.plan.num_train_epochs
        for epoch in range(first_epoch, last_epoch):
            is_begun = epoch == progress.epoch and not progress.epoch_ended
            has_tail = is_begun and not progress.epoch_reported
            if trainer.state.global_step >= self.plan.max_steps and not has_tail:
                break
            goes_on = is_begun and not trainer.args.ignore_data_skip
            self._run_epoch(epoch, batches_done=progress.batches_done if goes_on else 0)
            if trainer.control.should_training_stop:
                break

    def _run_epoch(self, epoch: int, batches_done: int) -> None:
        """Pass over the data once, behind the batches that are done."""
        trainer, progress = self.trainer, self.progress
        is_stopped, progress.epoch_stopped = progress.epoch_stopped, False
        progress.epoch, progress.epoch_ended, progress.epoch_reported = epoch, False, False
        trainer.control.should_epoch_stop = False
        trainer.fire("on_epoch_begin")
        begun = progress.batches_done = batches_done
        for batches in () if is_stopped else self._read(epoch, batches_done):
            self._update(batches)
            progress.batches_done += len(batches)
            trainer.state.global_step += 1
            batches_in_epoch = length_of(self.loader) or self.plan.batches_per_epoch
            trainer.state.epoch = epoch + progress.batches_done / batches_in_epoch
            self._tidy_up()
            trainer.fire("on_step_end")
            told = self._stop_if_told()
            self._report()
            if told:
                return  # the end of the epoch is left to the run that is resumed
            if trainer.control.should_epoch_stop or trainer.control.should_training_stop:
                break
        if progress.batches_done == begun == 0:
            logger.warning("epoch %d had no batch, the run ends: is the data's stream used up?", epoch)
            trainer.control.should_training_stop = True
        progress.epoch_ended = is_stopped or trainer.control.should_epoch_stop or self._is_exhausted()
        progress.epoch_reported = True
        trainer.fire("on_epoch_end")
        self._report()

    def _is_exhausted(self) -> bool:
        """Return whether all batches of the epoch are done."""
        length = length_of(self.loader)
        return self.stream_ended if length is None else self.progress.batches_done >= length

    def _read(self, epoch: int, batches_done: int) -> Iterator[list[Batch]]:
        """Yield the batches of each update that is left of an epoch."""
        loader: Any = self.loader  # a trainer's own kind need not have these
        for part in (loader, getattr(loader, "batch_sampler", None), getattr(loader, "dataset", None)):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        args = self.trainer.args
        seed_order(loader, args.seed if args.data_seed is None else args.data_seed, epoch)
        self.stream_ended = False
        rest = skip_batches(self.loader, batches_done) if batches_done else self.loader
        batches = iter(rest)
        try:
            while self.trainer.state.global_step < self.plan.max_steps:
                update = list(islice(batches, self.trainer.args.gradient_accumulation_steps))
                if not update:
                    self.stream_ended = True
                    return
                yield update
        finally:
            if rest is not self.loader:
                end_workers(rest)

    def _update(self, batches: list[Batch]) -> None:
        """Add up the gradients of some batches and move the weights once."""
        trainer = self.trainer
        assert trainer.optimizer is not None and trainer.lr_scheduler is not None
        trainer.control.should_log = trainer.control.should_evaluate = trainer.control.should_save = False
        trainer.fire("on_step_begin")
        computations = [partial(self.micro_batches.losses, batch, index) for index, batch in enumerate(batches)]
        shares = trainer.loss_shares(batches)
        with trainer.update_context(computations):
            for index, batch in enumerate(batches):
                is_last = index == len(batches) - 1
                losses = self.micro_batches.train_on(batch, index, shares[index], is_last=is_last)
                factor = shares[index] * len(batches)  # 1 for losses that are means over their micro-batch
                self.meter.add({name: value * factor for name, value in losses.items()}, weight=1 / len(batches))
                self._count(batch)
                if not is_last:
                    trainer.fire("on_substep_end")
        self.micro_batches.finish()
        self.grad_norm = self.guard.clip()
        trainer.fire("on_pre_optimizer_step")
        has_moved = self.guard.step(self.grad_norm)
        trainer.fire("on_optimizer_step")
        self.progress.learning_rate = learning_rates_of(trainer.optimizer)[0]
        if has_moved and not takes_metric(trainer.lr_scheduler):
            trainer.lr_scheduler.step()
        trainer.objective.zero_grad(set_to_none=True)
        trainer.optimizer.zero_grad(set_to_none=True)

    def _tidy_up(self) -> None:
        """Do what is due every few updates."""
        step, cache_steps = self.trainer.state.global_step, self.trainer.args.torch_empty_cache_steps
        if step % MAX_SKIPPED_IN_A_ROW == 0:
            self._check_skipped()
        if cache_steps and step % cache_steps == 0:
            clear_device_cache()

    def _count(self, batch: Batch) -> None:
        """Count the rows, tokens and operations of a micro-batch."""
        self.num_samples += num_texts(batch)
        self.tokens.add(batch)
        self.trainer.state.total_flos += count_tokens(batch) * self.flops_per_token

    def _stop_if_told(self) -> bool:
        """Save and end if any process got a signal to end; returns whether one did."""
        control = self.trainer.control
        told = self.stop is not None and self.stop.agree(self.trainer.accelerator)
        if told:
            control.should_save = control.should_training_stop = True
        return told

    def _evaluate(self) -> dict[str, float]:
        """Evaluate, and tell a schedule that goes by a metric."""
        trainer = self.trainer
        metrics = trainer.evaluate(ignore_keys=self.ignore_keys)
        if trainer.search is not None:
            trainer.search.evaluated(metrics)
        scheduler: Any = trainer.lr_scheduler  # one that goes by a metric takes it
        if takes_metric(scheduler):
            scheduler.step(metric_of(metrics, trainer.args.metric_for_best_model or "loss"))
        return metrics

    def _report(self) -> None:
        """Log, evaluate and save what the callbacks have asked for, in this order."""
        trainer = self.trainer
        if trainer.control.should_log and trainer.state.global_step > self.progress.last_logged_step:
            trainer.control.should_log = False
            self._log()
        if trainer.control.should_evaluate:
            trainer.control.should_evaluate = False
            if note_best(trainer.args, trainer.state, self._evaluate()) and (
                trainer.args.save_strategy == "best" or trainer.args.load_best_model_at_end
            ):
                trainer.control.should_save = True
        if trainer.control.should_save:
            trainer.control.should_save = False
            self._save()

    def _save(self) -> None:
        """Write a checkpoint of this update."""
        self._check_skipped()
        self._note_state()
        if self.files.save(self._progress()):
            self.saved_step = self.trainer.state.global_step
            self.trainer.fire("on_save")
            self._publish()

    def save_checkpoint(self, folder: Path | str) -> None:
        """Write a checkpoint that can be resumed from into any folder; all processes must call this."""
        self._note_state()
        self.files.save_to(Path(folder), self._progress())

    def _note_state(self) -> None:
        """Bring the state that is saved up to date."""
        trainer = self.trainer
        trainer.state.num_input_tokens_seen += self.tokens.take()
        trainer.state.stateful_callbacks = collect_states(trainer.callback_handler, trainer.control)

    def _publish(self) -> None:
        """Upload the last checkpoint, if the settings say so."""
        trainer, state = self.trainer, self.trainer.state
        if trainer.publisher is not None:
            folder = checkpoint_path(self.files.output_dir, state.global_step)
            trainer.publisher.on_save(state.global_step, state.epoch, folder)

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
        state = self.trainer.state
        state.num_input_tokens_seen += self.tokens.take()
        if self.trainer.args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = state.num_input_tokens_seen
        self._check_skipped()
        self.progress.last_logged_step = self.trainer.state.global_step
        self.trainer.log(logs)

    def _last_norm(self) -> float:
        return self.progress.grad_norm if self.grad_norm is None else self.grad_norm.item()

    def _check_skipped(self) -> None:
        """Say how many updates were left out; give up when nothing but that happens any more."""
        _, total, in_a_row = self.guard.skips()
        if total > self.skipped_told:
            logger.warning("%d updates were left out: their gradient was not finite", total - self.skipped_told)
            self.skipped_told = total
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"the gradient was not finite in {in_a_row} updates in a row, by update "
                f"{self.trainer.state.global_step}; the weights are those before them. Try a lower learning rate, or "
                "look for texts or labels that make the loss NaN"
            )

    def _progress(self) -> Progress:
        """Return where the run stands, with the sums of all processes."""
        return replace(
            self.progress,
            loss_tables=gather_object([self.meter.tables()]),
            grad_norm=self._last_norm(),
            skipped_in_a_row=self.guard.skipped()[0],
            epoch_stopped=self.trainer.control.should_epoch_stop,
        )

    def _finish(self, seconds: float) -> TrainOutput:
        """Log the speed, and give the model its best weights if they are wanted."""
        trainer, state = self.trainer, self.trainer.state
        rest = merge_sums(gather_object([self.meter.sums()])).get("loss", (0.0, 0.0))
        loss_sum, loss_weight = self.loss_sum + rest[0], self.loss_weight + rest[1]
        self._check_skipped()
        is_unknown = state.global_step > self.first_step  # no loss was finite
        training_loss = loss_sum / loss_weight if loss_weight > 0 else math.nan if is_unknown else 0.0
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
        if self.stop is None or self.stop.requested is None:
            self.files.keep_best()
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
            **trial_facts(self.trainer),
        )
