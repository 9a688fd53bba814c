from __future__ import annotations

import pytest

from sparse_encoder.training import SparseEncoderTrainingArguments
from sparse_encoder.training.steps import StepPlan, plan_steps, steps_of

TABLE = [  # batches, accumulation, epochs, max_steps, (epochs begun, updates per epoch, max_steps)
    (3, 1, 2, -1, (2, 3, 6)),
    (3, 2, 2, -1, (2, 2, 4)),
    (5, 3, 1.5, -1, (2, 2, 3)),
    (4, 8, 3, -1, (3, 1, 3)),
    (7, 2, 0.1, -1, (1, 4, 1)),
    (10, 1, 1.1, -1, (2, 10, 11)),
    (10, 1, 2.2, -1, (3, 10, 22)),
    (100, 1, 1.3, -1, (2, 100, 130)),
    (3, 1, 2, 7, (3, 3, 7)),
    (3, 2, 100, 1, (1, 2, 1)),
    (1, 1, 1, 4, (4, 1, 4)),
]


@pytest.mark.parametrize(("batches", "accumulation", "epochs", "max_steps", "expected"), TABLE)
def test_updates_are_counted_as_the_table_says(
    batches: int, accumulation: int, epochs: float, max_steps: int, expected: tuple[int, int, int]
) -> None:
    args = SparseEncoderTrainingArguments(
        "out", gradient_accumulation_steps=accumulation, num_train_epochs=epochs, max_steps=max_steps
    )
    begun, updates, total = expected
    assert plan_steps(args, batches) == StepPlan(begun, updates, batches, total)


@pytest.mark.parametrize(("interval", "steps"), [(500, 500), (0.1, 3), (0.5, 11), (1, 1)])
def test_intervals_below_one_are_ratios_of_the_run(interval: float, steps: int) -> None:
    assert steps_of(interval, 21) == steps


def test_epochs_of_different_lengths_add_up() -> None:
    args = SparseEncoderTrainingArguments("out", num_train_epochs=2.5, gradient_accumulation_steps=2)
    assert plan_steps(args, [5, 4, 7]) == StepPlan(3, 3, 5, 3 + 2 + 2)  # half of 4 updates at the end
