"""The callback that decides from the arguments when to log, evaluate, save and stop; it does none of it."""

from __future__ import annotations

from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState


class DefaultFlowCallback(TrainerCallback):
    """Raise the flags that the strategies of the arguments ask for."""

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Raise what is due at this update; the last one also ends the run, evaluates and saves."""
        step = state.global_step
        last = step >= state.max_steps
        if args.logging_strategy == "steps" and step % state.logging_steps == 0:
            control.should_log = True
        if args.logging_first_step and step == 1:
            control.should_log = True
        if args.eval_strategy == "steps" and step >= args.eval_delay and (last or step % state.eval_steps == 0):
            control.should_evaluate = True
        if args.save_strategy == "steps" and (last or step % state.save_steps == 0):
            control.should_save = True
        if last:
            control.should_training_stop = True

    def on_epoch_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Raise what is due at the end of an epoch."""
        if args.logging_strategy == "epoch":
            control.should_log = True
        if args.eval_strategy == "epoch" and state.epoch >= args.eval_delay:
            control.should_evaluate = True
        if args.save_strategy == "epoch":
            control.should_save = True
