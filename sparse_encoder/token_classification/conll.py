"""Sentences in columns, a word a line, as the CoNLL tasks publish them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_encoder.checkpoint import write_text
from sparse_encoder.token_classification.label_names import sorted_names

if TYPE_CHECKING:
    from datasets import Dataset

BYTE_ORDER_MARK = "\ufeff"
DOCUMENT_MARK = "-DOCSTART-"
TOKENS = "tokens"
_COLUMNS = {
    2: {TOKENS: 0, "ner_tags": 1},
    3: {TOKENS: 0, "pos_tags": 1, "ner_tags": 2},
    4: {TOKENS: 0, "pos_tags": 1, "chunk_tags": 2, "ner_tags": 3},
}
"""What columns are taken for, by their number."""


def load_conll(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, int] | None = None,
    label_names: Mapping[str, Sequence[str]] | None = None,
    separator: str | None = None,
    comment: str | None = None,
    encoding: str = "utf-8-sig",
) -> Dataset:
    """Read a file of sentences: columns for the words and their labels, a blank line behind each sentence.

    Document marks (``-DOCSTART-``) end a sentence and are left out. Line ends of Windows and a byte order mark are
    understood.

    Args:
        path: The file.
        columns: Number of each column by its name, from 0, or from -1 at the end; ``tokens`` must be among them. None
            takes two columns for words and entities, three for words, parts of speech and entities, four as in CoNLL
            2003.
        label_names: Names of the labels of a column in the order of their numbers, so that several files are numbered
            alike; without them they are sorted, ``O`` first.
        separator: Between columns; None is any blank.
        comment: Lines that start with this are left out.
        encoding: Of the file; the default is UTF-8 with or without a byte order mark.

    Returns:
        ``id`` (the number of the sentence, as text), ``tokens`` and the others as class labels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no sentence, a line has other columns than the first, or a label is not in its names; it
            names the line. Or ``label_names`` has a column that is not read, or no names for one.
    """
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    sentences = list(_sentences(Path(path), separator, comment, encoding))
    if not sentences:
        raise ValueError(f"{path} has no sentence")
    width = len(sentences[0][0][1])
    places = _places(columns, width, path)
    given = _checked_names(label_names or {}, places)
    rows: dict[str, list[Any]] = {"id": [str(number) for number in range(len(sentences))]}
    features: dict[str, Any] = {"id": Value("string")}
    for name, place in places.items():
        rows[name] = [[cells[place] for _, cells in sentence] for sentence in sentences]
        features[name] = Sequence(Value("string"))
        if name != TOKENS:
            names = list(given.get(name) or sorted_names(tag for tags in rows[name] for tag in tags))
            rows[name] = _numbered(sentences, place, names, path)
            features[name] = Sequence(ClassLabel(names=names))
    return Dataset.from_dict(rows, features=Features(features))


_Line = tuple[int, list[str]]


def _sentences(path: Path, separator: str | None, comment: str | None, encoding: str) -> Iterator[list[_Line]]:
    """Yield the lines of each sentence, with their numbers."""
    sentence: list[_Line] = []
    width = None
    try:
        with path.open(encoding=encoding, newline=None) as file:
            for number, line in enumerate(file, start=1):
                cells = line.rstrip("\r\n").split(separator)
                blank = not line.strip()
                if blank or cells[0] == DOCUMENT_MARK or (comment is not None and line.startswith(comment)):
                    if sentence and (blank or cells[0] == DOCUMENT_MARK):
                        yield sentence
                        sentence = []
                    continue
                width = len(cells) if width is None else width
                if len(cells) != width:
                    raise ValueError(
                        f"{path}, line {number}: there must be {width} columns as before, got {len(cells)}: "
                        f"{line.strip()!r:.80}"
                    )
                sentence.append((number, cells))
    except UnicodeDecodeError as reason:
        raise ValueError(f"{path} is not {encoding}: {reason}; pass its encoding") from reason
    if sentence:
        yield sentence


def _places(columns: Mapping[str, int] | None, width: int, path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the number of each column that is read."""
    if columns is None:
        if width not in _COLUMNS:
            raise ValueError(f"{path} has {width} columns; say which are read: columns={{'tokens': 0, 'ner_tags': -1}}")
        return _COLUMNS[width]
    if TOKENS not in columns:
        raise ValueError(f"columns must have {TOKENS!r}, got {sorted(columns)}")
    for name, place in columns.items():
        if not -width <= place < width:
            raise ValueError(f"column {name!r} must be between {-width} and {width - 1}, got {place}")
    return dict(columns)


def _checked_names(names: Mapping[str, Sequence[str]], places: Mapping[str, int]) -> Mapping[str, Sequence[str]]:
    columns = sorted(set(places) - {TOKENS})
    for column, own in names.items():
        if column not in columns:
            raise ValueError(f"label_names has no column of labels {column!r}; choose from {columns}")
        if isinstance(own, str) or not own or len(set(own)) < len(own):
            raise ValueError(f"label_names[{column!r}] must be a list of names, each once, got {own!r:.80}")
    return names


def _numbered(
    sentences: list[list[_Line]], place: int, names: Sequence[str], path: str | os.PathLike[str]
) -> list[list[int]]:
    numbers = {name: number for number, name in enumerate(names)}
    rows = []
    for sentence in sentences:
        for line, cells in sentence:
            if cells[place] not in numbers:
                raise ValueError(f"{path}, line {line}: unknown label {cells[place]!r}; choose from {list(names)}")
        rows.append([numbers[cells[place]] for _, cells in sentence])
    return rows


def write_conll(path: str | os.PathLike[str], *columns: Iterable[Sequence[str]], separator: str = " ") -> None:
    """Write sentences in columns; :func:`load_conll` reads them.

    Args:
        path: The file; it appears whole or not at all.
        columns: The words of each sentence, then labels of each, as many.
        separator: Between columns. With a tab or a sign words may have blanks in them, and :func:`load_conll` needs to
            be told of it too.

    Raises:
        ValueError: If columns differ in length, or a word is empty, has the separator or a line end in it, or is
            ``-DOCSTART-``; it names the sentence.
    """
    if not separator or "\n" in separator or "\r" in separator:
        raise ValueError(f"separator must be a text within a line, got {separator!r}")
    lines: list[str] = []
    for number, sentence in enumerate(zip(*columns, strict=True)):
        if len(set(map(len, sentence))) > 1:
            raise ValueError(f"sentence {number}: columns must be of one length, got {list(map(len, sentence))}")
        for cells in zip(*sentence, strict=True):
            broken = next((cell for cell in cells if not _fits(cell, separator)), None)
            if broken is not None:
                raise ValueError(
                    f"sentence {number}: a cell may not be empty or have blanks in it, got {broken!r}; words with "
                    "blanks need separator='\\t'"
                )
            if cells[0] == DOCUMENT_MARK:
                raise ValueError(f"sentence {number}: a word may not be {DOCUMENT_MARK!r}, the mark of a document")
            lines.append(separator.join(cells))
        lines.append("")
    mark = BYTE_ORDER_MARK if lines and lines[0].startswith(BYTE_ORDER_MARK) else ""  # readers take one away
    write_text(Path(path), mark + "\n".join(lines) + ("\n" if lines else ""))


def _fits(cell: str, separator: str) -> bool:
    """Return whether a cell is read as it is written."""
    if separator.isspace() and separator != "\t":
        return cell.split() == [cell]
    return bool(cell.strip()) and separator not in cell and not {"\n", "\r"} & set(cell)
