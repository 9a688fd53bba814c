"""Sentences in columns, and texts with spans."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.token_classification import (
    Span,
    get_label_names,
    load_conll,
    load_spans,
    tags_of_spans,
    write_conll,
)
from sparse_encoder.token_classification.spans import words_of

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Zoë NNP B-NP B-PER
-DOCSTART- -X- O O
Paris NNP B-NP B-LOC
"""


@pytest.fixture(params=["plain", "mark and line ends of Windows"])
def conll(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "train.txt"
    text = CONLL if request.param == "plain" else "\ufeff" + CONLL.replace("\n", "\r\n")
    file.write_bytes(text.encode())
    return file


def test_sentences_words_and_labels(conll: Path) -> None:
    data = load_conll(conll)
    assert data.column_names == ["id", "tokens", "pos_tags", "chunk_tags", "ner_tags"]
    assert data["tokens"][:] == [["EU", "rejects"], ["Zoë"], ["Paris"]]
    assert data["id"][:] == ["0", "1", "2"]
    names = get_label_names(data, "ner_tags")
    assert names == ["O", "B-LOC", "B-ORG", "B-PER"]
    assert [[names[tag] for tag in row] for row in data["ner_tags"]] == [["B-ORG", "O"], ["B-PER"], ["B-LOC"]]


def test_any_column_and_given_names(conll: Path) -> None:
    names = ["O", "B-PER", "B-ORG", "B-LOC", "I-LOC"]
    data = load_conll(conll, columns={"tokens": 0, "tags": -1}, label_names={"tags": names})
    assert data["tags"][:] == [[2, 0], [1], [3]]
    assert get_label_names(data, "tags") == names


def test_comments_and_tabs(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("# text = New York\nNew York\tB-LOC\n# more\n#\tO\n", encoding="utf-8")
    data = load_conll(file, separator="\t", comment="# ")
    assert data["tokens"][:] == [["New York", "#"]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sentences, tags = [["Zoë", "works"], [], ["."]], [["B-PER", "O"], [], ["O"]]
    write_conll(tmp_path / "out", sentences, tags)
    data = load_conll(tmp_path / "out")
    assert data["tokens"][:] == [["Zoë", "works"], ["."]]  # nothing stands for a sentence without words


@pytest.mark.parametrize(
    ("words", "separator"),
    [
        (["\ufeffA", "b"], " "),
        (["New York", " a ", "x\x85"], "\t"),
        (["a b", "c\td"], "|"),
        (["a", "-DOCSTART-x"], " "),
    ],
)
def test_awkward_words_come_back(tmp_path: Path, words: list[str], separator: str) -> None:
    write_conll(tmp_path / "out", [words, ["."]], [["O"] * len(words), ["O"]], separator=separator)
    assert load_conll(tmp_path / "out", separator=separator)["tokens"][:] == [words, ["."]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"ner": ["O"]}, r"no column of labels 'ner'; choose from \['ner_tags'\]"),
        ({"tokens": ["a"]}, "no column of labels 'tokens'"),
        ({"ner_tags": []}, r"label_names\['ner_tags'\] must be a list of names, each once, got \[\]"),
        ({"ner_tags": ["O", "O"]}, "each once"),
        ({"ner_tags": "O"}, "must be a list of names"),
    ],
)
def test_names_that_fit_no_column_are_refused(tmp_path: Path, names: dict[str, list[str]], message: str) -> None:
    (tmp_path / "file").write_text("a O\n")
    with pytest.raises(ValueError, match=message):
        load_conll(tmp_path / "file", label_names=names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n-DOCSTART- O\n", "has no sentence"),
        ("a O\nb X O\n", "line 2: there must be 2 columns as before, got 3: 'b X O'"),
        ("a\n", "has 1 columns; say which are read"),
        ("a B\n", "line 1: unknown label 'B'; choose from"),
    ],
)
def test_bad_files_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_conll(file, label_names={"ner_tags": ["O"]})


def test_other_encodings_and_columns_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin"
    file.write_bytes("Zoë O\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not utf-8-sig"):
        load_conll(file)
    assert load_conll(file, encoding="latin-1")["tokens"][:] == [["Zoë"]]
    with pytest.raises(ValueError, match="columns must have 'tokens'"):
        load_conll(file, encoding="latin-1", columns={"words": 0})
    with pytest.raises(ValueError, match="column 'tags' must be between -2 and 1, got 2"):
        load_conll(file, encoding="latin-1", columns={"tokens": 0, "tags": 2})
    with pytest.raises(FileNotFoundError):
        load_conll(tmp_path / "none")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([["a"]], [["O", "O"]]), "sentence 0: columns must be of one length"),
        (([["a b"]], [["O"]]), "blanks in it, got 'a b'; words with blanks need separator"),
        (([["a"], ["-DOCSTART-"]], [["O"], ["O"]]), "sentence 1: a word may not be '-DOCSTART-'"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, columns: tuple[list[list[str]], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_conll(tmp_path / "out", *columns)
    assert not (tmp_path / "out").exists()


def test_cells_must_fit_their_separator(tmp_path: Path) -> None:
    for cell, separator in (("a\tb", "\t"), ("a\nb", "\t"), (" ", "\t"), ("a|b", "|")):
        with pytest.raises(ValueError, match="sentence 0: a cell may not"):
            write_conll(tmp_path / "out", [[cell]], [["O"]], separator=separator)
    for separator in ("", "\n"):
        with pytest.raises(ValueError, match="separator must be"):
            write_conll(tmp_path / "out", [["a"]], [["O"]], separator=separator)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("สวัสดี ครับ", ["สวัสดี", "ครับ"]),
        ("שָׁלוֹם, مُحَمَّد", ["שָׁלוֹם", ",", "مُحَمَّد"]),
        ("Zoe\u0301s x", ["Zoe\u0301s", "x"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("a_b c-d", ["a", "_", "b", "c", "-", "d"]),
        ("\u2615\ufe0fx", ["\u2615\ufe0f", "x"]),
    ],
)
def test_marks_of_all_scripts_stay_with_their_letters(text: str, words: list[str]) -> None:
    assert [text[begin:end] for begin, end in words_of(text)] == words


def test_many_spans_take_as_many_steps() -> None:
    reads: list[int] = []

    class Counted(Span):
        def __getattribute__(self, name: str) -> object:
            if name in ("start", "end"):
                reads.append(1)
            return super().__getattribute__(name)

    def read_for(number: int) -> int:
        reads.clear()
        tags_of_spans("word " * 2 * number, [Counted(10 * each, 10 * each + 4, "X") for each in range(number)])
        return len(reads)

    assert read_for(400) <= 4.1 * read_for(100)


def test_spans_become_words_with_tags() -> None:
    text = "Zoe\u0301 flew to New York-based ACME👩‍🚀!"
    spans = [Span(0, 4, "PER"), Span(13, 21, "LOC"), Span(28, 32, "ORG")]
    words, tags = tags_of_spans(text, spans)
    assert words[:8] == ["Zoe\u0301", "flew", "to", "New", "York", "-", "based", "ACME"]
    assert tags[:8] == ["B-PER", "O", "O", "B-LOC", "I-LOC", "O", "O", "B-ORG"]


def test_a_word_is_cut_where_a_span_ends_in_it() -> None:
    assert tags_of_spans("Londoner", [Span(0, 6, "LOC")]) == (["London", "er"], ["B-LOC", "O"])


@given(st.text(max_size=40), st.lists(st.integers(0, 40), max_size=3))
def test_words_lose_nothing_but_blanks(text: str, borders: list[int]) -> None:
    words = words_of(text, borders)
    assert "".join(text[begin:end] for begin, end in words) == "".join(text.split())
    assert all(one[1] <= other[0] for one, other in zip(words, words[1:], strict=False))


def test_a_file_of_spans(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text(
        '{"text": "in Paris", "spans": [{"start": 3, "end": 8, "label": "LOC"}]}\n\n{"text": "", "spans": []}\n'
        '{"text": "a", "spans": [[0, 1, "X-Y"]]}\n'
    )
    data = load_spans(file)
    assert data["tokens"][:] == [["in", "Paris"], [], ["a"]]
    assert get_label_names(data) == ["O", "B-LOC", "B-X-Y"]
    assert data["ner_tags"][:] == [[0, 1], [], [2]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 1: there must be an object with a text under 'text'"),
        ("{", "line 1: "),
        ('{"text": "a"}', "line 1: there must be a list under 'spans', got None"),
        ('{"text": "a", "spans": [{"start": 0}]}', "line 1: a span must have start and end"),
        ('{"text": "a", "spans": [[0, true, "A"]]}', "line 1: a span must have"),
        ('{"text": "a", "spans": [[0, 2, "A"]]}', "within the 1 characters"),
        ('{"text": "a b", "spans": [[1, 2, "A"]]}', "must have a word in it"),
        ('{"text": "ab", "spans": [[0, 2, "A"], [1, 2, "A"]]}', "may not overlap"),
        ('{"text": "ab", "spans": [[0, 2, "B"]]}', "unknown tags"),
        ("", "has no text"),
    ],
)
def test_bad_spans_are_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=message):
        load_spans(file, label_names=["O", "B-A", "I-A"])


def test_spans_in_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "spans").write_bytes('{"text": "Zoë", "spans": [[0, 3, "PER"]]}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="is not utf-8-sig.*pass its encoding"):
        load_spans(tmp_path / "spans")
    assert load_spans(tmp_path / "spans", encoding="latin-1")["tokens"][:] == [["Zoë"]]
    with pytest.raises(ValueError, match="label_names must have a name"):
        load_spans(tmp_path / "spans", encoding="latin-1", label_names=[])
