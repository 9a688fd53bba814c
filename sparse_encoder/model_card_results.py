"""What evaluators found, as tables and as the hub's model index; knows evaluators by the little it reads off them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparse_encoder.model_card_classes import class_table, scores_by_class
from sparse_encoder.model_card_losses import settings_as_json
from sparse_encoder.model_card_markdown import code, escape, fence, indent, number, one_line, sentence_list, table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """The last result of an evaluator."""

    evaluator: str
    """Its class."""
    task: str
    """What it measures, in words."""
    dataset: str
    """Name of what it measures on; empty if it has none."""
    metrics: dict[str, float]
    """By name, without the name of the dataset in front."""
    primary: str | None = None
    """The metric that stands for the whole."""
    config: str = ""
    """Settings of the evaluator as JSON."""
    dataset_type: str = ""
    """Hub id of the dataset, if it has one."""
    dataset_config: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What a later result must share to take the place of this one."""
        return (self.evaluator, self.dataset, self.config)


def result_of(evaluator: Any, metrics: Mapping[str, object]) -> EvaluationResult:  # noqa: ANN401  (any evaluator)
    """Describe what an evaluator found.

    Args:
        evaluator: Asked for ``name``, ``description``, ``primary_metric`` and ``get_config_dict``, if it has them.
        metrics: By name, perhaps with ``name_`` in front; what is no number is left out.
    """
    name = str(getattr(evaluator, "name", None) or "")
    tell = getattr(evaluator, "get_config_dict", None)
    config = tell() if tell is not None else {}
    kind = type(evaluator).__name__
    primary = getattr(evaluator, "primary_metric", None)
    return EvaluationResult(
        evaluator=kind,
        task=str(getattr(evaluator, "description", None) or kind),
        dataset=name,
        metrics={_short(key, name): value for key, value in numbers(metrics).items()},
        primary=_short(primary, name) if isinstance(primary, str) else None,
        config=settings_as_json(config) if isinstance(config, Mapping) else "",
    )


def numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the entries that are numbers, also those of numpy and torch, as plain ones."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        plain = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            found[str(name)] = plain
    return found


def _short(metric: str, name: str) -> str:
    return metric.removeprefix(f"{name}_") if name else metric


def result_tables(results: Iterable[EvaluationResult]) -> str:
    """Write a part per evaluator class, settings and set of metrics, with a column per dataset."""
    groups: dict[tuple[object, ...], list[EvaluationResult]] = {}
    for result in results:
        groups.setdefault((result.evaluator, result.config, tuple(result.metrics)), []).append(result)
    return "\n\n".join(_part(group) for group in groups.values())


def _part(group: list[EvaluationResult]) -> str:
    """Write the results of one class of evaluators on one or several datasets."""
    first = group[0]
    names = [code(result.dataset) for result in group if result.dataset]
    lines = [f"* Dataset{'s' if len(names) > 1 else ''}: {sentence_list(names)}"] if names else []
    lines.append(f"* Evaluated with {code(first.evaluator)}")
    if first.config:
        lines[-1] += " with these parameters:"
        lines.append(indent(fence(first.config, "json")))
    headers = ["Metric", *(escape(result.dataset or "Value") for result in group)]
    rows = []
    scores = [scores_by_class(result.metrics) for result in group]
    for metric in scores[0].rest:
        cells = [escape(metric), *(number(result.metrics[metric]) for result in group)]
        bold = any(metric == result.primary for result in group)
        rows.append([f"**{cell}**" for cell in cells] if bold else cells)
    headers = headers if len(group) > 1 else ["Metric", "Value"]
    tables = [table(headers, rows)] if rows else []
    for result, found in zip(group, scores, strict=True):
        if found.classes:
            tables.append((f"{code(result.dataset)}:\n\n" if len(group) > 1 else "") + class_table(found.classes))
    return "\n".join([f"#### {escape(one_line(first.task))}", "", *lines, "", "\n\n".join(tables)])


def metric_names(results: Iterable[EvaluationResult]) -> list[str]:
    """List all metrics once."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def model_index(results: Iterable[EvaluationResult]) -> list[EvalResult]:
    """Return the results as the hub takes them; those that are not finite have no place there."""
    from huggingface_hub import EvalResult  # heavy, and of use only here

    return [
        EvalResult(
            task_type=re.sub(r"[^a-z0-9]+", "-", result.task.lower()).strip("-") or UNKNOWN,
            task_name=one_line(result.task),
            dataset_type=result.dataset_type or re.sub(r"[^\w.-]+", "-", result.dataset) or UNKNOWN,
            dataset_name=one_line(result.dataset) or "Unknown",
            dataset_config=result.dataset_config,
            metric_type=name,
            metric_name=name.replace("_", " ").title(),
            metric_value=value,
        )
        for result in results
        for name, value in result.metrics.items()
        if math.isfinite(value)
    ]
