"""Lays out measured figures as text. Knows no model and no collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparse_encoder.evaluation.collection_search import SearchCost
from sparse_encoder.evaluation.significance import Comparison


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align the cells of rows: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def figures_table(metrics: Mapping[str, float], cost: SearchCost, milliseconds: float) -> str:
    """Lay out means over the queries, what a search costs, and the time to encode and search one query."""
    costs = [
        ("active terms of a query", f"{cost.query_terms:.1f}"),
        ("active terms of a document", f"{cost.document_terms:.1f}"),
        ("FLOPS per query and document", f"{cost.avg_flops:.4f}"),
        ("postings touched per query", f"{cost.postings_per_query:,.0f}"),
        ("postings of the index", f"{cost.num_postings:,}"),
        ("index, MB", f"{cost.index_megabytes:.2f}"),
        ("search, ms per query", f"{cost.search_ms_per_query:.3f}"),
        ("encode and search, ms per query", f"{milliseconds:.3f}"),
    ]
    return columns([*((name, f"{value:.4f}") for name, value in metrics.items()), *costs])


def comparison_table(compared: Mapping[str, Comparison]) -> str:
    """Lay out two systems, metric by metric; a star marks what both tests find at a level of 0.05 after adjustment."""
    rows = [("", "baseline", "model", "difference", "p (t-test)", "p (randomisation)", "")]
    for metric, each in compared.items():
        found = max(each.t_test_adjusted, each.randomization_adjusted) < 0.05
        p_values = (f"{each.t_test_adjusted:.4f}", f"{each.randomization_adjusted:.4f}")
        means = (f"{each.baseline:.4f}", f"{each.system:.4f}", f"{each.difference:+.4f}")
        rows.append((metric, *means, *p_values, "*" if found else ""))
    return columns(rows)
