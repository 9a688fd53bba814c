"""``sparse-encoder evaluate MODEL COLLECTION``: how well a model finds what is relevant, and what that costs.

Started by ``torchrun``, all processes encode, and the first one does the rest: the figures are those of one process.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from torch import nn

from sparse_encoder.checkpoint import write_json
from sparse_encoder.cli.collection_options import (
    BM25_NAME,
    Evaluated,
    add_collection_options,
    add_metrics_option,
    chosen_metrics,
    encode,
    new_output,
    open_both,
    open_model,
)
from sparse_encoder.cli.figures import comparison_table, figures_table
from sparse_encoder.cli.measuring import milliseconds_per_query
from sparse_encoder.cli.processes import made_by_all, num_processes, process_group
from sparse_encoder.evaluation.collection_search import DEPTH, SearchCost, search_collection, search_cost
from sparse_encoder.evaluation.collections import Collection
from sparse_encoder.evaluation.run_metrics import PerQuery, deepest, means, measure_run
from sparse_encoder.evaluation.significance import Comparison, compare
from sparse_encoder.evaluation.trec_files import Run, check_names, read_run, write_run
from sparse_encoder.model import SparseEncoder
from sparse_encoder.search import SparseIndex

RESULTS, RUN = "results.json", "run.trec"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which options there are."""
    add_collection_options(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"write {RESULTS} and {RUN}, the rankings in TREC's form, into DIR"
    )
    add_metrics_option(parser)
    parser.add_argument(
        "--baseline", type=Path, metavar="RUN", help="run file in TREC's form to compare with, by two paired tests"
    )


def run(options: argparse.Namespace) -> None:
    """Read, encode, search, measure, compare and write; with all processes there are.

    Raises:
        ValueError: If an option is out of range, a metric unknown, the collection cannot be measured or the baseline
            is of another one.
        FileNotFoundError: If a model, a collection or a run is not there.
        FileExistsError: If the output folder holds other files.
        NotADirectoryError: If a folder to write to cannot be made.
        PermissionError: If it cannot be written to.
    """
    if num_processes() == 1:
        _evaluate(options, None)
        return
    from sparse_encoder.training.shared_evaluation import evaluate_together  # takes long to import

    with process_group():
        model = None if options.model == BM25_NAME else made_by_all(lambda: open_model(options))
        evaluate_together(lambda: _evaluate(options, model), model or nn.Identity())


def _evaluate(options: argparse.Namespace, opened: SparseEncoder | None) -> None:
    """Do all of it, with the model that is open already, if any."""
    metrics = chosen_metrics(options)
    top_k = max(DEPTH, deepest(metrics))
    output = new_output(options.output, (RESULTS, RUN))
    baseline = None if options.baseline is None else read_run(options.baseline)
    evaluated = open_both(options, opened)
    if baseline is not None:
        _check_baseline(baseline, evaluated.collection)
    if output is not None:
        check_names(list(evaluated.collection.judged_queries), "the id of a query")
        check_names(list(evaluated.collection.corpus), "the id of a document")
    encoded = encode(evaluated, options)
    index = SparseIndex.build(encoded.documents, encoded.document_ids)
    found = search_collection(index, encoded.queries, encoded, top_k=top_k)
    values = measure_run(found, encoded.collection.qrels, metrics)
    cost = search_cost(index, encoded.queries, encoded.documents)
    both = milliseconds_per_query(evaluated.model, index, list(encoded.collection.judged_queries.values()))
    qrels = encoded.collection.qrels
    compared = {} if baseline is None else compare(measure_run(baseline, qrels, metrics), values)
    print(f"\n{evaluated.title}\n")
    print(figures_table(means(values), cost, both))
    if compared:
        print(f"\nagainst {options.baseline}; p-values adjusted to {len(compared)} metrics (Holm)\n")
        print(comparison_table(compared))
    if output is not None:
        _write(output, evaluated, found, results(values, cost, both, compared))


def results(
    values: PerQuery, cost: SearchCost, milliseconds: float, compared: dict[str, Comparison]
) -> dict[str, object]:
    """Return what is known as plain values.

    Args:
        values: By metric and query.
        cost: Of searches.
        milliseconds: To encode and search one query.
        compared: With a baseline, by metric; empty without one.
    """
    found: dict[str, object] = {
        "metrics": means(values),
        "cost": {**asdict(cost), "ms_per_query": milliseconds},
        "per_query": values,
    }
    if compared:
        found["baseline"] = {
            metric: {**each._asdict(), "difference": each.difference} for metric, each in compared.items()
        }
    return found


def _check_baseline(baseline: Run, collection: Collection) -> None:
    """Refuse a run that cannot be compared with, and tell of judged queries that it lacks."""
    judged = collection.qrels
    if not baseline.keys() & judged.keys():
        raise ValueError("the baseline has no query that the collection has judgements for; is it of another one?")
    strange = [query for query in baseline if query not in collection.queries]
    if strange:
        raise ValueError(
            f"the baseline has {len(strange)} queries that the collection has not, the first is {strange[0]!r}; is it "
            "of another one?"
        )
    if len(judged) < 2:
        raise ValueError("a comparison needs at least two judged queries")
    missing = [query for query in judged if query not in baseline]
    if missing:
        print(
            f"the baseline has nothing for {len(missing)} of {len(judged)} judged queries, the first is "
            f"{missing[0]!r}: there its figures are 0"
        )


def _write(output: Path, evaluated: Evaluated, found: Run, results: dict[str, object]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_run(output / RUN, found)
    write_json(output / RESULTS, {**evaluated.facts, **results})
    print(f"\nwritten: {output / RESULTS} and {output / RUN}")
