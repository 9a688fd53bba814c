"""How well a model finds the relevant documents of a corpus; knows how to ask a model, not what it is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite, log2
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sparse_encoder.csr import NotFiniteError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.checks import check_dict, check_ids_and_texts, check_lengths
from sparse_encoder.evaluation.corpus_ranking import CorpusRanking
from sparse_encoder.evaluation.cutoffs import Cutoffs, Scores, WithCutoffs
from sparse_encoder.evaluation.embedding import EncodeOptions, as_sparse, check_finite
from sparse_encoder.evaluation.encoding_evaluator import EncodingEvaluator, embed_finite
from sparse_encoder.evaluation.judgements import Judgements, read_judgements
from sparse_encoder.evaluation.ranking import ScoreFunction
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.result_files import write_json_lines
from sparse_encoder.evaluation.retrieval_model import RetrievalModel
from sparse_encoder.evaluation.samples import check_rank
from sparse_encoder.similarity import Embeddings, SimilarityFunction

logger = logging.getLogger(__name__)


class SparseInformationRetrievalEvaluator(EncodingEvaluator, WithCutoffs):
    """Search a corpus and measure where the relevant documents come.

    For every score function: accuracy, precision, recall, nDCG, MRR and MAP (:mod:`sparse_encoder.evaluation.metrics`),
    averaged over the queries; and of queries and corpus the mean number of active terms, the share of terms that are
    not, and ``avg_flops``, the multiplications that a search costs per query and document. All documents are ranked,
    by falling score and rising id. The primary metric is ``{score function}_ndcg@{largest k}``.

    What the peer does not have, and neither the table nor the model's card is told: ``postings_per_query``, the
    postings of an index over the corpus that a query touches, and ``milliseconds_per_query``, the time of a search.

    With an ``output_path`` a row is added to ``Information-Retrieval_evaluation[_{name}]_results.csv``.

    Args:
        queries: Texts by id; queries without judgements are left out.
        corpus: Texts by id.
        relevant_docs: Ids of the relevant documents by id of the query, or their grades by id, which are the gains of
            nDCG; a grade of 0 or less is not relevant, and a query with no other grades counts 0, as in trec_eval and
            ``sparse-encoder evaluate``. (The peer knows no grades.)
        corpus_chunk_size: Documents that are encoded and searched at a time, in the order of their ids; it changes no
            result.
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
        skip_own_id: Leave a document with the query's own id out of its ranking, as BEIR does where queries are taken
            from the corpus.
        allow_unknown: Leave out judgements of unknown queries, and take unknown documents as relevant but never found,
            both as the peer does. Else they are errors.

    Raises:
        TypeError: If a text is no text or a grade no number, naming its id.
        ValueError: If there is no judged query, no document, an id that is not there, a grade that is not finite or
            above 2**53, or a number below 1.
    """

    def __init__(  # house: peer signature
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Judgements,
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
        *,
        skip_own_id: bool = False,
        allow_unknown: bool = False,
    ) -> None:
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        check_dict("queries", queries)
        check_dict("corpus", corpus)
        _check_sizes(len(queries), len(queries), len(corpus))
        self.relevant_docs = read_judgements(relevant_docs, queries, corpus, allow_unknown=allow_unknown)
        self.queries_ids = list(self.relevant_docs)
        self.queries = [queries[query] for query in self.queries_ids]
        self.corpus_ids, self.corpus = list(corpus), list(corpus.values())
        _check_sizes(len(self.queries), len(queries), len(corpus))
        check_ids_and_texts("queries", self.queries_ids, self.queries)
        check_ids_and_texts("corpus", self.corpus_ids, self.corpus)
        self.corpus_chunk_size = check_rank("corpus_chunk_size", corpus_chunk_size)
        self.cutoffs = Cutoffs.of(accuracy_at_k, precision_recall_at_k, mrr_at_k, ndcg_at_k, map_at_k)
        self.name, self.skip_own_id = name, skip_own_id
        self.write_csv, self.write_predictions = write_csv, write_predictions
        self.score_functions = None if score_functions is None else dict(score_functions)
        self.main_score_function = _name_of(main_score_function)
        if self.score_functions is not None:
            self._check_main(self.score_functions)
        self.query_prompt, self.query_prompt_name = query_prompt, query_prompt_name
        self.corpus_prompt, self.corpus_prompt_name = corpus_prompt, corpus_prompt_name
        stem = f"Information-Retrieval_evaluation_{name}" if name else "Information-Retrieval_evaluation"
        self.csv_file, self.predictions_file = f"{stem}_results.csv", f"{stem}_predictions.jsonl"
        self.active_terms: dict[str, ActiveTerms] = {}
        self.measured_functions: list[str] = []  # of the last call

    @property
    def score_function_names(self) -> list[str]:
        """Names of the score functions; of the last call, if they are those of models."""
        return sorted(self.measured_functions if self.score_functions is None else self.score_functions)

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
        call = Call(output_path, epoch, steps)
        announce(self, call)
        scores = self.compute_all_metrics(model, corpus_model, corpus_embeddings, output_path)
        self._choose_primary(scores)
        metrics = {
            f"{function}_{metric.replace('@k', f'@{k}')}": value
            for function, by_metric in scores.items()
            for metric, by_k in by_metric.items()
            for k, value in by_k.items()
        }
        columns: dict[str, float] = {}
        for function in sorted(scores):
            columns |= zip(self.cutoffs.columns(function), self.cutoffs.row(scores[function]), strict=True)
        sparsity = self.sparsity_stats
        return report(self, model, call, metrics | sparsity, columns | sparsity, costs=self.costs)

    def compute_all_metrics(
        self,
        model: RetrievalModel,
        corpus_model: RetrievalModel | None = None,
        corpus_embeddings: Embeddings | None = None,
        output_path: str | None = None,
    ) -> dict[str, Scores]:
        """Measure a model without a row of results; arguments as in :meth:`__call__`.

        Returns:
            By score function, by metric (``ndcg@k``) and by k. Active terms are kept in ``sparsity_stats``, costs in
            ``costs``.
        """
        ranking = self._rank(model, corpus_model, corpus_embeddings)
        without = self.queries_ids if self.skip_own_id else None
        if output_path is not None and self.write_predictions:
            for name in ranking.rankings:
                path = Path(output_path) / self.predictions_file.replace(".jsonl", f"_{name}.jsonl")
                runs = ranking.runs(name, without)
                write_json_lines(path, map(_prediction, self.queries_ids, self.queries, runs))
        relevant = self.relevant_docs.values()
        return {name: self.cutoffs.measure(ranking.ids(name, without), relevant) for name in ranking.rankings}

    def compute_metrics(self, queries_result_list: Sequence[Sequence[Mapping[str, Any]]]) -> Scores:
        """Measure rankings that come from elsewhere.

        Args:
            queries_result_list: For each query of ``queries_ids`` its documents, dicts of ``corpus_id`` and ``score``,
                in any order; equal scores are ranked by rising id.

        Returns:
            By metric (``ndcg@k``) and by k.

        Raises:
            ValueError: If there are not as many rankings as queries, or a score is not finite, naming its document.
        """
        check_lengths({"queries_ids": self.queries_ids, "queries_result_list": queries_result_list})
        for query, hits in zip(self.queries_ids, queries_result_list, strict=True):
            for place, hit in enumerate(hits):
                if not {"corpus_id", "score"} <= hit.keys():
                    raise ValueError(f"hits must have corpus_id and score, that at {place} of query {query!r} is {hit}")
                if not isfinite(hit["score"]):
                    document, score = hit["corpus_id"], hit["score"]
                    raise ValueError(f"scores must be finite, query {query!r} gives document {document!r} {score}")
        ordered = (sorted(hits, key=lambda hit: (-hit["score"], hit["corpus_id"])) for hits in queries_result_list)
        return self.cutoffs.measure(
            ([hit["corpus_id"] for hit in hits] for hits in ordered), self.relevant_docs.values()
        )

    @staticmethod
    def compute_dcg_at_k(relevances: Sequence[float], k: int) -> float:
        """Return the discounted gain of the first k of a ranking, given the gains of all."""
        return sum((gain / log2(rank + 1) for rank, gain in enumerate(relevances[:k], start=1)), 0.0)

    def output_scores(self, scores: Scores) -> None:
        """Log what :meth:`compute_metrics` returned."""
        for title, metric, k in self.cutoffs.order():
            logger.info("%s@%d: %.4f", title, k, scores[metric][k])

    def search(
        self,
        model: RetrievalModel,
        corpus_model: RetrievalModel | None = None,
        corpus_embeddings: Embeddings | None = None,
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Rank the corpus for every query; arguments as in :meth:`__call__`.

        Returns:
            By score function a run: by id of the query the scores of its best documents by id, best first.
        """
        ranking = self._rank(model, corpus_model, corpus_embeddings)
        without = self.queries_ids if self.skip_own_id else None
        return {
            name: dict(zip(self.queries_ids, ranking.runs(name, without), strict=True)) for name in ranking.rankings
        }

    def _rank(
        self, model: RetrievalModel, corpus_model: RetrievalModel | None, corpus_embeddings: Embeddings | None
    ) -> CorpusRanking:
        """Rank the corpus, and keep what that costs."""
        name, prompt = self.query_prompt_name, self.query_prompt
        ask = partial(self.embed_inputs, model, encode_fn_name="query", prompt_name=name, prompt=prompt)
        queries = embed_finite(ask, self.queries, _named("query", self.queries_ids))
        order = sorted(range(len(self.corpus)), key=self.corpus_ids.__getitem__)
        ranking = CorpusRanking(
            queries,
            self.queries_ids,
            [self.corpus_ids[row] for row in order],
            self._functions_of(model),
            top_k=self.cutoffs.deepest + self.skip_own_id,
            named=self.score_functions is None,
        )
        encoder = model if corpus_model is None else corpus_model
        encoded = None if corpus_embeddings is None else self._given(corpus_embeddings)
        name, prompt = self.corpus_prompt_name, self.corpus_prompt
        read = partial(self.embed_inputs, encoder, encode_fn_name="document", prompt_name=name, prompt=prompt)
        starts = range(0, len(self.corpus), self.corpus_chunk_size)
        for start in tqdm(starts, desc="Corpus Chunks", disable=not self.show_progress_bar):
            rows = order[start : start + self.corpus_chunk_size]
            if encoded is None:
                names = _named("document", [self.corpus_ids[row] for row in rows])
                found = embed_finite(read, [self.corpus[row] for row in rows], names)
            else:
                in_order = rows == list(range(rows[0], rows[0] + len(rows)))
                found = encoded[rows[0] : rows[0] + len(rows)] if in_order else encoded[rows]  # a view, or a copy
            ranking.add(found)
        self.active_terms = {"query": ranking.query_terms, "corpus": ranking.corpus_terms}
        self.sparsity_stats, self.costs = ranking.sparsity(), ranking.costs()
        return ranking

    def _given(self, corpus_embeddings: Embeddings) -> SparseEmbeddings:
        """Check the embeddings of the corpus that a user has."""
        try:
            encoded = as_sparse(corpus_embeddings)
        except NotFiniteError as error:
            name = "" if error.row is None or error.row >= len(self.corpus) else f" of {self.corpus_ids[error.row]!r}"
            raise ValueError(f"corpus_embeddings must be finite, those{name} are not: {error}") from error
        if len(encoded) != len(self.corpus):
            raise ValueError(f"there must be {len(self.corpus)} corpus_embeddings, got {len(encoded)}")
        check_finite(encoded, _named("document", self.corpus_ids))
        return encoded

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

    def _choose_primary(self, scores: Mapping[str, Scores]) -> None:
        """Choose the primary metric in the first call, and again if a model brings another similarity."""
        if self.primary_metric is not None and self.measured_functions == list(scores):
            return
        self.measured_functions = list(scores)
        k = max(self.cutoffs.ndcg)
        name = self.main_score_function or max(sorted(scores), key=lambda function: scores[function]["ndcg@k"][k])
        self.primary_metric = f"{name}_ndcg@{k}"

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        names = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")
        prompts = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**prompts, **self.options.settings()}


def _check_sizes(num_judged: int, num_queries: int, num_documents: int) -> None:
    """Refuse to measure nothing; asked before judgements are read too, as those name nothing then."""
    if not num_judged or not num_documents:
        raise ValueError(
            f"there must be queries with judgements and a corpus, got {num_judged} such queries of {num_queries} and "
            f"{num_documents} documents"
        )


def _name_of(function: str | SimilarityFunction | None) -> str | None:
    return function.value if isinstance(function, SimilarityFunction) else function


def _named(what: str, ids: Sequence[str]) -> Callable[[int], str]:
    """Say what a row of embeddings is."""
    return lambda row: f"{what} {ids[row]!r}"


def _prediction(query_id: str, query: str, run: Mapping[str, float]) -> dict[str, object]:
    results = [{"corpus_id": document, "score": score} for document, score in run.items()]
    return {"query_id": query_id, "query": query, "results": results}
