"""How many updates a run has; plain arithmetic that knows neither data nor model."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sparse_encoder.training.arguments import TrainingArguments


class StepPlan(NamedTuple):
    """The lengths of a run, for one process."""

    num_train_epochs: int
    """Passes over the data that are begun, the last one perhaps not ended."""
    updates_per_epoch: int
    """Of the first epoch."""
    batches_per_epoch: int
    """Of the first epoch."""
    max_steps: int
    """Updates of the whole run."""


class TrainingValues(NamedTuple):
    """The lengths of a run as the documented interface has them."""

    num_train_epochs: int
    num_update_steps_per_epoch: int
    num_examples: int
    """Rows of an epoch; those of the run if the data have no length."""
    num_train_samples: int
    """Rows of the run."""
    epoch_based: bool
    """Whether the number of epochs decides, and not ``max_steps``."""
    len_dataloader: int | None
    max_steps: int


def plan_steps(args: TrainingArguments, batches_per_epoch: int | Sequence[int] | None) -> StepPlan:
    """Count the updates of a run: ``max_steps`` if it is given, else ``num_train_epochs`` passes, rounded up.

    Args:
        args: The settings.
        batches_per_epoch: Of every epoch, or of each one, where a sampler makes them differ. None for a stream, whose
            passes have no known length: all of the run counts as one epoch.

    Raises:
        ValueError: If neither ``max_steps`` nor the length of the data is known.
    """
    if batches_per_epoch is None:
        if args.max_steps <= 0:
            raise ValueError("max_steps must be given for data without a length, such as a stream")
        return StepPlan(sys.maxsize, args.max_steps, args.max_steps * args.gradient_accumulation_steps, args.max_steps)
    epochs = math.ceil(args.num_train_epochs)
    lengths = [batches_per_epoch] * epochs if isinstance(batches_per_epoch, int) else list(batches_per_epoch)
    updates = [max(math.ceil(length / args.gradient_accumulation_steps), 1) for length in lengths]
    if args.max_steps > 0:
        return StepPlan(math.ceil(args.max_steps / updates[0]), updates[0], lengths[0], args.max_steps)
    if len(set(updates)) == 1:
        max_steps = math.ceil(args.num_train_epochs * updates[0])
    else:
        rest = round(args.num_train_epochs - (epochs - 1), 9)  # without the rounding of the difference
        max_steps = sum(updates[:-1]) + math.ceil(rest * updates[-1])
    return StepPlan(epochs, updates[0], lengths[0], max_steps)


def training_values(
    args: TrainingArguments, batches_per_epoch: int | None, num_rows: int | None, total_train_batch_size: int
) -> TrainingValues:
    """Return the lengths of a run.

    Args:
        args: The settings.
        batches_per_epoch: Of one process; None for a stream.
        num_rows: Of an epoch, if it is known.
        total_train_batch_size: Rows of an update of all processes.
    """
    plan = plan_steps(args, batches_per_epoch)
    of_run = plan.max_steps * total_train_batch_size
    if batches_per_epoch is None or num_rows is None:
        samples = of_run
    else:
        samples = of_run if args.max_steps > 0 else math.ceil(num_rows * args.num_train_epochs)
    return TrainingValues(
        num_train_epochs=plan.num_train_epochs,
        num_update_steps_per_epoch=plan.updates_per_epoch,
        num_examples=of_run if num_rows is None else num_rows,
        num_train_samples=samples,
        epoch_based=args.max_steps < 0,
        len_dataloader=batches_per_epoch,
        max_steps=plan.max_steps,
    )


def steps_of(interval: float, max_steps: int) -> int:
    """Return an interval in steps: below 1 it is a ratio of the run, rounded up."""
    return math.ceil(max_steps * interval) if interval < 1 else int(interval)
