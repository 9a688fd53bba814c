"""How well a model sorts the candidates of each query."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from tqdm import tqdm

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.embedding import EncodeOptions
from sparse_encoder.evaluation.encoding_evaluator import Encoding, EncodingEvaluator
from sparse_encoder.evaluation.pairs_metrics import Labels, Scores, average_precision
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import RetrievalModel
from sparse_encoder.evaluation.samples import Sample, check_rank, check_samples, texts_of
from sparse_encoder.evaluation.scored_metrics import ndcg, reciprocal_rank
from sparse_encoder.similarity import cos_sim

logger = logging.getLogger(__name__)


class _Candidates(NamedTuple):
    """A query, its texts, the relevant ones first, and how many of them are relevant."""

    query: str
    documents: list[str]
    num_relevant: int


class SparseRerankingEvaluator(EncodingEvaluator):
    """Score the positive and negative documents of each query and measure where the positive ones come.

    ``map`` over all candidates, ``mrr@k`` and ``ndcg@k``, the primary metric; ``active_dims`` and ``sparsity_ratio`` of
    queries and documents. Documents of equal score share their places in ``map`` and ``ndcg@k``; in ``mrr@k`` the
    positive ones come first, as with the peer. What the peer does not have, and neither the table nor the model's card
    is told: ``avg_flops``, the terms that a query and a document share by chance, ``postings_per_query``, the postings
    that a query touches in an index of its candidates, ``milliseconds_per_query`` of scoring them, and
    ``milliseconds_per_text``, the time to encode a query or a document.

    With an ``output_path`` a row is added to ``RerankingEvaluator[_{name}]_results_@{k}.csv``.

    Args:
        samples: Dicts of ``query``, ``positive`` and ``negative``, the latter a text or a list of texts; or a dict of
            them. Those without a positive or without a negative are left out.
        at_k: How many places count for MRR and nDCG.
        name: Starts the name of every metric and is part of that of the file.
        write_csv: Write the row of results.
        similarity_fct: Scores a query, (1, V), with its documents, (M, V), both torch sparse tensors.
        batch_size: Handed to the model.
        show_progress_bar: Handed to the model; without ``use_batched_encoding`` one over samples.
        use_batched_encoding: Encode all samples at once; false takes less memory and more time. The means of
            documents are then over samples, not over documents.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.
        mrr_at_k: The former name of ``at_k``, which it replaces.

    Raises:
        TypeError: If a sample is no dict, a text no text, or ``similarity_fct`` no function.
        ValueError: If a sample lacks a column, no sample is left, or ``at_k`` is below 1.
    """

    def __init__(  # house: peer signature
        self,
        samples: Iterable[Sample] | Mapping[str, Sample],
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: Callable[[Any, Any], Tensor] = cos_sim,  # Any: torch sparse tensors
        batch_size: int = 64,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
        max_active_dims: int | None = None,
        mrr_at_k: int | None = None,
    ) -> None:
        if mrr_at_k is not None:
            logger.warning("mrr_at_k is deprecated, use at_k=%s", mrr_at_k)
        self.at_k = check_rank("at_k", at_k if mrr_at_k is None else mrr_at_k)
        if not callable(similarity_fct):
            raise TypeError(f"similarity_fct must be a function, got {similarity_fct!r}")
        rows = check_samples("samples", samples, ("query", "positive", "negative"))
        listed = [_listed(sample, f"sample {row}") for row, sample in enumerate(rows)]
        self.samples = [sample for sample in listed if sample["positive"] and sample["negative"]]
        if not self.samples:
            raise ValueError(f"there must be a sample with positive and negative documents, got none in {len(rows)}")
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        self.name, self.write_csv, self.similarity_fct = name, write_csv, similarity_fct
        self.use_batched_encoding = use_batched_encoding
        self.csv_file = f"RerankingEvaluator{'_' + name if name else ''}_results_@{self.at_k}.csv"
        self.primary_metric = f"ndcg@{self.at_k}"

    def __call__(
        self, model: RetrievalModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`."""
        call = Call(output_path, epoch, steps)
        announce(self, call)
        means, k = self.compute_metrics(model).values(), self.at_k
        metrics = dict(zip(("map", f"mrr@{k}", f"ndcg@{k}"), means, strict=True))
        columns = dict(zip(("MAP", f"MRR@{k}", f"NDCG@{k}"), means, strict=True))
        terms = self.sparsity_stats
        return report(self, model, call, metrics | terms, columns | terms, costs=self.costs)

    def compute_metrics(self, model: RetrievalModel) -> dict[str, float]:
        """Measure a model without a row of results, as ``use_batched_encoding`` says.

        Returns:
            ``map``, ``mrr`` and ``ndcg``. Active terms are kept in ``sparsity_stats``, costs in ``costs``.
        """
        batched = self.use_batched_encoding
        return self.compute_metrics_batched(model) if batched else self.compute_metrics_individual(model)

    def compute_metrics_batched(self, model: RetrievalModel) -> dict[str, float]:
        """Measure a model, encoding all samples at once; result as of :meth:`compute_metrics`."""
        return self._measure_groups(model, [self._candidates()])

    def compute_metrics_individual(self, model: RetrievalModel) -> dict[str, float]:
        """Measure a model, encoding sample by sample; result as of :meth:`compute_metrics`."""
        groups = [[sample] for sample in self._candidates()]
        shown, quiet = self.options, replace(self.options, show_progress_bar=False)
        self.options = quiet  # one bar is enough
        try:
            return self._measure_groups(model, tqdm(groups, desc="Samples", disable=not shown.show_progress_bar))
        finally:
            self.options = shown

    def _candidates(self) -> list[_Candidates]:
        return [
            _Candidates(sample["query"], sample["positive"] + sample["negative"], len(sample["positive"]))
            for sample in self.samples
        ]

    def _measure_groups(self, model: RetrievalModel, groups: Iterable[list[_Candidates]]) -> dict[str, float]:
        """Measure samples group by group, and keep active terms and costs."""
        encode = Encoding(self, model)
        query_terms, document_terms = [ActiveTerms()], [ActiveTerms()]  # of all, then of each group
        rows, seconds, postings = [], 0.0, 0
        for group in groups:
            queries = encode("the queries", [sample.query for sample in group], "query")
            texts = [text for sample in group for text in sample.documents]
            documents = encode("the documents", texts, "document")
            for terms, embeddings in ((query_terms, queries), (document_terms, documents)):
                terms.append(ActiveTerms())
                terms[0].add(embeddings)
                terms[-1].add(embeddings)
            started = time.perf_counter()
            rows += self._measure(group, queries, documents)
            seconds += time.perf_counter() - started
            postings += _postings(group, queries, documents)
        self.sparsity_stats = {**_mean_terms(query_terms[1:], "query"), **_mean_terms(document_terms[1:], "corpus")}
        self.costs = {
            "avg_flops": query_terms[0].flops(document_terms[0]),
            "postings_per_query": postings / len(rows),
            "milliseconds_per_query": 1000 * seconds / len(rows),
            **encode.costs(),
        }
        return dict(zip(("map", "mrr", "ndcg"), np.mean(rows, axis=0).tolist(), strict=True))

    def _measure(
        self, samples: Sequence[_Candidates], queries: SparseEmbeddings, documents: SparseEmbeddings
    ) -> list[tuple[float, float, float]]:
        """Return average precision, reciprocal rank and nDCG of each sample."""
        rows, start = [], 0
        for row, sample in enumerate(samples):
            candidates = documents[start : start + len(sample.documents)]
            start += len(sample.documents)
            scores = self._score(queries[row : row + 1], candidates, sample)
            relevant: Labels = (np.arange(len(scores)) < sample.num_relevant).astype(np.int64)
            rows.append(
                (
                    average_precision(scores, relevant),
                    reciprocal_rank(scores, relevant, self.at_k),
                    ndcg(scores, relevant, self.at_k),
                )
            )
        return rows

    def _score(self, query: SparseEmbeddings, documents: SparseEmbeddings, sample: _Candidates) -> Scores:
        """Score the candidates of a query, (M)."""
        found = self.similarity_fct(query.to_torch(), documents.to_torch()).detach()
        scores = found.to_dense().reshape(-1).float().cpu().numpy()
        if len(scores) != len(documents):
            raise ValueError(
                f"similarity_fct must score {len(documents)} documents of one query, "
                f"got scores of shape {tuple(found.shape)}"
            )
        finite: Scores = scores
        for place in np.flatnonzero(~np.isfinite(finite)):
            raise ValueError(
                f"similarity_fct must return finite scores, query {sample.query!r} and document "
                f"{sample.documents[place]!r} have {finite[place]}"
            )
        return finite

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"at_k": self.at_k, **self.options.settings()}


def _listed(sample: Sample, where: str) -> dict[str, Any]:  # Any: a sample may have other columns
    """Return a sample whose documents are lists."""
    query = sample["query"]
    if not isinstance(query, str):
        raise TypeError(f"query must be a text, {where} has {query!r} ({type(query).__name__})")
    return {**sample, **{column: texts_of(sample, column, where) for column in ("positive", "negative")}}


def _postings(samples: Sequence[_Candidates], queries: SparseEmbeddings, documents: SparseEmbeddings) -> int:
    """Count the entries of each sample's documents, (M, V), whose terms its query has, a row of (N, V)."""
    asked, held = queries.to_scipy().astype(bool), documents.to_scipy().astype(bool)
    of = np.repeat(np.arange(len(samples)), [len(sample.documents) for sample in samples])
    return int(asked[of].multiply(held).sum())


def _mean_terms(groups: Sequence[ActiveTerms], prefix: str) -> dict[str, float]:
    """Return the means over groups of their means."""
    return {
        f"{prefix}_active_dims": sum(terms.active_dims for terms in groups) / len(groups),
        f"{prefix}_sparsity_ratio": sum(terms.sparsity_ratio for terms in groups) / len(groups),
    }
