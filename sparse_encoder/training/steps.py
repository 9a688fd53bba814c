"""How many updates a run has; plain arithmetic that knows neither data nor model."""

from __future__ import annotations

import math
from typing import NamedTuple

from sparse_encoder.training.arguments import TrainingArguments


class StepPlan(NamedTuple):
    """The lengths of a run, for one process."""

    num_train_epochs: int
    """Passes over the data that are begun, the last one perhaps not ended."""
    updates_per_epoch: int
    batches_per_epoch: int
    max_steps: int
    """Updates of the whole run."""


def plan_steps(args: TrainingArguments, batches_per_epoch: int) -> StepPlan:
    """Count the updates of a run: ``max_steps`` if it is given, else ``num_train_epochs`` passes, rounded up."""
    updates = max(math.ceil(batches_per_epoch / args.gradient_accumulation_steps), 1)
    if args.max_steps > 0:
        return StepPlan(math.ceil(args.max_steps / updates), updates, batches_per_epoch, args.max_steps)
    max_steps = math.ceil(args.num_train_epochs * updates)
    return StepPlan(math.ceil(args.num_train_epochs), updates, batches_per_epoch, max_steps)


def steps_of(interval: float, max_steps: int) -> int:
    """Return an interval in steps: below 1 it is a ratio of the run, rounded up."""
    return math.ceil(max_steps * interval) if interval < 1 else int(interval)
