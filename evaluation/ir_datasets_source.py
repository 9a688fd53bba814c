"""Collections by their ``ir_datasets`` id; the package is an extra and fetches what it does not have."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from sparse_encoder.evaluation.collections import Collection
from sparse_encoder.evaluation.trec_files import Qrels

_BEIR = "beir/"


def read_ir_dataset(name: str, *, allow_unknown: bool = False) -> Collection:
    """Read a collection; texts are what ``default_text()`` of its documents and queries says.

    Args:
        name: Such as ``msmarco-passage/trec-dl-2019/judged`` or ``beir/scifact/test``.
        allow_unknown: As in :class:`Collection`.

    Raises:
        ImportError: If ``ir_datasets`` is not installed.
        FileNotFoundError: If it has not fetched the data yet, and cannot.
        ValueError: If it does not know the name, or the dataset lacks documents, queries or judgements, or has an id
            or a judgement twice.
    """
    try:
        ir_datasets = import_module("ir_datasets")
    except ImportError as reason:
        raise ImportError(
            f"there is no folder {name!r}; collections by id need ir_datasets: pip install 'sparse-encoder[ir]'"
        ) from reason
    try:
        dataset = ir_datasets.load(name)
    except KeyError as reason:
        raise ValueError(f"{name!r} is neither a folder nor an id that ir_datasets knows") from reason
    for what in ("docs", "queries", "qrels"):
        if not getattr(dataset, f"has_{what}")():
            raise ValueError(f"{name!r} of ir_datasets has no {what}; choose one of its parts that has them")
    try:
        corpus = _texts(dataset.docs_iter(), "doc_id", name)
        queries = _texts(dataset.queries_iter(), "query_id", name)
        qrels = _judgements(dataset.qrels_iter(), name)
    except OSError as reason:  # also what its downloads raise
        raise FileNotFoundError(f"ir_datasets cannot get {name!r}: {reason}") from reason
    return Collection(
        name=name,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        skip_own_id=name.startswith(_BEIR),
        allow_unknown=allow_unknown,
    )


def _texts(rows: Iterable[Any], field: str, name: str) -> dict[str, str]:  # Any: named tuples of ir_datasets
    texts: dict[str, str] = {}
    for row in rows:
        key = getattr(row, field)
        if key in texts:
            raise ValueError(f"{name!r} of ir_datasets has the {field} {key!r} twice")
        texts[key] = row.default_text()
    return texts


def _judgements(rows: Iterable[Any], name: str) -> Qrels:  # Any: named tuples of ir_datasets
    qrels: Qrels = {}
    for row in rows:
        grades = qrels.setdefault(row.query_id, {})
        if grades.setdefault(row.doc_id, int(row.relevance)) != int(row.relevance):
            raise ValueError(f"{name!r} of ir_datasets judges {row.doc_id!r} twice for query {row.query_id!r}")
    return qrels
