"""Draws a sweep of prunings: quality over postings and over the size of the index. Needs matplotlib, an extra."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from sparse_encoder.evaluation.pruning import PrunedResult

_AXES: tuple[tuple[str, Callable[[PrunedResult], float]], ...] = (
    ("postings touched per query", lambda row: row.cost.postings_per_query),
    ("index, MB", lambda row: row.cost.index_megabytes),
)


class _Style(NamedTuple):
    """How the points of one kind of pruning are drawn."""

    label: str
    color: str
    marker: str = "o"


_STYLES = {
    None: _Style("not pruned", "black", "*"),
    "top_k": _Style("top-k", "tab:blue"),
    "ratio": _Style("ratio to the maximum", "tab:orange"),
    "mass": _Style("cumulative mass", "tab:green"),
    "threshold": _Style("threshold", "tab:red"),
}


def figure_class() -> Any:  # noqa: ANN401  (matplotlib is not there when types are checked)
    """Import matplotlib's ``Figure``.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        return import_module("matplotlib.figure").Figure
    except ImportError as reason:
        raise ImportError("a plot needs matplotlib: pip install 'sparse-encoder[plot]'") from reason


def plot_sweep(rows: Sequence[PrunedResult], metric: str, *, title: str) -> bytes:
    """Draw one point for each row; those of one kind are joined by a line, those of 8-bit weights are hollow.

    Args:
        rows: Of a sweep.
        metric: Which metric is the quality.
        title: Above the plot.

    Returns:
        A PNG.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no rows, or they do not have the metric.
    """
    if not rows or metric not in rows[0].metrics:
        raise ValueError(f"there are no values of {metric!r} to plot, but of {sorted(rows[0].metrics) if rows else []}")
    figure = figure_class()(figsize=(12, 5), layout="constrained")
    figure.suptitle(title)
    for axes, (label, cost) in zip(figure.subplots(1, 2, sharey=True), _AXES, strict=True):
        for name, style in _STYLES.items():
            for eight_bits in (False, True):
                chosen = [row for row in rows if (row.pruning.name, row.pruning.eight_bits) == (name, eight_bits)]
                chosen.sort(key=cost)
                if chosen:
                    axes.plot(
                        [cost(row) for row in chosen],
                        [row.metrics[metric] for row in chosen],
                        color=style.color,
                        marker=style.marker,
                        markersize=11 if style.marker == "*" else 6,
                        markerfacecolor="white" if eight_bits else style.color,
                        linestyle="none" if eight_bits or len(chosen) == 1 else "-",
                        label=f"{style.label}, 8 bits" if eight_bits else style.label,
                    )
        axes.set_xlabel(label)
        axes.set_xscale("log" if all(cost(row) > 0 for row in rows) else "linear")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(metric)
    figure.axes[0].legend(fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
