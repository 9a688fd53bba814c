"""Readers of collections on bytes that nobody meant: they read them, or say which file and line they cannot."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.beir_folder import read_beir_qrels, read_json_texts
from sparse_encoder.evaluation.trec_files import read_qrels, read_run
from sparse_encoder.evaluation.trec_folder import document_texts, read_topics

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "run": ("run.trec", read_run),
    "qrels": ("qrels.trec", read_qrels),
    "compressed": ("qrels.gz", read_qrels),
    "beir qrels": ("test.tsv", read_beir_qrels),
    "texts": ("corpus.jsonl", read_json_texts),
    "topics": ("topics.txt", read_topics),
    "documents": ("documents.tsv", lambda path: list(document_texts(path))),
}
PIECES = st.sampled_from(
    [
        *("q Q0 d 1 0.5 tag\n", "q 0 d 1\n", "query-id\tcorpus-id\tscore\n", "q\td\t1\n", "\t", "\n", "\r", "\0", " "),
        *(
            '{"_id": "a", "text": "b"}\n',
            "{",
            "}",
            '"',
            "[",
            "null",
            "\\ud800",
            "1e999",
            "NaN",
            "\ufeff",
            "é",
            "\u2028",
        ),
        *(
            "<top>\n",
            "<num> Number: 1\n",
            "<title> x\n",
            "</top>\n",
            "<topics>",
            "</topics>",
            "<topic number='1'>",
            "&a;",
        ),
        *("<topic id=''/>", "</topic>", "<query>", "</query>", "<?xml version='1.0' encoding='utf-16'?>", "<!DOCTYPE"),
    ]
)
CONTENTS = st.one_of(
    st.binary(max_size=60), st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode("utf-8"))
)


@pytest.mark.parametrize("name", READERS)
@given(content=CONTENTS)
def test_a_reader_reads_or_names_the_file(name: str, content: bytes) -> None:
    file, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(content)
        try:
            read(path)
        except LoadError as error:
            assert error.path is not None
            assert error.path.startswith(str(path))
