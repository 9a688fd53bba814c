"""Which metrics are measured at which ranks, and what they are called; knows rankings as lists of ids."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparse_encoder.evaluation.metrics import (
    accuracy,
    average_precision,
    judge,
    ndcg,
    precision,
    recall,
    reciprocal_rank,
)

Scores = dict[str, dict[int, float]]
"""Means over queries by metric, such as ``ndcg@k``, and by k."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutoffs:
    """Ranks at which rankings are measured."""

    accuracy: tuple[int, ...]
    precision_recall: tuple[int, ...]
    mrr: tuple[int, ...]
    ndcg: tuple[int, ...]
    """At least one: the largest is that of the primary metric."""
    map: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse ranks that are no ranks."""
        if not self.ndcg:
            raise ValueError("ndcg_at_k must not be empty: its largest k is that of the primary metric")
        for k in (*self.accuracy, *self.precision_recall, *self.mrr, *self.ndcg, *self.map):
            if not isinstance(k, int) or isinstance(k, bool) or k < 1:
                raise ValueError(f"every k must be an integer from 1 up, got {k!r}")

    @property
    def deepest(self) -> int:
        """How long rankings have to be."""
        return max(*self.accuracy, *self.precision_recall, *self.mrr, *self.ndcg, *self.map, 1)

    def measure(self, rankings: Iterable[Sequence[Hashable]], relevant: Iterable[Collection[Hashable]]) -> Scores:
        """Measure the rankings of several queries, one at a time.

        Args:
            rankings: Ids of documents, best first, for each query, of which there is one at least.
            relevant: Ids of the relevant documents, or their grades by id, for each query; one without any counts 0.

        Returns:
            Means over the queries.
        """
        plan = {
            "accuracy@k": (accuracy, self.accuracy),
            "precision@k": (precision, self.precision_recall),
            "recall@k": (recall, self.precision_recall),
            "ndcg@k": (ndcg, self.ndcg),
            "mrr@k": (reciprocal_rank, self.mrr),
            "map@k": (average_precision, self.map),
        }
        sums = {name: dict.fromkeys(cutoffs, 0.0) for name, (_, cutoffs) in plan.items()}
        count = 0
        for count, (ranked, wanted) in enumerate(zip(rankings, relevant, strict=True), start=1):  # noqa: B007
            if not wanted:
                continue
            judged = judge(ranked, wanted)
            for name, (metric, cutoffs) in plan.items():
                for k in cutoffs:
                    sums[name][k] += metric(judged, k)
        return {name: {k: total / count for k, total in by_k.items()} for name, by_k in sums.items()}

    @classmethod
    def of(
        cls,
        accuracy: Sequence[int],
        precision_recall: Sequence[int],
        mrr: Sequence[int],
        ndcg: Sequence[int],
        map: Sequence[int],
    ) -> Cutoffs:
        """Take ranks as users list them.

        Raises:
            TypeError: If ranks are no list.
            ValueError: If one is no rank, or there are none for nDCG.
        """
        lists = {"accuracy": accuracy, "precision_recall": precision_recall, "mrr": mrr, "ndcg": ndcg, "map": map}
        for name, ranks in lists.items():
            if isinstance(ranks, str) or not isinstance(ranks, Iterable):
                raise TypeError(f"{name}_at_k must be a list of integers, got {ranks!r}")
        return cls(
            accuracy=tuple(accuracy),
            precision_recall=tuple(precision_recall),
            mrr=tuple(mrr),
            ndcg=tuple(ndcg),
            map=tuple(map),
        )

    def columns(self, function: str) -> list[str]:
        """Name the columns of one score function in a table of results."""
        return [f"{function}-{title}@{k}" for title, _, k in self.order()]

    def row(self, scores: Mapping[str, Mapping[int, float]]) -> list[float]:
        """Return the values of these columns."""
        return [scores[name][k] for _, name, k in self.order()]

    def column_metrics(self, function: str) -> list[str]:
        """Name the metrics of these columns."""
        return [f"{function}_{name.replace('@k', f'@{k}')}" for _, name, k in self.order()]

    def metric_names(self, function: str) -> list[str]:
        """Name the metrics of one score function in the order of :meth:`measure`."""
        order = ("accuracy@k", "precision@k", "recall@k", "ndcg@k", "mrr@k", "map@k")
        found = sorted(self.order(), key=lambda column: order.index(column[1]))
        return [f"{function}_{name.replace('@k', f'@{k}')}" for _, name, k in found]

    def order(self) -> list[tuple[str, str, int]]:
        """List title, metric and k of each column."""
        both = (("Precision", "precision@k"), ("Recall", "recall@k"))
        return [
            *(("Accuracy", "accuracy@k", k) for k in self.accuracy),
            *((title, name, k) for k in self.precision_recall for title, name in both),
            *(("MRR", "mrr@k", k) for k in self.mrr),
            *(("NDCG", "ndcg@k", k) for k in self.ndcg),
            *(("MAP", "map@k", k) for k in self.map),
        ]


class WithCutoffs:
    """What an evaluator tells of its :class:`Cutoffs`; they are chosen when it is built."""

    cutoffs: Cutoffs

    @property
    def accuracy_at_k(self) -> list[int]:
        """Ranks for the accuracy."""
        return list(self.cutoffs.accuracy)

    @property
    def precision_recall_at_k(self) -> list[int]:
        """Ranks for precision and recall."""
        return list(self.cutoffs.precision_recall)

    @property
    def mrr_at_k(self) -> list[int]:
        """Ranks for the MRR."""
        return list(self.cutoffs.mrr)

    @property
    def ndcg_at_k(self) -> list[int]:
        """Ranks for nDCG."""
        return list(self.cutoffs.ndcg)

    @property
    def map_at_k(self) -> list[int]:
        """Ranks for the MAP."""
        return list(self.cutoffs.map)
