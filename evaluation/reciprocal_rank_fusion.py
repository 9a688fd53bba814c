"""How much a dense and a sparse search gain when their rankings are joined."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sparse_encoder.evaluation.base import BaseEvaluator
from sparse_encoder.evaluation.checks import check_labels, check_lengths, check_numbers
from sparse_encoder.evaluation.fusion import reciprocal_rank_fusion
from sparse_encoder.evaluation.pairs_metrics import average_precision
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.result_files import write_json_lines
from sparse_encoder.evaluation.samples import Sample, check_rank, check_samples, texts_of
from sparse_encoder.evaluation.scored_metrics import ndcg, reciprocal_rank

_COLUMNS = ("query_id", "query", "positive", "documents")


class ReciprocalRankFusionEvaluator(BaseEvaluator):
    """Join the rankings of a dense and of a sparse search by reciprocal ranks, and measure all three.

    ``dense_map``, ``dense_mrr@k``, ``dense_ndcg@k``, the same with ``sparse_``, and those of the joint ranking without
    a prefix; ``ndcg@k`` is the primary metric. Relevant documents that a ranking lacks come at its end; a ranking
    without any scores 0.

    No model is run, so there are no costs to report. It may be called as the peer's, ``evaluator(output_path, epoch,
    steps)``, or with a model in the first place, as a trainer and :class:`SequentialEvaluator` call every evaluator;
    only the model's card is then used.
    With an ``output_path`` a row is added to ``ReciprocalRankFusion_evaluation[_{name}]_results.csv``.

    Args:
        dense_samples: Dicts of ``query_id``, ``query``, ``positive`` (relevant documents, one or a list) and
            ``documents``, those found, best first.
        sparse_samples: The same of the sparse search, in the same order.
        at_k: How many places count for MRR and nDCG.
        rrf_k: Softens the weight of the first ranks.
        name: Starts the name of every metric and is part of that of the file.
        batch_size: Kept for the peer's scripts: nothing is encoded here.
        show_progress_bar: Show one over queries.
        write_csv: Write the row of results.
        write_predictions: Also write the joint rankings to ``..._predictions.jsonl``.

    Raises:
        TypeError: If a sample is no dict or a document no text.
        ValueError: If the samples have different lengths or queries, one lacks a column, or a number is out of range.
    """

    def __init__(  # house: peer signature
        self,
        dense_samples: Iterable[Sample],
        sparse_samples: Iterable[Sample],
        at_k: int = 10,
        rrf_k: int = 60,
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        write_predictions: bool = False,
    ) -> None:
        self.dense_samples = check_samples("dense_samples", dense_samples, _COLUMNS)
        self.sparse_samples = check_samples("sparse_samples", sparse_samples, ("query_id", "documents"))
        if len(self.dense_samples) != len(self.sparse_samples):
            raise ValueError(
                f"there must be as many dense as sparse samples, got {len(self.dense_samples)} and "
                f"{len(self.sparse_samples)}"
            )
        for row, (dense, sparse) in enumerate(zip(self.dense_samples, self.sparse_samples, strict=True)):
            if dense["query_id"] != sparse["query_id"]:
                raise ValueError(
                    f"samples must be of the same queries, sample {row} is of {dense['query_id']!r} and "
                    f"{sparse['query_id']!r}"
                )
            texts_of(dense, "positive", f"sample {row} of dense_samples")
            for side, sample in (("dense", dense), ("sparse", sparse)):
                texts_of(sample, "documents", f"sample {row} of {side}_samples")
        self.at_k, self.rrf_k = check_rank("at_k", at_k), rrf_k
        reciprocal_rank_fusion([], rrf_k)  # judges rrf_k
        self.name, self.batch_size, self.show_progress_bar = (
            name,
            check_rank("batch_size", batch_size),
            show_progress_bar,
        )
        self.write_csv, self.write_predictions = write_csv, write_predictions
        stem = f"ReciprocalRankFusion_evaluation{'_' + name if name else ''}"
        self.csv_file, self.predictions_file = f"{stem}_results.csv", f"{stem}_predictions.jsonl"
        self.primary_metric = f"ndcg@{self.at_k}"

    def __call__(
        self,
        model: Any = None,  # noqa: ANN401  (only its card is used; a text is the output_path of the peer's call)
        output_path: Any = None,  # noqa: ANN401  (a folder; in the peer's call the epoch)
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Measure the rankings; arguments and result as in :class:`BaseEvaluator`, all of them optional."""
        if isinstance(model, str):  # evaluator(output_path, epoch, steps)
            model, output_path, epoch, steps = None, model, -1 if output_path is None else output_path, int(epoch)
        call = Call(output_path, epoch, steps)
        announce(self, call)
        rows, fused = [], []
        pairs = zip(self.dense_samples, self.sparse_samples, strict=True)
        progress = tqdm(pairs, desc="Evaluating", total=len(self.dense_samples), disable=not self.show_progress_bar)
        for row, (dense, sparse) in enumerate(progress):
            positive = texts_of(dense, "positive", f"sample {row} of dense_samples")
            found = [
                texts_of(dense, "documents", f"sample {row} of dense_samples"),
                texts_of(sparse, "documents", f"sample {row} of sparse_samples"),
            ]
            joint = reciprocal_rank_fusion(found, self.rrf_k)
            rows.append(
                [value for ranking in (*found, joint) for value in measure_ranking(ranking, positive, self.at_k)]
            )
            fused.append(
                {**{key: dense[key] for key in ("query_id", "query")}, "positive": positive, "documents": joint}
            )
        means = np.mean(rows, axis=0).tolist()
        names = ("map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}")
        metrics = [f"{prefix}{metric}" for prefix in ("dense_", "sparse_", "") for metric in names]
        columns = [f"{prefix}_{metric.upper()}" for prefix in ("Dense", "Sparse", "Fusion") for metric in names]
        if output_path is not None and self.write_predictions:
            write_json_lines(Path(output_path) / self.predictions_file, fused)
        return report(self, model, call, dict(zip(metrics, means, strict=True)), dict(zip(columns, means, strict=True)))

    def compute_metrics(self, y_true: Iterable[int], y_pred: Iterable[float]) -> tuple[float, float, float]:
        """Measure the candidates of one query.

        Args:
            y_true: 1 for those that are relevant, else 0.
            y_pred: Their scores; of equal ones the first comes first in the reciprocal rank (with the peer any).

        Returns:
            Reciprocal rank and nDCG of the first ``at_k``, and average precision.

        Raises:
            TypeError: If one is no number, naming the row.
            ValueError: If they are not as many or none, or one is out of range, likewise.
        """
        labels, scores = check_labels("y_true", y_true), check_numbers("y_pred", y_pred)
        check_lengths({"y_true": labels.tolist(), "y_pred": scores.tolist()})
        if not len(scores):
            raise ValueError("y_pred must not be empty")
        ranks = reciprocal_rank(scores, labels, self.at_k), ndcg(scores, labels, self.at_k)
        return *ranks, average_precision(scores, labels)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"at_k": self.at_k, "rrf_k": self.rrf_k, "write_predictions": self.write_predictions}


def measure_ranking(ranked: Sequence[Hashable], relevant: Sequence[Hashable], k: int) -> tuple[float, float, float]:
    """Return average precision, reciprocal rank and nDCG of a ranking; relevant documents it lacks come at its end.

    Args:
        ranked: Documents, best first.
        relevant: All relevant documents.
        k: How many places count for the latter two.
    """
    wanted = set(relevant)
    hits = [int(document in wanted) for document in ranked]
    if not any(hits):
        return 0.0, 0.0, 0.0
    labels = np.array(hits + [1] * (len(relevant) - sum(hits)), dtype=np.int64)
    scores = -np.arange(len(labels), dtype=np.float64)
    return average_precision(scores, labels), reciprocal_rank(scores, labels, k), ndcg(scores, labels, k)
