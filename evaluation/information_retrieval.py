"""How well a model finds the relevant documents of a corpus; knows how to ask a model, not what it is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.base import BaseEvaluator
from sparse_encoder.evaluation.cutoffs import Cutoffs, Scores
from sparse_encoder.evaluation.ranking import EMPTY, Ranking, ScoreFunction, merge, rank_all
from sparse_encoder.evaluation.result_files import append_row, write_json_lines
from sparse_encoder.evaluation.retrieval_model import RetrievalModel
from sparse_encoder.similarity import Embeddings, SimilarityFunction, as_embeddings

logger = logging.getLogger(__name__)


class SparseInformationRetrievalEvaluator(BaseEvaluator):
    """Search a corpus and measure where the relevant documents come.

    For every score function: accuracy, precision, recall, nDCG, MRR and MAP (:mod:`sparse_encoder.evaluation.metrics`),
    averaged over the queries; and of queries and corpus the mean number of active terms, the share of terms that are
    not, and ``avg_flops``, the multiplications that a search costs per query and document. All documents are ranked,
    by falling score and rising id. The primary metric is ``{score function}_ndcg@{largest k}``.

    With an ``output_path`` a row is added to ``Information-Retrieval_evaluation[_{name}]_results.csv``.

    Args:
        queries: Texts by id; queries without relevant documents are left out.
        corpus: Texts by id.
        relevant_docs: Ids of the relevant documents by id of the query.
        corpus_chunk_size: Documents that are encoded and searched at a time; it changes no result.
        mrr_at_k: Ranks for the MRR, and so on.
        ndcg_at_k: At least one.
        accuracy_at_k: May be empty.
        precision_recall_at_k: May be empty.
        map_at_k: May be empty.
        show_progress_bar: Show one over chunks, and the model's.
        batch_size: Handed to the model.
        name: Starts the name of every metric and file.
        write_csv: Write the row of results.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.
        score_functions: By name; each maps two torch sparse tensors, (N, V) and (M, V), to scores (N, M). ``None`` is
            the similarity of the model of each call.
        main_score_function: Which of them the primary metric is about; ``None``: the one with the best nDCG in the
            first call.
        query_prompt: Text before each query.
        query_prompt_name: Name of a prompt of the model.
        corpus_prompt: Text before each document.
        corpus_prompt_name: Name of a prompt of the model.
        write_predictions: Also write the rankings to ``..._predictions_{score function}.jsonl``.

    Raises:
        ValueError: If there is no query with relevant documents, no document, or a number below 1.
    """

    def __init__(  # house: peer signature
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, Collection[str]],
        corpus_chunk_size: int = 50000,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        max_active_dims: int | None = None,
        score_functions: Mapping[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        self.queries_ids = [query for query in queries if relevant_docs.get(query)]
        self.queries = [queries[query] for query in self.queries_ids]
        self.corpus_ids, self.corpus = list(corpus), list(corpus.values())
        self.relevant_docs = {query: set(relevant_docs[query]) for query in self.queries_ids}
        if not self.queries or not self.corpus:
            raise ValueError(
                f"there must be queries with relevant documents and a corpus, got {len(self.queries)} such queries of "
                f"{len(queries)} and {len(self.corpus)} documents"
            )
        if corpus_chunk_size < 1:
            raise ValueError(f"corpus_chunk_size must be at least 1, got {corpus_chunk_size}")
        self.corpus_chunk_size = corpus_chunk_size
        self.cutoffs = Cutoffs(
            accuracy=tuple(accuracy_at_k),
            precision_recall=tuple(precision_recall_at_k),
            mrr=tuple(mrr_at_k),
            ndcg=tuple(ndcg_at_k),
            map=tuple(map_at_k),
        )
        self.show_progress_bar, self.batch_size = show_progress_bar, batch_size
        self.name = name
        self.write_csv, self.write_predictions = write_csv, write_predictions
        self.max_active_dims = max_active_dims
        self.score_functions = None if score_functions is None else dict(score_functions)
        self.main_score_function = _name_of(main_score_function)
        if self.score_functions is not None:
            self._check_main(self.score_functions)
        self.query_prompt, self.query_prompt_name = query_prompt, query_prompt_name
        self.corpus_prompt, self.corpus_prompt_name = corpus_prompt, corpus_prompt_name
        stem = f"Information-Retrieval_evaluation_{name}" if name else "Information-Retrieval_evaluation"
        self.csv_file, self.predictions_file = f"{stem}_results.csv", f"{stem}_predictions.jsonl"
        self.sparsity_stats: dict[str, float] = {}
        self._measured: list[str] = []  # the score functions that the primary metric was chosen from

    def __call__(  # house: peer signature
        self,
        model: RetrievalModel,
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
        corpus_model: RetrievalModel | None = None,
        corpus_embeddings: Embeddings | None = None,
    ) -> dict[str, float]:
        """Measure a model.

        Args:
            model: Encodes the queries, and the corpus if nothing else does.
            output_path: Folder for files, made if it does not exist; ``None`` writes nothing.
            epoch: For the row of results.
            steps: For the row of results.
            corpus_model: Encodes the corpus.
            corpus_embeddings: The corpus encoded already, (number of documents, V), in its order.

        Returns:
            Metrics by name.

        Raises:
            ValueError: If the main score function is not there, or the corpus has another number of embeddings.
        """
        logger.info("Information retrieval on %s%s:", self.name or "a corpus", _moment(epoch, steps))
        scores = self.compute_all_metrics(model, corpus_model, corpus_embeddings, output_path)
        if output_path is not None and self.write_csv:
            headers = [column for function in scores for column in self.cutoffs.columns(function)]
            values = [value for function in scores.values() for value in self.cutoffs.row(function)]
            append_row(
                Path(output_path) / self.csv_file,
                ["epoch", "steps", *headers, *self.sparsity_stats],
                [epoch, steps, *values, *self.sparsity_stats.values()],
            )
        self._choose_primary(scores)
        metrics = {
            f"{function}_{metric.replace('@k', f'@{k}')}": value
            for function, by_metric in scores.items()
            for metric, by_k in by_metric.items()
            for k, value in by_k.items()
        }
        metrics = self.prefix_name_to_metrics({**metrics, **self.sparsity_stats}, self.name)
        for metric, value in metrics.items():
            logger.info("%s: %.4f", metric, value)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def compute_all_metrics(
        self,
        model: RetrievalModel,
        corpus_model: RetrievalModel | None = None,
        corpus_embeddings: Embeddings | None = None,
        output_path: str | None = None,
    ) -> dict[str, Scores]:
        """Measure a model without a row of results; arguments as in :meth:`__call__`.

        Returns:
            By score function, by metric (``ndcg@k``) and by k. Active terms are kept in ``sparsity_stats``.
        """
        functions = self._functions_of(model)
        rankings = self._rank(model, model if corpus_model is None else corpus_model, corpus_embeddings, functions)
        by_rank = sorted(self.corpus_ids)
        results = {
            name: [[by_rank[rank] for rank in ranking.positions.tolist()] for ranking in found]
            for name, found in rankings.items()
        }
        if output_path is not None and self.write_predictions:
            for name, found in rankings.items():
                path = Path(output_path) / self.predictions_file.replace(".jsonl", f"_{name}.jsonl")
                write_json_lines(path, map(_prediction, self.queries_ids, self.queries, results[name], found))
        relevant = [self.relevant_docs[query] for query in self.queries_ids]
        return {name: self.cutoffs.measure(results[name], relevant) for name in sorted(functions)}

    def _functions_of(self, model: RetrievalModel) -> dict[str, ScoreFunction]:
        """Return the score functions of this call by name."""
        if self.score_functions is not None:
            return self.score_functions
        functions = {str(model.similarity_fn_name): model.similarity}
        self._check_main(functions)
        return functions

    def _check_main(self, functions: Mapping[str, object]) -> None:
        if not functions:
            raise ValueError("score_functions must not be empty; None takes the model's similarity")
        if self.main_score_function is not None and self.main_score_function not in functions:
            raise ValueError(
                f"main_score_function must be one of {sorted(functions)}, got {self.main_score_function!r}"
            )

    def _rank(
        self,
        model: RetrievalModel,
        corpus_model: RetrievalModel,
        corpus_embeddings: Embeddings | None,
        functions: Mapping[str, ScoreFunction],
    ) -> dict[str, list[Ranking]]:
        """Rank the corpus for every query, chunk by chunk; a document's position is the place of its id when sorted."""
        queries = self._embed(model.encode_query, self.queries, self.query_prompt_name, self.query_prompt)
        encoded = None if corpus_embeddings is None else _as_sparse(corpus_embeddings)
        if encoded is not None and len(encoded) != len(self.corpus):
            raise ValueError(f"there must be {len(self.corpus)} corpus_embeddings, got {len(encoded)}")
        place = np.empty(len(self.corpus), dtype=np.int64)
        place[sorted(range(len(self.corpus)), key=self.corpus_ids.__getitem__)] = np.arange(len(self.corpus))
        best = {name: [EMPTY] * len(self.queries) for name in functions}
        corpus_terms = ActiveTerms()
        starts = range(0, len(self.corpus), self.corpus_chunk_size)
        for start in tqdm(starts, desc="Corpus Chunks", disable=not self.show_progress_bar):
            chunk = slice(start, start + self.corpus_chunk_size)
            documents = (
                self._embed(
                    corpus_model.encode_document, self.corpus[chunk], self.corpus_prompt_name, self.corpus_prompt
                )
                if encoded is None
                else encoded[chunk]
            )
            corpus_terms.add(documents)
            order = np.argsort(place[chunk])
            sorted_documents, places = documents[torch.from_numpy(order)], place[chunk][order]
            for name, function in functions.items():
                similarity = name if self.score_functions is None else None
                found = rank_all(queries, sorted_documents, self.cutoffs.deepest, function, similarity)
                moved = [Ranking(places[ranking.positions], ranking.scores) for ranking in found]
                best[name] = [merge(*pair, self.cutoffs.deepest) for pair in zip(best[name], moved, strict=True)]
        self._note_terms(queries, corpus_terms)
        return best

    def _embed(
        self, encode: Callable[..., Embeddings], texts: list[str], prompt_name: str | None, prompt: str | None
    ) -> SparseEmbeddings:
        return _as_sparse(
            encode(
                texts,
                prompt_name=prompt_name,
                prompt=prompt,
                batch_size=self.batch_size,
                show_progress_bar=self.show_progress_bar,
                max_active_dims=self.max_active_dims,
            )
        )

    def _note_terms(self, queries: SparseEmbeddings, corpus_terms: ActiveTerms) -> None:
        query_terms = ActiveTerms()
        query_terms.add(queries)
        self.sparsity_stats = {
            "query_active_dims": query_terms.active_dims,
            "query_sparsity_ratio": query_terms.sparsity_ratio,
            "corpus_active_dims": corpus_terms.active_dims,
            "corpus_sparsity_ratio": corpus_terms.sparsity_ratio,
            "avg_flops": query_terms.flops(corpus_terms),
        }

    def _choose_primary(self, scores: Mapping[str, Scores]) -> None:
        """Choose the primary metric in the first call, and again if a model brings another similarity."""
        if self.primary_metric is not None and self._measured == list(scores):
            return
        self._measured = list(scores)
        k = max(self.cutoffs.ndcg)
        name = self.main_score_function or max(scores, key=lambda function: scores[function]["ndcg@k"][k])
        self.primary_metric = f"{name}_ndcg@{k}"

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        names = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name", "max_active_dims")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _name_of(function: str | SimilarityFunction | None) -> str | None:
    return function.value if isinstance(function, SimilarityFunction) else function


def _as_sparse(embeddings: Embeddings) -> SparseEmbeddings:
    rows = as_embeddings(embeddings)
    return SparseEmbeddings.from_dense(rows) if isinstance(rows, Tensor) else rows


def _prediction(query_id: str, query: str, documents: Sequence[str], ranking: Ranking) -> dict[str, object]:
    hits = zip(documents, ranking.scores.tolist(), strict=True)
    results = [{"corpus_id": document, "score": score} for document, score in hits]
    return {"query_id": query_id, "query": query, "results": results}


def _moment(epoch: float, steps: int) -> str:
    """Say when in training this is."""
    if epoch == -1:
        return ""
    return f" after epoch {epoch}" if steps == -1 else f" in epoch {epoch} after {steps} steps"
