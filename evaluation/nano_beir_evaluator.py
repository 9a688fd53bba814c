"""How well a model searches the thirteen small collections of NanoBEIR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.base import BaseEvaluator
from sparse_encoder.evaluation.cutoffs import Cutoffs, WithCutoffs
from sparse_encoder.evaluation.information_retrieval import SparseInformationRetrievalEvaluator
from sparse_encoder.evaluation.nano_beir import DATASET_ID, SPLITS, check_names, load_nano
from sparse_encoder.evaluation.ranking import ScoreFunction
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import RetrievalModel
from sparse_encoder.similarity import SimilarityFunction


class SparseNanoBEIREvaluator(BaseEvaluator, WithCutoffs):
    """Search each of the NanoBEIR data sets and average what comes of it.

    The metrics of :class:`SparseInformationRetrievalEvaluator` for each data set, named ``Nano{data set}_...``, and
    their aggregate over data sets, named ``NanoBEIR_{aggregate_key}_...``; active terms, ``avg_flops`` and costs of the
    aggregate are those of all texts together. The primary metric is the aggregate of ``{score function}_ndcg@{largest
    k}``. With ``max_active_dims`` all names get ``_{max_active_dims}``.

    With an ``output_path`` a row is added to ``NanoBEIR_evaluation_{aggregate_key}_results.csv`` and to the table of
    each data set.

    Args:
        dataset_names: Some of ``climatefever dbpedia fever fiqa2018 hotpotqa msmarco nfcorpus nq quoraretrieval scidocs
            arguana scifact touche2020``; ``None`` is all.
        dataset_id: Repository on the hub, or the folder of a copy.
        mrr_at_k: Ranks for the MRR, and so on.
        ndcg_at_k: At least one.
        accuracy_at_k: May be empty.
        precision_recall_at_k: May be empty.
        map_at_k: May be empty.
        show_progress_bar: Show one over data sets, and those of each.
        batch_size: Handed to the model.
        write_csv: Write the rows of results.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.
        score_functions: As in :class:`SparseInformationRetrievalEvaluator`.
        main_score_function: Likewise; ``None``: the one with the best aggregate nDCG in the first call.
        aggregate_fn: Makes one number out of those of the data sets.
        aggregate_key: Names it.
        query_prompts: Text before each query, of all data sets or by name of the data set.
        corpus_prompts: Text before each document, likewise.
        write_predictions: Also write the rankings of each data set.
        skip_own_id: Leave a document with the query's own id out of its ranking, as BEIR does; the peer cannot.

    Raises:
        ValueError: If a data set is unknown, lacks a prompt or cannot be read.
    """

    information_retrieval_class: type[SparseInformationRetrievalEvaluator] = SparseInformationRetrievalEvaluator
    """Of the evaluators of the data sets."""

    def __init__(  # house: peer signature
        self,
        dataset_names: Iterable[str] | None = None,
        dataset_id: str = DATASET_ID,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool = False,
        batch_size: int = 32,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        score_functions: Mapping[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        aggregate_fn: Callable[[list[float]], float] = np.mean,
        aggregate_key: str = "mean",
        query_prompts: str | Mapping[str, str] | None = None,
        corpus_prompts: str | Mapping[str, str] | None = None,
        write_predictions: bool = False,
        *,
        skip_own_id: bool = False,
    ) -> None:
        self.dataset_names, self.dataset_id = check_names(dataset_names), dataset_id
        self.query_prompts = _prompts("query_prompts", query_prompts, self.dataset_names)
        self.corpus_prompts = _prompts("corpus_prompts", corpus_prompts, self.dataset_names)
        self.show_progress_bar, self.write_csv, self.aggregate_fn = show_progress_bar, write_csv, aggregate_fn
        self.max_active_dims = max_active_dims
        suffix = "" if max_active_dims is None else f"_{max_active_dims}"
        self.aggregate_key, self.name = aggregate_key, f"NanoBEIR_{aggregate_key}{suffix}"
        self.cutoffs = Cutoffs.of(accuracy_at_k, precision_recall_at_k, mrr_at_k, ndcg_at_k, map_at_k)
        self.score_functions, self.main_score_function = score_functions, main_score_function
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"
        self.evaluators = []
        for name in tqdm(self.dataset_names, desc="Loading NanoBEIR datasets", disable=not show_progress_bar):
            self.evaluators.append(
                self.information_retrieval_class(
                    *load_nano(name, dataset_id),
                    mrr_at_k=mrr_at_k,
                    ndcg_at_k=ndcg_at_k,
                    accuracy_at_k=accuracy_at_k,
                    precision_recall_at_k=precision_recall_at_k,
                    map_at_k=map_at_k,
                    show_progress_bar=show_progress_bar,
                    batch_size=batch_size,
                    name=f"{SPLITS[name.lower()]}{suffix}",
                    write_csv=write_csv,
                    max_active_dims=max_active_dims,
                    score_functions=score_functions,
                    main_score_function=main_score_function,
                    query_prompt=(self.query_prompts or {}).get(name),
                    corpus_prompt=(self.corpus_prompts or {}).get(name),
                    write_predictions=write_predictions,
                    skip_own_id=skip_own_id,
                    allow_unknown=True,  # texts that are empty
                )
            )
        self._begin()

    def _begin(self) -> None:
        """Have measured nothing yet."""
        self.sparsity_stats: dict[str, float] = {}
        self.costs: dict[str, float] = {}
        self._measured: list[str] = []  # the score functions that the primary metric was chosen from

    def __call__(
        self, model: RetrievalModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`."""
        call = Call(output_path, epoch, steps)
        announce(self, call)
        found: dict[str, float] = {}
        values: dict[str, list[float]] = {}
        for evaluator in tqdm(self.evaluators, desc="Evaluating datasets", disable=not self.show_progress_bar):
            metrics = evaluator(model, output_path, epoch, steps)
            found |= metrics
            for metric, value in metrics.items():
                values.setdefault(metric.removeprefix(f"{evaluator.name}_"), []).append(value)
        self.sparsity_stats = together = self._of_all_texts()
        self.costs, cutoffs = self._costs(), self.cutoffs
        functions = self.evaluators[0].measured_functions
        names = [name for function in functions for name in cutoffs.metric_names(function)]
        metrics = {name: float(self.aggregate_fn(values[name])) for name in names}
        self._choose_primary(metrics, functions)
        columns = {
            column: metrics[name]
            for function in sorted(functions)
            for column, name in zip(cutoffs.columns(function), cutoffs.column_metrics(function), strict=True)
        }
        return found | report(self, model, call, metrics | together, columns | together, costs=self.costs)

    @property
    def score_function_names(self) -> list[str]:
        """Names of the score functions; of the last call, if they are those of models."""
        return self.evaluators[0].score_function_names

    def _of_all_texts(self) -> dict[str, float]:
        """Return active terms of the queries and documents of all data sets."""
        queries, corpus = (
            ActiveTerms.of_all([evaluator.active_terms[kind] for evaluator in self.evaluators])
            for kind in ("query", "corpus")
        )
        return {
            "query_active_dims": queries.active_dims,
            "query_sparsity_ratio": queries.sparsity_ratio,
            "corpus_active_dims": corpus.active_dims,
            "corpus_sparsity_ratio": corpus.sparsity_ratio,
            "avg_flops": queries.flops(corpus),
        }

    def _costs(self) -> dict[str, float]:
        """Return the mean costs of all queries."""
        sizes = [len(evaluator.queries) for evaluator in self.evaluators]
        return {
            cost: float(np.average([evaluator.costs[cost] for evaluator in self.evaluators], weights=sizes))
            for cost in self.evaluators[0].costs
        }

    def _choose_primary(self, metrics: Mapping[str, float], functions: list[str]) -> None:
        """Choose the primary metric in the first call, and again if a model brings another similarity."""
        if self.primary_metric is not None and self._measured == functions:
            return
        self._measured = functions
        k = max(self.cutoffs.ndcg)
        main = self.evaluators[0].main_score_function
        best = max(sorted(functions), key=lambda name: metrics[f"{name}_ndcg@{k}"])
        self.primary_metric = f"{main or best}_ndcg@{k}"

    def store_metrics_in_model_card_data(
        self,
        model: Any,  # noqa: ANN401  (only its card is asked for)
        metrics: Mapping[str, float],
        epoch: float = 0,
        step: int = 0,
    ) -> None:
        """Hand the aggregate to the model's card, if it is one of several data sets."""
        if len(self.dataset_names) > 1:
            super().store_metrics_in_model_card_data(model, metrics, epoch, step)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        names = ("query_prompts", "corpus_prompts", "max_active_dims")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {"dataset_names": self.dataset_names, "dataset_id": self.dataset_id, **given}


def _prompts(kind: str, prompts: str | Mapping[str, str] | None, names: Sequence[str]) -> dict[str, str] | None:
    """Return the prompt of each data set.

    Raises:
        ValueError: If one has none.
    """
    if prompts is None:
        return None
    if isinstance(prompts, str):
        return dict.fromkeys(names, prompts)
    if missing := [name for name in names if name not in prompts]:
        raise ValueError(f"{kind} must have a prompt for each of the datasets, lacks {missing}")
    return dict(prompts)
