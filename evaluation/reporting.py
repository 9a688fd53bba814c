"""What becomes of an evaluator's numbers: a row in a table, the log, the model's card; knows no metric."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sparse_encoder.evaluation.result_files import append_row

logger = logging.getLogger(__name__)


class Call(NamedTuple):
    """What an evaluator was called with besides the model."""

    output_path: str | None
    """Folder for files; ``None`` writes nothing."""
    epoch: float
    steps: int

    def describe(self) -> str:
        """Say when in training this is."""
        if self.epoch == -1:
            return ""
        return f" after epoch {self.epoch}" if self.steps == -1 else f" in epoch {self.epoch} after {self.steps} steps"


class Reporter(Protocol):
    """An evaluator that reports."""

    name: str
    csv_file: str
    write_csv: bool

    @property
    def description(self) -> str:
        """What is evaluated, in words."""

    def prefix_name_to_metrics(self, metrics: Mapping[str, float], name: str) -> dict[str, float]:
        """Put the name before every key."""

    def store_metrics_in_model_card_data(
        self,
        model: Any,  # noqa: ANN401  (of any kind)
        metrics: Mapping[str, float],
        epoch: float = 0,
        step: int = 0,
    ) -> None:
        """Hand the metrics to the model's card."""


def announce(evaluator: Reporter, call: Call) -> None:
    """Log that an evaluation begins."""
    logger.info("%s on %s%s:", evaluator.description, evaluator.name or "texts without a name", call.describe())


def report(
    evaluator: Reporter,
    model: object,
    call: Call,
    metrics: Mapping[str, float],
    columns: Mapping[str, float],
    *,
    costs: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Add a row to the evaluator's table, log its metrics and hand them to the model's card.

    Args:
        evaluator: Whose metrics these are.
        model: What was measured.
        call: When, and where to write.
        metrics: By name, without the evaluator's; the order is kept.
        columns: The row, by header, without epoch and steps.
        costs: Metrics that are returned and logged, but not told to the card: they are another for each machine.

    Returns:
        Metrics and costs by name, with the evaluator's name before each.
    """
    if call.output_path is not None and evaluator.write_csv:
        path = Path(call.output_path) / evaluator.csv_file
        append_row(path, ["epoch", "steps", *columns], [call.epoch, call.steps, *columns.values()])
    found = evaluator.prefix_name_to_metrics(metrics, evaluator.name)
    evaluator.store_metrics_in_model_card_data(model, found, call.epoch, call.steps)
    found = found | evaluator.prefix_name_to_metrics(costs or {}, evaluator.name)  # the card may keep the first
    for metric, value in found.items():
        logger.info("%s: %.4f", metric, value)
    return found
