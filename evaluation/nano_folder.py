"""Collections in a local copy of NanoBEIR's layout: parquet files in the folders ``corpus``, ``queries``, ``qrels``.

A file is named ``<split>-00000-of-00001.parquet`` as on the hub, or ``<split>.parquet``, or the same with ``.jsonl``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.collections import Collection, choose_split
from sparse_encoder.evaluation.text_lines import add_once, json_objects, line_error, text_field
from sparse_encoder.evaluation.trec_files import Qrels, add_judgement

_SUBSETS = ("corpus", "queries", "qrels")
_FILE = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})?\.(?:parquet|jsonl|jsonl\.gz)")


def is_nano_folder(folder: Path) -> bool:
    """Tell whether a folder has the three folders."""
    return all((folder / subset).is_dir() for subset in _SUBSETS)


def read_nano_folder(folder: Path, split: str | None = None, *, allow_unknown: bool = False) -> Collection:
    """Read the collection of one split.

    A judgement without a grade counts 1; one may list several documents. Documents with the query's id are skipped, as
    BEIR has it. The peer drops empty texts; here they stay, and are found by nothing.

    Args:
        folder: Holds ``corpus``, ``queries`` and ``qrels``.
        split: Such as ``NanoMSMARCO``; ``None`` if there is one only.
        allow_unknown: As in :class:`Collection`.

    Raises:
        FileNotFoundError: If the split is not there, naming those that are.
        LoadError: Naming file and row.
    """
    files = {subset: _files(folder / subset) for subset in _SUBSETS}
    chosen = choose_split(files["qrels"], split, folder)
    for subset in _SUBSETS:
        choose_split(files[subset], chosen, folder / subset)
    return Collection(
        name=folder.resolve().name if split is None else split,
        corpus=_texts(files["corpus"][chosen]),
        queries=_texts(files["queries"][chosen]),
        qrels=_judgements(files["qrels"][chosen]),
        skip_own_id=True,
        allow_unknown=allow_unknown,
    )


def _files(folder: Path) -> dict[str, list[Path]]:
    """Find the files of each split, in order."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is not None:
            found.setdefault(match[1], []).append(path)
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:  # Any: the file decides the types
    """Yield the rows of a file with their numbers, from 1; a batch of them is held at a time."""
    if path.suffix != ".parquet":
        yield from json_objects(path)
        return
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")  # they come with datasets
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowInvalid, OSError) as reason:
        raise LoadError(f"must be a parquet file: {reason}", path=path) from reason


def _texts(paths: list[Path]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in paths:
        for number, row in _rows(path):
            name = text_field(row, ("_id",), path=path, number=number)
            add_once(texts, name, text_field(row, ("text",), path=path, number=number), path=path, number=number)
    return texts


def _judgements(paths: list[Path]) -> Qrels:
    qrels: Qrels = {}
    for path in paths:
        for number, row in _rows(path):
            query = text_field(row, ("query-id",), path=path, number=number)
            documents = row.get("corpus-id")
            for document in documents if isinstance(documents, list) else [documents]:
                if not isinstance(document, str):
                    raise line_error(path, number, f"field 'corpus-id' must be a text or texts, got {document!r}")
                grade = text_field(row, ("score",), path=path, number=number) if "score" in row else "1"
                add_judgement(qrels, query, document, grade, path=path, number=number)
    return qrels
