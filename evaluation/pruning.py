"""What pruning costs in quality and saves in postings, without encoding again. Knows no model; draws nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, Context
from typing import Any

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.collection_search import DEPTH, SearchCost, search_collection, search_cost
from sparse_encoder.evaluation.encoded_collection import EncodedCollection, to_length_1
from sparse_encoder.evaluation.run_metrics import DEFAULT_METRICS, deepest, means, measure_run
from sparse_encoder.evaluation.samples import check_rank
from sparse_encoder.search import SparseIndex
from sparse_encoder.search.pruning import Pruning

SIDES = ("documents", "queries", "both")
_COST_TITLES = {
    "query_terms": ("terms/query", "{:.1f}"),
    "document_terms": ("terms/document", "{:.1f}"),
    "avg_flops": ("FLOPS", "{:.3f}"),
    "postings_per_query": ("postings/query", "{:.0f}"),
    "num_postings": ("postings", "{:d}"),
    "index_megabytes": ("index MB", "{:.2f}"),
    "search_ms_per_query": ("ms/query", "{:.3f}"),
}


@dataclass(frozen=True, slots=True)
class PrunedResult:
    """One row of a sweep."""

    pruning: Pruning
    """What was done to the vectors."""
    metrics: dict[str, float]
    """Means over the judged queries."""
    cost: SearchCost
    """What a search costs then."""

    def as_dict(self) -> dict[str, Any]:  # plain values
        """Return the row for files."""
        return {"pruning": str(self.pruning), **self.metrics, **asdict(self.cost)}


def sweep(
    encoded: EncodedCollection,
    prunings: Iterable[Pruning],
    *,
    side: str = "documents",
    metrics: Sequence[str] = DEFAULT_METRICS,
    top_k: int = DEPTH,
) -> Iterator[PrunedResult]:
    """Prune, index, search and measure, once for each pruning; documents that are not pruned are indexed once.

    Args:
        encoded: The vectors.
        prunings: The ways to prune, each of the vectors as they are.
        side: What is pruned: ``documents``, ``queries`` or ``both``.
        metrics: As for :func:`~sparse_encoder.evaluation.run_metrics.measure_run`.
        top_k: Length of rankings, or more if a metric looks deeper.

    Returns:
        The rows, in the order of the prunings, each made when it is asked for; that of 8 bits is refused if a weight
        is negative.

    Raises:
        TypeError: If the metrics are no list, or a pruning is none.
        ValueError: If a metric or side is unknown, or ``top_k`` below 1.
    """
    if isinstance(metrics, str):
        raise TypeError(f"metrics must be a list of names, got {metrics!r}")
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}; choose from {sorted(SIDES)}")
    top_k = max(check_rank("top_k", top_k), deepest(metrics))
    chosen = list(prunings)
    for place, pruning in enumerate(chosen):
        if not isinstance(pruning, Pruning):
            raise TypeError(
                f"prunings must be of Pruning, as Pruning.parse() makes them, number {place} is {pruning!r}"
            )
    return _rows(encoded, chosen, side, metrics, top_k)


def _rows(
    encoded: EncodedCollection, prunings: Sequence[Pruning], side: str, metrics: Sequence[str], top_k: int
) -> Iterator[PrunedResult]:
    """Yield the rows of :func:`sweep`, whose arguments are judged."""
    ids = encoded.document_ids
    index: SparseIndex | None = None
    for pruning in prunings:
        documents = encoded.documents if side == "queries" else _pruned(encoded.documents, pruning, encoded.cosine)
        queries = encoded.queries if side == "documents" else _pruned(encoded.queries, pruning, encoded.cosine)
        if index is None or side != "queries":
            index = SparseIndex.build(documents, ids)
        run = search_collection(index, queries, encoded, top_k=top_k)
        eight_bits = pruning.eight_bits and side != "queries"
        cost = search_cost(index, queries, documents, eight_bits=eight_bits, scaled=encoded.cosine)
        yield PrunedResult(pruning, means(measure_run(run, encoded.collection.qrels, metrics)), cost)


def _pruned(embeddings: SparseEmbeddings, pruning: Pruning, cosine: bool) -> SparseEmbeddings:
    """Prune rows, and bring what is left of them to length 1 again if scores are cosines."""
    pruned = pruning(embeddings)
    return to_length_1(pruned) if cosine and pruning != Pruning() else pruned


def default_prunings(embeddings: SparseEmbeddings) -> list[Pruning]:
    """Choose what to try: nothing, 8 bits, five of each kind, and two of them with 8 bits.

    Args:
        embeddings: What is to be pruned; thresholds are quantiles of its weights, rounded down to two digits, so
            that the weights of the quantile itself stay.
    """
    weights = embeddings.values().float()
    weights = weights[weights != 0].abs().sort().values
    quantiles = (
        [float(weights[int(share * len(weights))]) for share in (0.1, 0.3, 0.5, 0.7, 0.9)] if len(weights) else []
    )
    texts = [
        "none",
        "uint8",
        *(f"top_k={k}" for k in (16, 32, 64, 128, 256)),
        *(f"ratio={ratio}" for ratio in (0.05, 0.1, 0.2, 0.3, 0.4)),
        *(f"mass={mass}" for mass in (0.6, 0.7, 0.8, 0.9, 0.95)),
        *dict.fromkeys(f"threshold={_rounded_down(quantile):g}" for quantile in quantiles),
        "top_k=64+uint8",
        "mass=0.9+uint8",
    ]
    return [Pruning.parse(text) for text in texts]


def _rounded_down(number: float) -> float:
    """Round a positive number down to two digits."""
    return float(Context(prec=2, rounding=ROUND_DOWN).create_decimal_from_float(number))


def csv_table(rows: Sequence[PrunedResult]) -> str:
    """Write the rows of a sweep as CSV with a line of names.

    Raises:
        ValueError: If there are no rows.
    """
    _check_rows(rows)
    text = io.StringIO()
    table = [row.as_dict() for row in rows]
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def markdown_table(rows: Sequence[PrunedResult]) -> str:
    """Write the rows of a sweep as a Markdown table that is also aligned as text.

    Raises:
        ValueError: If there are no rows.
    """
    _check_rows(rows)
    lines = [["pruning", *rows[0].metrics, *(title for title, _ in _COST_TITLES.values())]]
    for row in rows:
        figures = [f"{value:.4f}" for value in row.metrics.values()]
        costs = [form.format(getattr(row.cost, name)) for name, (_, form) in _COST_TITLES.items()]
        lines.append([str(row.pruning), *figures, *costs])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (padded[0], rule, *padded[1:]))


def _check_rows(rows: Sequence[PrunedResult]) -> None:
    if not rows:
        raise ValueError("rows must not be empty: the first one names the columns")
