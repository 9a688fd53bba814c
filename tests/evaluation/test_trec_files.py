"""Runs and judgements in TREC's files; that others read them the same is in tests/parity."""

from __future__ import annotations

import gzip
import math
import tempfile
from pathlib import Path

import pytest
from collections_helpers import write_lines
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.trec_files import (
    Qrels,
    Run,
    order_of,
    read_qrels,
    read_run,
    write_qrels,
    write_run,
)

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda name: not any(letter.isspace() for letter in name)
)


def test_a_run_file_has_six_columns_best_first(tmp_path: Path) -> None:
    write_run(
        tmp_path / "new" / "run.trec", {"q1": {"a": 0.5, "c": 2.0, "b": 0.5}, "q0": {"x": 1e-9}, "q9": {}}, tag="me"
    )
    assert (tmp_path / "new" / "run.trec").read_text() == (
        "q1 Q0 c 1 2.0 me\nq1 Q0 b 2 0.5 me\nq1 Q0 a 3 0.5 me\nq0 Q0 x 1 1e-09 me\n"
    )


def test_ties_fall_by_id_and_are_those_of_float32() -> None:
    assert order_of({"a": 0.1 + 0.2, "b": 0.3, "z": 0.1, "c": 1e300}) == ["c", "b", "a", "z"]


def test_a_file_of_others_is_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "run", ["1 Q0\td7  9 -3.5e0 tag", "", "1 Q0 d8 1 4 tag", "2 Q0 d9 1 +.5E+1 tag"])
    assert read_run(path) == {"1": {"d7": -3.5, "d8": 4.0}, "2": {"d9": 5.0}}
    path = write_lines(tmp_path / "qrels", ["1 0 d7 3", "2\t0\td7\t-1"])
    assert read_qrels(path) == {"1": {"d7": 3}, "2": {"d7": -1}}
    (tmp_path / "qrels.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_qrels(tmp_path / "qrels.gz") == read_qrels(path)


@given(run=st.dictionaries(IDS, st.dictionaries(IDS, st.floats(allow_nan=False, allow_infinity=False), min_size=1)))
def test_what_is_written_is_read_to_the_bit(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", run)
        assert read_run(Path(folder) / "run") == run


@given(qrels=st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-9, 99), min_size=1)))
def test_judgements_come_back(qrels: Qrels) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_qrels(Path(folder) / "qrels", qrels)
        assert read_qrels(Path(folder) / "qrels") == qrels


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\nb", "a\u00a0b", "a\u2028b", "a\x1fb"])
def test_ids_that_would_read_as_something_else_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must not be empty or have blanks"):
        write_run(tmp_path / "run", {"q": {name: 1.0}})
    with pytest.raises(ValueError, match="id of a query must not be empty or have blanks"):
        write_qrels(tmp_path / "qrels", {name: {"d": 1}})
    with pytest.raises(ValueError, match="the tag must not"):
        write_run(tmp_path / "run", {}, tag=name)
    assert list(tmp_path.iterdir()) == []


def test_scores_and_grades_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="query 'q' gives document 'd' nan"):
        write_run(tmp_path / "run", {"q": {"d": math.nan}})
    with pytest.raises(ValueError, match="scores must be finite, query 'q' gives document 'd' 1000"):
        write_run(tmp_path / "run", {"q": {"d": 10**400}})
    for score in ("x", "1.5", None, True):
        with pytest.raises(TypeError, match=f"scores must be numbers, query 'q' gives document 'd' {score!r}"):
            write_run(tmp_path / "run", {"q": {"a": 1.0, "d": score}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="grades must be integers, query 'q' gives document 'd' 1.5"):
        write_qrels(tmp_path / "qrels", {"q": {"d": 1.5}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="without compression"):
        write_run(tmp_path / "run.gz", {"q": {"d": 1.0}})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q Q0 d 1 0.5", r"run:2: must have 6 fields \(query Q0 document rank score tag\), got 5"),
        ("q Q0 d e 1 0.5 tag", "run:2: must have 6 fields"),
        ("q Q0 d 1 high tag", "run:2: the score must be a finite number, got 'high'"),
        ("q Q0 d 1 nan tag", "run:2: the score must be a finite number"),
        ("q Q0 d 1 inf tag", "run:2: the score must be a finite number"),
        ("q Q0 d 1 1e999 tag", "run:2: the score must be a finite number, got '1e999'"),
        ("q Q0 d 1 1_000 tag", "run:2: the score must be a finite number, got '1_000'"),
        ("q Q0 d 1 \u0663 tag", "run:2: the score must be a finite number, got '\u0663'"),
        ("q Q0 a 1 1 tag", "run:2: document 'a' is there twice for query 'q'"),
    ],
)
def test_a_damaged_run_names_the_line(tmp_path: Path, line: str, reason: str) -> None:
    path = write_lines(tmp_path / "run", ["q Q0 a 1 1.0 tag", line])
    with pytest.raises(LoadError, match=reason):
        read_run(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q 0 d", "qrels:2: must have 4 fields"),
        ("q 0 d 1.0", "qrels:2: the grade must be an integer, got '1.0'"),
        ("q 0 d \u0663", "qrels:2: the grade must be an integer, got '\u0663'"),
        ("q 0 d 1_0", "qrels:2: the grade must be an integer, got '1_0'"),
        ("q 0 a 1", "qrels:2: document 'a' is judged twice for query 'q'"),
    ],
)
def test_damaged_judgements_name_the_line(tmp_path: Path, line: str, reason: str) -> None:
    path = write_lines(tmp_path / "qrels", ["q 0 a 1", line])
    with pytest.raises(LoadError, match=reason):
        read_qrels(path)


def test_bytes_that_are_no_text_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"q Q0 a 1 1.0 tag\n\nq Q0 \xff 1 1.0 tag\n")
    with pytest.raises(LoadError, match="run:3: must be UTF-8"):
        read_run(tmp_path / "run")
    (tmp_path / "run.gz").write_bytes(gzip.compress(b"q Q0 a 1 1.0 tag\n")[:-12])
    with pytest.raises(LoadError, match="the compressed data is damaged"):
        read_run(tmp_path / "run.gz")
    with pytest.raises(FileNotFoundError):
        read_run(tmp_path / "nothing")
    with pytest.raises(LoadError, match="regular file"):
        read_run(tmp_path)
