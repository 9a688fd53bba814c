"""Collections in TREC files: topics in their common forms, judgements, and documents as TSV or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.beir_folder import json_texts
from sparse_encoder.evaluation.collections import Collection, choose_split
from sparse_encoder.evaluation.text_lines import add_once, line_error, numbered_lines
from sparse_encoder.evaluation.trec_files import read_qrels

MAX_TOPIC_BYTES = 100_000_000
_ROLES = {
    "documents": ("documents", "collection", "corpus", "docs"),
    "topics": ("topics", "queries"),
    "qrels": ("qrels",),
}
_TOPIC_TAGS = re.compile(r"<(num|title|desc|narr)>", re.IGNORECASE)
_TOPIC_EDGES = re.compile(r"(</?top>)", re.IGNORECASE)
_TEXT_TAGS = ("title", "query", "text", "description")


class _Files(NamedTuple):
    """Files of one kind in a folder, by split; the empty split is a name without one."""

    what: str
    by_split: dict[str, Path]


def is_trec_folder(folder: Path) -> bool:
    """Tell whether a folder has files that are named like topics."""
    return bool(_files(folder, "topics").by_split)


def read_trec_folder(folder: Path, split: str | None = None, *, allow_unknown: bool = False) -> Collection:
    """Read the collection that the files of a folder make.

    The files are ``documents.*`` (or ``collection``, ``corpus``, ``docs``), ``topics[.<split>].*`` (or ``queries``) and
    ``qrels[.<split>].*``; MS MARCO's names are of this form: ``collection.tsv``, ``queries.dev.small.tsv``,
    ``qrels.dev.small.tsv``.

    Args:
        folder: The folder; the collection takes its name.
        split: Which topics and judgements; ``None`` if there is one of each. Topics or judgements that are there for
            all splits have no split in their name.
        allow_unknown: As in :class:`Collection`.

    Raises:
        FileNotFoundError: If a file is not there.
        LoadError: Naming file and line; also if two files could be meant.
    """
    return read_trec_collection(
        documents=_pick(_files(folder, "documents"), None, folder),
        topics=_pick(_files(folder, "topics"), split, folder),
        qrels=_pick(_files(folder, "qrels"), split, folder),
        name=folder.resolve().name if split is None else f"{folder.resolve().name}/{split}",
        allow_unknown=allow_unknown,
    )


def read_trec_collection(
    *, documents: Path, topics: Path, qrels: Path, name: str, allow_unknown: bool = False
) -> Collection:
    """Read a collection from three files.

    Args:
        documents: As for :func:`document_texts`.
        topics: As for :func:`read_topics`.
        qrels: As for :func:`~sparse_encoder.evaluation.trec_files.read_qrels`.
        name: Of the collection.
        allow_unknown: As in :class:`Collection`.

    Raises:
        FileNotFoundError: If a file is not there.
        LoadError: Naming file and line.
    """
    corpus: dict[str, str] = {}
    for number, document, text in document_texts(documents):
        add_once(corpus, document, text, path=documents, number=number)
    return Collection(
        name=name,
        corpus=corpus,
        queries=read_topics(topics),
        qrels=read_qrels(qrels),
        allow_unknown=allow_unknown,
    )


def document_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, id and text of each document of a file; one is held at a time.

    Args:
        path: JSON lines as for :func:`~sparse_encoder.evaluation.beir_folder.json_texts` if the name ends in ``.jsonl``
            or ``.json``, else lines of an id and texts apart by tabs, which are joined by blanks. Of four columns the
            second is MS MARCO's URL and left out.

    Raises:
        FileNotFoundError: If there is no file.
        LoadError: Naming the line.
    """
    if _form(path) in (".jsonl", ".json"):
        yield from json_texts(path)
        return
    for number, line in numbered_lines(path):
        name, *texts = line.split("\t")
        if not texts:
            raise line_error(path, number, "must be an id and a text, apart by a tab")
        yield number, name, " ".join(texts[1:] if len(texts) == 3 else texts).strip()


def read_topics(path: Path) -> dict[str, str]:
    """Read queries: ids and texts apart by a tab, JSON lines, or topics of TREC.

    The form is told by the content. Of topics with ``<title>`` the title is the query; XML topics without one have
    ``<query>``, ``<text>`` or ``<description>``.

    Args:
        path: The file.

    Returns:
        Texts by id, at least one.

    Raises:
        FileNotFoundError: If there is none.
        LoadError: If it is in none of these forms, a topic is not closed, an id is there twice, or there is no query.
    """
    if _form(path) in (".jsonl", ".json"):
        return _unique(json_texts(path), path)
    first = next((line.lstrip() for _, line in numbered_lines(path)), "")
    if first.startswith("<"):
        return _unique(_tagged_topics(path), path)
    return _unique(document_texts(path), path)


def _unique(found: Iterator[tuple[int, str, str]], path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for number, name, text in found:
        add_once(queries, name, text, path=path, number=number)
    if not queries:
        raise LoadError("holds no topics: lines of id and text, JSON lines, <top> or <topic>", path=path)
    return queries


def _tagged_topics(path: Path) -> Iterator[tuple[int, str, str]]:
    """Read topics in tags: XML, or the older form whose inner tags are never closed."""
    lines = list(numbered_lines(path))
    if sum(len(line) for _, line in lines) > MAX_TOPIC_BYTES:
        raise LoadError(f"topics must not be larger than {MAX_TOPIC_BYTES} bytes", path=path)
    text = "\n".join(line for _, line in lines)
    reader: Callable[[Path, list[tuple[int, str]], str], Iterator[tuple[int, str, str]]]
    reader = _open_topics if re.search(r"<top>", text, re.IGNORECASE) else _xml_topics
    return reader(path, lines, text)


def _open_topics(path: Path, lines: list[tuple[int, str]], _: str) -> Iterator[tuple[int, str, str]]:
    """Yield topics of the form ``<top> <num> Number: 301 <title> ... <desc> Description: ... </top>``."""
    start, block = 0, [""]  # no line is number 0: outside of topics
    for number, line in lines:
        for piece in _TOPIC_EDGES.split(line):
            edge = piece.lower()
            if edge == "<top>":
                if start:
                    raise line_error(path, start, f"the topic must end with </top> before the next, on line {number}")
                start, block = number, [""]
            elif edge == "</top>":
                yield (start or number, *_open_topic(path, start or number, "".join(block)))
                start, block = 0, [""]
            elif not start and _TOPIC_TAGS.search(piece):
                raise line_error(path, number, "<num>, <title>, <desc> and <narr> must lie between <top> and </top>")
            else:
                block.append(piece)
        block.append("\n")
    if start:
        raise line_error(path, start, "the topic must end with </top>, the file ends before")


def _open_topic(path: Path, start: int, text: str) -> tuple[str, str]:
    """Read id and title of what lies between ``<top>`` and ``</top>``."""
    parts = _TOPIC_TAGS.split(text)
    found: dict[str, str] = {}
    for tag, body in zip(parts[1::2], parts[2::2], strict=True):
        if tag.lower() in found:
            raise line_error(path, start, f"a topic must have one <{tag.lower()}>, this has two")
        found[tag.lower()] = re.sub(r"</?\w+>", " ", body)
    name = re.sub(r"^\s*number\s*:", "", found.get("num", ""), flags=re.IGNORECASE).strip()
    title = re.sub(r"^\s*topic\s*:", "", found.get("title", ""), flags=re.IGNORECASE)
    if not name or not title.strip():
        raise line_error(path, start, "a topic must have <num> and <title>")
    return name, " ".join(title.split())


def _xml_topics(path: Path, lines: list[tuple[int, str]], text: str) -> Iterator[tuple[int, str, str]]:
    """Yield topics of the form ``<topic number="1"><query>...</query></topic>``."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LoadError("topics must not define a document type or entities", path=path)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as reason:
        place = min(reason.position[0], len(lines)) - 1
        raise line_error(path, lines[place][0], f"must be XML: {reason}") from reason
    for place, topic in enumerate(root.iter("topic"), start=1):
        name = topic.get("number") or topic.get("id") or topic.get("num") or (topic.findtext("num") or "").strip()
        bodies = ("".join(topic.itertext()) if not len(topic) else topic.findtext(tag) for tag in _TEXT_TAGS)
        body = next((" ".join(each.split()) for each in bodies if each and each.strip()), "")
        if not name or not body:
            raise LoadError(f"topic {place} must have a number and one of {list(_TEXT_TAGS)}", path=path)
        yield place, name, body


def _form(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _files(folder: Path, what: str) -> _Files:
    """Find the files of one kind by their names."""
    by_split: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem, *rest = path.name.removesuffix(".gz").split(".")
        if stem in _ROLES[what] and rest and path.is_file():
            split = ".".join(rest[:-1])
            if split in by_split:
                raise LoadError(f"could be the {what}, but so could {by_split[split].name}; remove one", path=path)
            by_split[split] = path
    return _Files(what, by_split)


def _pick(files: _Files, split: str | None, folder: Path) -> Path:
    """Choose the file of a split; one without a split in its name serves for all."""
    if not files.by_split:
        names = " or ".join(f"{stem}.*" for stem in _ROLES[files.what])
        raise FileNotFoundError(f"{folder}: there is no file of {files.what}, named {names}")
    if split not in files.by_split and "" in files.by_split:
        return files.by_split[""]
    return files.by_split[choose_split(files.by_split, split, folder)]
