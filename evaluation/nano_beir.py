"""The data of NanoBEIR from the hub, or from a local copy of its repository; knows no model and no metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.judgements import read_judgements

DATASET_ID = "sentence-transformers/NanoBEIR-en"
SPLITS = {
    "climatefever": "NanoClimateFEVER",
    "dbpedia": "NanoDBPedia",
    "fever": "NanoFEVER",
    "fiqa2018": "NanoFiQA2018",
    "hotpotqa": "NanoHotpotQA",
    "msmarco": "NanoMSMARCO",
    "nfcorpus": "NanoNFCorpus",
    "nq": "NanoNQ",
    "quoraretrieval": "NanoQuoraRetrieval",
    "scidocs": "NanoSCIDOCS",
    "arguana": "NanoArguAna",
    "scifact": "NanoSciFact",
    "touche2020": "NanoTouche2020",
}
"""Split of each data set."""


class NanoData(NamedTuple):
    """One of the data sets.

    Attributes:
        queries: Texts by id.
        corpus: Texts by id.
        relevant_docs: Ids of relevant documents by id of the query.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, set[str]]


def check_names(names: Iterable[str] | None) -> list[str]:
    """Return the names of data sets, in any case of letters; ``None`` stands for all of them.

    Raises:
        TypeError: If it is no list of texts.
        ValueError: If it is empty, or a name is unknown or there twice.
    """
    found = list(SPLITS) if names is None else [names] if isinstance(names, str) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"dataset_names must be a list of names, got {names!r}")
    if not found:
        raise ValueError("dataset_names must not be empty; None takes all of them")
    if unknown := [name for name in found if name.lower() not in SPLITS]:
        raise ValueError(f"unknown NanoBEIR dataset_names {unknown}; choose from {list(SPLITS)}")
    if len({name.lower() for name in found}) < len(found):
        raise ValueError(f"dataset_names must be different, got {found}")
    return found


def load_nano(name: str, dataset_id: str = DATASET_ID) -> NanoData:
    """Read one of the data sets.

    Queries and documents without text are left out, as the peer does; their judgements stay, so that such a document
    counts as never found.

    Args:
        name: As in :data:`SPLITS`, in any case of letters.
        dataset_id: Repository on the hub, or the folder of a copy, with the subsets ``corpus`` and ``queries``
            (columns ``_id`` and ``text``) and ``qrels`` (``query-id`` and ``corpus-id``, an id or a list of them).

    Raises:
        ValueError: If the name is unknown, or a judgement names a query or document that is not there.
        LoadError: If a subset or split cannot be read, or a column is missing.
    """
    (known,) = check_names([name])
    split = SPLITS[known.lower()]
    queries, corpus = (_texts(dataset_id, subset, split) for subset in ("queries", "corpus"))
    relevant: dict[str, set[str]] = {}
    for row in _rows(dataset_id, "qrels", split, ("query-id", "corpus-id")):
        documents = row["corpus-id"]
        relevant.setdefault(row["query-id"], set()).update(documents if isinstance(documents, list) else [documents])
    read_judgements(relevant, queries, corpus)  # names unknown ids
    return NanoData(_with_text(queries), _with_text(corpus), relevant)


def _with_text(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in texts.items() if text}


def _texts(dataset_id: str, subset: str, split: str) -> dict[str, str]:
    return {row["_id"]: row["text"] for row in _rows(dataset_id, subset, split, ("_id", "text"))}


def _rows(dataset_id: str, subset: str, split: str, columns: Sequence[str]) -> Iterable[dict[str, Any]]:  # Any: columns
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    where = f"subset {subset!r}, split {split!r}"
    try:
        rows = load_dataset(dataset_id, subset, split=split)
    except (DatasetsError, OSError, ValueError) as reason:
        raise LoadError(f"cannot read {where} of NanoBEIR: {reason}", path=dataset_id) from reason
    if missing := [column for column in columns if column not in rows.column_names]:
        raise LoadError(f"{where} must have the columns {list(columns)}, lacks {missing}", path=dataset_id)
    selected: Iterable[dict[str, Any]] = rows.select_columns(list(columns))
    return selected
