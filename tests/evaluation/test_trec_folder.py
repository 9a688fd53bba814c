"""The forms topics and documents come in."""

from __future__ import annotations

from pathlib import Path

import pytest
from collections_helpers import write_lines

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.trec_folder import document_texts, read_topics

OLD = """<top>
<head> Tipster Topic Description
<num> Number: 301
<title> Topic: International
Organized Crime

<desc> Description:
Identify organizations.

<narr> Narrative:
A relevant document ...
</top>

<top>
<num> Number: MB02 </num>
<title> open </title>
</top>
"""
XML = """<?xml version="1.0" encoding="UTF-8"?>
<topics task="COVIDSearch">
  <topic number="1">
    <query>coronavirus &amp; origin</query>
    <question>what is the origin?</question>
  </topic>
  <topic number="2"><title>response  to
    weather</title></topic>
  <topic number="3">a 64-year-old man</topic>
</topics>
"""
ONE_LINE = """<TOP><num> 1 <title> one </TOP><top><num> 2
<title> two </top> <top><num>3</num><title>three</title></top>
"""


@pytest.mark.parametrize(
    ("name", "content", "queries"),
    [
        ("topics.txt", ONE_LINE, {"1": "one", "2": "two", "3": "three"}),
        ("topics.txt", "<topics>\n" + ONE_LINE + "</topics>\n", {"1": "one", "2": "two", "3": "three"}),
        ("topics.xml", "<topics><topic><num>7</num><title>x</title></topic></topics>", {"7": "x"}),
        ("topics.txt", OLD, {"301": "International Organized Crime", "MB02": "open"}),
        ("topics.xml", XML, {"1": "coronavirus & origin", "2": "response to weather", "3": "a 64-year-old man"}),
        ("queries.tsv", "1\twhat is x\n2\ta\tb\n", {"1": "what is x", "2": "a b"}),
        ("queries.jsonl", '{"qid": 1, "query": "x"}\n{"_id": "b", "text": "y"}\n', {"1": "x", "b": "y"}),
    ],
)
def test_topics(tmp_path: Path, name: str, content: str, queries: dict[str, str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_topics(tmp_path / name) == queries


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("1\tx\n1\ty\n", "topics.txt:2: the id '1' is there twice"),
        ("1 x\n", "topics.txt:1: must be an id and a text, apart by a tab"),
        (
            "<top>\n<num> 1\n</top>\n<top>\n<num>2\n<title> x\n</top>",
            "topics.txt:1: a topic must have <num> and <title>",
        ),
        (
            "<top>\n<num> 1\n<title> a\n<top>\n<num> 2\n<title> b\n</top>\n",
            r"topics.txt:1: the topic must end with </top> before the next, on line 4",
        ),
        (
            "<top>\n<num> 1\n<title> a\n</top>\n\n<top>\n<num> 2\n<title> b\n",
            r"topics.txt:6: the topic must end with </top>, the file ends before",
        ),
        ("<top>\n<num> 1\n<title> a\n</top>\n<num> 2\n<title> b\n</top>\n", "topics.txt:5: <num>, .* must lie between"),
        ("<top>\n<num> 1\n<title> a\n</top>\n</top>\n", "topics.txt:5: a topic must have <num> and <title>"),
        ("<top>\n<num> 1\n<title> a\n<num> 2\n<title> b\n</top>\n", "topics.txt:1: a topic must have one <num>"),
        ("<xml><query><number>1</number><text>abc</text></query></xml>", "topics.txt: holds no topics"),
        ("\n", "topics.txt: holds no topics"),
        ("<topics>\n\n<topic number='1'>\n</topics>", "topics.txt:4: must be XML"),
        ("<topics><topic number='1'/></topics>", "topic 1 must have a number and one of"),
        ("<!DOCTYPE topics [<!ENTITY a 'x'>]><topics/>", "must not define a document type"),
    ],
)
def test_damaged_topics(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "topics.txt").write_text(content, encoding="utf-8")
    with pytest.raises(LoadError, match=reason):
        read_topics(tmp_path / "topics.txt")


def test_documents(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "documents.tsv", ["1\tone text", "D2\thttp://x.y\tTitle\tBody text", "3\tTitle\tText"]
    )
    assert list(document_texts(path)) == [(1, "1", "one text"), (2, "D2", "Title Body text"), (3, "3", "Title Text")]
    path = write_lines(
        tmp_path / "docs.jsonl", ['{"docno": "a", "contents": "x"}', '{"id": "b", "title": "T", "body": ""}']
    )
    assert list(document_texts(path)) == [(1, "a", "x"), (2, "b", "T")]
