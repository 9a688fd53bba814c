"""The files evaluators write: a growing table of results, and rankings; knows no metric."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparse_encoder.checkpoint import write_text


def append_row(path: Path, headers: Sequence[str], row: Sequence[object]) -> None:
    """Add a row to a table, in one write.

    A new file starts with the headers. A file that has other headers is kept under another name, ``<name>.<n>.csv``,
    and a new one is begun; the peer would add the row under the wrong headers.

    Args:
        path: The file; its folder is made if it does not exist.
        headers: Names of the columns.
        row: One value for each column.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and _headers(path) != list(headers):
        path.rename(_free_name(path))
    rows = [row] if path.exists() else [headers, row]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())


def _headers(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _free_name(path: Path) -> Path:
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free


def write_json_lines(path: Path, values: Iterable[object]) -> None:
    """Write one JSON value per line; the file appears whole, its folder is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))
