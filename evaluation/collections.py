"""A test collection: documents, queries, and how relevant which document is. Knows no model; readers are beside it."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation.checks import check_ids_and_texts
from sparse_encoder.evaluation.judgements import check_grade


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """What a search is measured with.

    For an evaluator in a training: ``SparseInformationRetrievalEvaluator(collection.queries, collection.corpus,
    collection.qrels, skip_own_id=collection.skip_own_id, allow_unknown=collection.allow_unknown)``.

    Raises:
        TypeError: If an id or a text is no text, naming the id, or a grade no number, naming query and document.
        ValueError: If there are no documents, no queries or no judgements, an id is empty, a judgement names a query or
            a document that is not there, or a grade is not finite or above 2**53.
    """

    name: str
    """For titles and files."""
    corpus: Mapping[str, str]
    """Texts of the documents by id."""
    queries: Mapping[str, str]
    """Texts of the queries by id; those without judgements are not searched for."""
    qrels: Mapping[str, Mapping[str, int]]
    """Grades by id of the document, by id of the query; above 0 is relevant. A query whose grades are all 0 or below
    counts, with 0 for every metric, as in trec_eval; one without grades does not."""
    skip_own_id: bool = False
    """Whether a document with the query's own id is not to be found, as BEIR has it (ArguAna asks with documents).
    Where ids are mere numbers, as in MS MARCO, equal ids mean nothing."""
    allow_unknown: bool = False
    """Whether judgements may name documents that are not there, which then count as never found, and queries, which
    are then left out. :class:`SparseInformationRetrievalEvaluator` has both rules."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        for what in ("corpus", "queries", "qrels"):
            if not getattr(self, what):
                raise ValueError(f"collection {self.name!r} has an empty {what}")
        for what, texts in (("corpus", self.corpus), ("queries", self.queries)):
            check_ids_and_texts(what, list(texts), list(texts.values()))
            for key in texts:
                if not isinstance(key, str):
                    raise TypeError(f"collection {self.name!r}: ids must be texts, {what} has {key!r}")
                if not key:
                    raise ValueError(
                        f"collection {self.name!r}: ids must not be empty, {what} has {texts[key]!r} under ''"
                    )
        for query, grades in self.qrels.items():
            if query not in self.queries and not self.allow_unknown:
                raise ValueError(
                    f"collection {self.name!r}: the qrels name the unknown query {query!r}; allow_unknown=True "
                    "(--allow-unknown) leaves it out"
                )
            for document, grade in grades.items():
                check_grade(query, document, grade)
                if document not in self.corpus and not self.allow_unknown:
                    raise ValueError(
                        f"collection {self.name!r}: the qrels of query {query!r} name the unknown document "
                        f"{document!r}; allow_unknown=True (--allow-unknown) takes it as never found"
                    )
        judged = {query: grades for query, grades in self.qrels.items() if grades and query in self.queries}
        if not judged:
            raise ValueError(f"collection {self.name!r} has no judgements for any of its queries")
        if len(judged) < len(self.qrels):
            object.__setattr__(self, "qrels", judged)  # what a frozen class allows itself

    @property
    def judged_queries(self) -> dict[str, str]:
        """The queries that have judgements, in their order."""
        return {query: text for query, text in self.queries.items() if query in self.qrels}


def load_collection(
    source: str | PathLike[str], *, split: str | None = None, allow_unknown: bool = False
) -> Collection:
    """Read a collection from a folder, or by its ``ir_datasets`` id.

    Folders are told apart by what they hold: BEIR's has ``corpus.jsonl``
    (:func:`~sparse_encoder.evaluation.beir_folder.read_beir_folder`), NanoBEIR's the folders ``corpus``, ``queries``
    and ``qrels`` (:func:`~sparse_encoder.evaluation.nano_folder.read_nano_folder`), TREC's a file of topics
    (:func:`~sparse_encoder.evaluation.trec_folder.read_trec_folder`).

    Args:
        source: A folder, or an id such as ``msmarco-passage/dev/small``.
        split: Which queries and judgements of a folder; ``None``: ``test`` of BEIR, else the only one.
        allow_unknown: As in :class:`Collection`.

    Raises:
        FileNotFoundError: If there is no such folder, file or split.
        ImportError: If it is no folder and ``ir_datasets`` is not installed.
        ValueError: If the id is unknown to ``ir_datasets``, or the collection cannot be measured.
        LoadError: Naming file and line, if a file is not what it should be.
    """
    folder = Path(source)
    if folder.is_dir():
        return _read_folder(folder, split, allow_unknown)
    if folder.exists():
        raise LoadError("a collection is a folder or an ir_datasets id, this is a file", path=folder)
    if split is not None:
        raise ValueError(f"there is no folder {source}; ir_datasets ids name their split themselves, got {split!r}")
    from sparse_encoder.evaluation.ir_datasets_source import read_ir_dataset

    return read_ir_dataset(str(source), allow_unknown=allow_unknown)


def _read_folder(folder: Path, split: str | None, allow_unknown: bool) -> Collection:
    from sparse_encoder.evaluation.beir_folder import is_beir_folder, read_beir_folder
    from sparse_encoder.evaluation.nano_folder import is_nano_folder, read_nano_folder
    from sparse_encoder.evaluation.trec_folder import is_trec_folder, read_trec_folder

    if is_beir_folder(folder):
        return read_beir_folder(folder, split or "test", allow_unknown=allow_unknown)
    if is_nano_folder(folder):
        return read_nano_folder(folder, split, allow_unknown=allow_unknown)
    if is_trec_folder(folder):
        return read_trec_folder(folder, split, allow_unknown=allow_unknown)
    raise LoadError(
        "holds no collection: BEIR has corpus.jsonl, queries.jsonl and qrels/<split>.tsv, NanoBEIR the folders corpus, "
        "queries and qrels, TREC the files topics.*, qrels.* and documents.*",
        path=folder,
    )


def choose_split(splits: Names[str], split: str | None, folder: Path) -> str:
    """Take the split asked for, or the only one.

    Args:
        splits: Those there are.
        split: The one asked for, or ``None``.
        folder: For errors.

    Raises:
        FileNotFoundError: If it is not there, or there are several and none was asked for.
    """
    if split is None and len(splits) == 1:
        return next(iter(splits))
    if split is None or split not in splits:
        asked = "choose a split" if split is None else f"there is no split {split!r}"
        raise FileNotFoundError(f"{folder}: {asked}; there are {sorted(splits)}")
    return split
