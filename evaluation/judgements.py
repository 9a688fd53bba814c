"""Which document is how relevant to which query, as users write it down; knows no texts and no model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite
from numbers import Real

Judgements = Mapping[str, Collection[str] | Mapping[str, float]]
"""By query: the ids of relevant documents, or grades by id; above 0 is relevant, anything else judged not to be."""
MAX_GRADE = 2**53
"""Above, a float does not hold every integer, and sums of gains may be more than floats hold."""


def read_judgements(
    judgements: Judgements, queries: Collection[str], corpus: Collection[str], *, allow_unknown: bool = False
) -> dict[str, dict[str, float]]:
    """Bring judgements to the positive grades of each query; without grades they are 1.

    A query whose grades are all 0 or below is judged, and has no relevant document: it counts, and whatever is found
    for it is worth 0, as trec_eval and ir_measures have it. A query without ids and without grades is not judged.

    Args:
        judgements: As users write them.
        queries: Ids of the queries.
        corpus: Ids of the documents.
        allow_unknown: Leave judgements of other queries out, and keep other documents, which nothing will find.

    Returns:
        For the queries that are judged, in the order of ``queries``.

    Raises:
        TypeError: If something is not what it should be, naming the query.
        ValueError: If a grade is not finite or too large, or an id is unknown, naming query and document.
    """
    if not isinstance(judgements, Mapping):
        raise TypeError(f"relevant_docs must be a dict by query, got {type(judgements).__name__}")
    found = {}
    for query, documents in judgements.items():
        if query not in queries and not allow_unknown:
            raise ValueError(f"relevant_docs names the unknown query {query!r}; {_ALLOW}")
        grades = _grades(query, documents)
        for document in grades:
            if document not in corpus and not allow_unknown:
                raise ValueError(f"relevant_docs of query {query!r} names the unknown document {document!r}; {_ALLOW}")
        if grades:
            found[query] = {document: grade for document, grade in grades.items() if grade > 0}
    return {query: found[query] for query in queries if query in found}


_ALLOW = "allow_unknown=True leaves out unknown queries and takes unknown documents as never found"


def _grades(query: str, documents: Collection[str] | Mapping[str, float]) -> dict[str, float]:
    """Return the grades of one query."""
    if isinstance(documents, str) or not isinstance(documents, Collection):
        raise TypeError(
            f"relevant_docs must hold ids, or grades by id, for each query, query {query!r} has {documents!r} "
            f"({type(documents).__name__})"
        )
    if not isinstance(documents, Mapping):
        return dict.fromkeys(documents, 1.0)
    for document, grade in documents.items():
        check_grade(query, document, grade)
    return {document: float(grade) for document, grade in documents.items()}


def check_grade(query: str, document: str, grade: object) -> None:
    """Refuse a grade that is no gain.

    Raises:
        TypeError: If it is no number, naming query and document.
        ValueError: If it is not finite, or above :data:`MAX_GRADE`, likewise.
    """
    if isinstance(grade, bool) or not isinstance(grade, Real):
        raise TypeError(f"grades must be numbers, document {document!r} of query {query!r} has {grade!r}")
    number = grade if isinstance(grade, int) else float(grade)  # an integer may be too large for a float
    if isinstance(number, float) and not isfinite(number):
        raise ValueError(f"grades must be finite, document {document!r} of query {query!r} has {grade}")
    if abs(number) > MAX_GRADE:
        raise ValueError(f"grades must be at most 2**53, document {document!r} of query {query!r} has {grade}")
