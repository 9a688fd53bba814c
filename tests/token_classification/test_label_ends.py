"""Labels that mark where entities end, in pipelines."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_encoder.token_classification.aggregation import Aggregation, Piece, aggregate
from sparse_encoder.token_classification.tags import scheme_of_labels

KINDS = ("X", "Y")


def groups(tags: list[str], letters: str, *, strategy: str = "simple") -> list[tuple[str, int, int]]:
    """Aggregate a text of one letter a word, each with a tag."""
    names = ["O", *(f"{letter}-{kind}" for letter in letters for kind in KINDS)]
    pieces = [
        Piece(
            token=f"t{place}",
            scores=np.eye(len(names), dtype=np.float32)[names.index(tag)],
            start=2 * place,
            end=2 * place + 1,
            index=place + 1,
            goes_on=False,
        )
        for place, tag in enumerate(tags)
    ]
    found = aggregate(pieces, names, Aggregation(strategy=strategy), join=" ".join)
    return [(each["entity_group"], each["start"] // 2, (each["end"] + 1) // 2) for each in found]


@pytest.mark.parametrize("strategy", ["simple", "first"])
@pytest.mark.parametrize(("letters", "end", "single"), [("BIES", "E", "S"), ("BILU", "L", "U")])
def test_entities_end_where_their_labels_say(letters: str, end: str, single: str, strategy: str) -> None:
    tags = ["B-X", "I-X", f"{end}-X", f"{single}-X", f"{single}-X", "O", "B-Y", f"{end}-Y", "I-Y", f"{end}-X"]
    wanted = [("X", 0, 3), ("X", 3, 4), ("X", 4, 5), ("Y", 6, 8), ("Y", 8, 9), ("X", 9, 10)]
    assert groups(tags, letters, strategy=strategy) == wanted


def test_labels_are_of_a_scheme_if_all_are() -> None:
    assert scheme_of_labels(["O", "B-X", "I-X"]) == "IOB2"
    assert scheme_of_labels(["O", "B-X", "I-X", "E-X"]) == "IOBES"
    assert scheme_of_labels(["O", "U-X"]) == "BILOU"
    assert scheme_of_labels(["O", "B-X", "E-F", "GPE-LOC"]) is None
    assert scheme_of_labels(["B-X", "S-X", "L-X"]) is None
