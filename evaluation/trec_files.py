"""Runs and judgements in the files of TREC, as trec_eval reads them; knows no texts and no model.

A run has lines ``query Q0 document rank score tag``, judgements (qrels) have lines ``query 0 document grade``, fields
apart by blanks or tabs. Names ending in ``.gz`` are read through gzip.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np

from sparse_encoder.checkpoint import LoadError, write_text
from sparse_encoder.evaluation.text_lines import line_error, numbered_lines

Run = dict[str, dict[str, float]]
"""Scores by id of the document, by id of the query."""
Qrels = dict[str, dict[str, int]]
"""Grades by id of the document, by id of the query; 0 and below is not relevant."""

_GAP = re.compile(r"\s")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""What every reader of these files takes for a number: no underscores, and no other digits than these ten."""


def order_of(scores: Mapping[str, float]) -> list[str]:
    """Rank the documents of one query as trec_eval does: by falling score in float32, equal scores by falling id.

    The ranks that a run file names are not read by trec_eval, and not by this library.
    """
    with np.errstate(over="ignore"):
        single = np.fromiter(scores.values(), dtype=np.float64, count=len(scores)).astype(np.float32).tolist()
    return [document for _, document in sorted(zip(single, scores, strict=True), reverse=True)]


def read_run(path: str | PathLike[str]) -> Run:
    """Read a run file.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is none.
        LoadError: Naming the line, if it does not have six fields, its score is no finite number, or a document is
            there twice for one query.
    """
    run: Run = {}
    for number, (query, _, document, _, text, _) in _fields(Path(path), 6, "query Q0 document rank score tag"):
        score = _number(text)
        if not math.isfinite(score):
            raise line_error(Path(path), number, f"the score must be a finite number, got {text!r}")
        scores = run.setdefault(query, {})
        if document in scores:
            raise line_error(Path(path), number, f"document {document!r} is there twice for query {query!r}")
        scores[document] = score
    return run


def write_run(
    path: str | PathLike[str], run: Mapping[str, Mapping[str, float]], *, tag: str = "sparse-encoder"
) -> None:
    """Write a run file; read back it is the same run, to the bit. The file appears whole.

    Args:
        path: The file; its folder is made if it does not exist.
        run: Scores by query and document. A query without documents leaves no line.
        tag: Name of the run.

    Raises:
        TypeError: If a score is no number, naming query and document.
        ValueError: If an id or the tag is empty or has blanks, tabs or newlines, which would read as something else,
            or a score is not finite.
    """
    check_names([tag], "the tag")
    lines = []
    for query, scores in run.items():
        check_names([query], "the id of a query")
        check_names(scores, "the id of a document")
        check_scores(query, scores)
        for rank, document in enumerate(order_of(scores), start=1):
            lines.append(f"{query} Q0 {document} {rank} {float(scores[document])!r} {tag}\n")
    _write(Path(path), lines)


def read_qrels(path: str | PathLike[str]) -> Qrels:
    """Read a file of judgements.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is none.
        LoadError: Naming the line, if it does not have four fields, its grade is no integer, or a document is judged
            twice for one query.
    """
    qrels: Qrels = {}
    for number, (query, _, document, grade) in _fields(Path(path), 4, "query 0 document grade"):
        add_judgement(qrels, query, document, grade, path=Path(path), number=number)
    return qrels


def write_qrels(path: str | PathLike[str], qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write a file of judgements. The file appears whole.

    Args:
        path: The file; its folder is made if it does not exist.
        qrels: Grades by query and document.

    Raises:
        ValueError: If an id is empty or has blanks, tabs or newlines, or a grade is no integer.
    """
    lines = []
    for query, grades in qrels.items():
        check_names([query], "the id of a query")
        check_names(grades, "the id of a document")
        for document, grade in grades.items():
            if isinstance(grade, bool) or not isinstance(grade, int):
                raise ValueError(f"grades must be integers, query {query!r} gives document {document!r} {grade!r}")
            lines.append(f"{query} 0 {document} {grade}\n")
    _write(Path(path), lines)


def check_scores(query: str, scores: Mapping[str, float]) -> None:
    """Refuse scores that cannot be ranked by.

    Args:
        query: Whose scores they are, for the error.
        scores: By id of the document.

    Raises:
        TypeError: If one is no number, naming query and document.
        ValueError: If one is not finite, likewise.
    """
    for document, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, Real):
            raise TypeError(f"scores must be numbers, query {query!r} gives document {document!r} {score!r}")
        if not -sys.float_info.max <= score <= sys.float_info.max:
            raise ValueError(f"scores must be finite, query {query!r} gives document {document!r} {score}")


def check_names(names: Mapping[str, object] | list[str], what: str) -> None:
    """Refuse names that a file with fields apart by blanks cannot hold.

    Args:
        names: The names.
        what: What they are, for the error.

    Raises:
        ValueError: If one is empty or has a blank, a tab or a newline.
    """
    for name in names:
        if not name or _GAP.search(name):
            raise ValueError(f"{what} must not be empty or have blanks, tabs or newlines in TREC files, got {name!r}")


def add_judgement(qrels: Qrels, query: str, document: str, grade: str, *, path: Path, number: int) -> None:
    """Put one judgement to the others.

    Args:
        qrels: The others.
        query: Id of the query.
        document: Id of the document.
        grade: As the file has it.
        path: For errors.
        number: Line of the file, for errors.

    Raises:
        LoadError: If the grade is no integer, or the document is judged twice for the query.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", grade):
        raise line_error(path, number, f"the grade must be an integer, got {grade!r}")
    grades = qrels.setdefault(query, {})
    if document in grades:
        raise line_error(path, number, f"document {document!r} is judged twice for query {query!r}")
    grades[document] = int(grade)


def _fields(path: Path, count: int, form: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != count:
            raise line_error(path, number, f"must have {count} fields ({form}), got {len(fields)}")
        yield number, fields


def _number(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _write(path: Path, lines: list[str]) -> None:
    if path.suffix == ".gz":
        raise ValueError(f"TREC files are written without compression, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_text(path, "".join(lines))
    except UnicodeEncodeError as reason:
        raise LoadError(f"an id cannot be written as UTF-8: {reason.reason}", path=path) from reason
