"""Collections in the folders of BEIR: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sparse_encoder.evaluation.collections import Collection, choose_split
from sparse_encoder.evaluation.text_lines import add_once, json_objects, line_error, numbered_lines, text_field
from sparse_encoder.evaluation.trec_files import Qrels, add_judgement

_HEADER = ["query-id", "corpus-id", "score"]


def is_beir_folder(folder: Path) -> bool:
    """Tell whether a folder looks like one of BEIR."""
    return any((folder / name).exists() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def read_beir_folder(folder: Path, split: str = "test", *, allow_unknown: bool = False) -> Collection:
    """Read a collection; a document is its title, a blank and its text, and one with the query's id is skipped.

    Args:
        folder: The folder; the collection takes its name.
        split: Which judgements; queries without any are left out.
        allow_unknown: As in :class:`Collection`.

    Raises:
        FileNotFoundError: If a file is not there, naming the splits there are.
        LoadError: Naming file and line.
    """
    splits = [path.stem for path in (folder / "qrels").glob("*.tsv")]
    judgements = folder / "qrels" / f"{choose_split(splits, split, folder / 'qrels')}.tsv"
    return Collection(
        name=folder.resolve().name,
        corpus=read_json_texts(plain_or_compressed(folder / "corpus.jsonl")),
        queries=read_json_texts(plain_or_compressed(folder / "queries.jsonl")),
        qrels=read_beir_qrels(judgements),
        skip_own_id=True,
        allow_unknown=allow_unknown,
    )


def plain_or_compressed(path: Path) -> Path:
    """Return the path, or that with ``.gz`` behind it if only this one is there."""
    compressed = path.with_name(f"{path.name}.gz")
    return compressed if compressed.exists() and not path.exists() else path


def read_json_texts(path: Path) -> dict[str, str]:
    """Read a file of texts with ids, one JSON object per line, as a whole; :func:`json_texts` goes through it.

    Raises:
        LoadError: Also if an id is there twice.
    """
    texts: dict[str, str] = {}
    for number, name, text in json_texts(path):
        add_once(texts, name, text, path=path, number=number)
    return texts


def json_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, id and text of each JSON object of a file; one is held at a time.

    Args:
        path: Objects with ``_id`` (or ``id``, ``docno``, ``doc_id``, ``qid``, ``query_id``), ``text`` (or ``contents``,
            ``body``, ``query``) and perhaps ``title``, which comes before the text. An object with a title alone is
            that.

    Raises:
        FileNotFoundError: If there is no file.
        LoadError: Naming the line, if an object lacks a field or one is no text.
    """
    for number, value in json_objects(path):
        name = text_field(value, ("_id", "id", "docno", "doc_id", "qid", "query_id"), path=path, number=number)
        title = text_field(value, ("title",), path=path, number=number) if value.get("title") else ""
        names = ("text", "contents", "body", "query")
        lacks_text = not any(each in value for each in names)
        text = "" if title and lacks_text else text_field(value, names, path=path, number=number)
        yield number, name, f"{title} {text}".strip()


def read_beir_qrels(path: Path) -> Qrels:
    """Read the judgements of one split: ``query-id``, ``corpus-id`` and ``score``, apart by tabs, under that header.

    Raises:
        FileNotFoundError: If there is no file.
        LoadError: Naming the line.
    """
    qrels: Qrels = {}
    headed = False
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if not headed:
            if fields != _HEADER:
                raise line_error(path, number, f"the first line must be {_HEADER}, apart by tabs, got {fields}")
            headed = True
            continue
        if len(fields) != 3 or not all(fields):
            raise line_error(path, number, f"must have the three fields {_HEADER} apart by tabs, got {fields}")
        add_judgement(qrels, *fields, path=path, number=number)
    return qrels
