"""Schemes of tags: read, checked, found out and converted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_encoder.token_classification import (
    Entity,
    check_tags,
    convert_tags,
    detect_scheme,
    find_entities,
    write_tags,
)
from sparse_encoder.token_classification.tags import SCHEMES, split_tag

labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")

ENTITIES = [Entity("PER", 0, 2), Entity("PER", 2, 3), Entity("GPE-LOC", 4, 7)]
WRITTEN = {
    "IOB1": ["I-PER", "I-PER", "B-PER", "O", "I-GPE-LOC", "I-GPE-LOC", "I-GPE-LOC", "O"],
    "IOB2": ["B-PER", "I-PER", "B-PER", "O", "B-GPE-LOC", "I-GPE-LOC", "I-GPE-LOC", "O"],
    "IOBES": ["B-PER", "E-PER", "S-PER", "O", "B-GPE-LOC", "I-GPE-LOC", "E-GPE-LOC", "O"],
    "BILOU": ["B-PER", "L-PER", "U-PER", "O", "B-GPE-LOC", "I-GPE-LOC", "L-GPE-LOC", "O"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_written_read_checked_and_found_out(scheme: str) -> None:
    tags = write_tags(ENTITIES, 8, scheme=scheme)
    assert tags == WRITTEN[scheme]
    assert find_entities(tags) == ENTITIES
    check_tags(tags, scheme)
    assert detect_scheme([["O"], tags]) == scheme


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[Entity], int]:
    entities, place = [], 0
    for _ in range(draw(st.integers(0, 5))):
        begin = place + draw(st.integers(0, 2))
        place = begin + draw(st.integers(1, 3))
        entities.append(Entity(draw(st.sampled_from(["A", "B-C", "O"])), begin, place))
    return entities, place + draw(st.integers(0, 2))


@given(sentences(), st.sampled_from(SCHEMES), st.sampled_from(SCHEMES))
def test_converting_there_and_back_changes_nothing(sentence: tuple[list[Entity], int], one: str, other: str) -> None:
    tags = write_tags(*sentence, scheme=one)
    assert find_entities(tags) == sentence[0]
    assert convert_tags(convert_tags(tags, other, source=one), one, source=other) == tags


@pytest.mark.parametrize(
    ("tag", "parts"),
    [("O", ("O", "")), ("B-GPE-LOC", ("B", "GPE-LOC")), ("GPE-LOC", ("", "GPE-LOC")), ("X", ("", "X"))],
)
def test_only_the_first_dash_behind_a_prefix_counts(tag: str, parts: tuple[str, str]) -> None:
    assert split_tag(tag) == parts


@pytest.mark.parametrize(
    ("tags", "scheme", "message"),
    [
        (["O", "I-PER"], "IOB2", "sentence 3, word 1: 'I-PER' needs B- or I- of its type before it in IOB2"),
        (["B-LOC", "I-PER"], "BIO", "sentence 3, word 1: 'I-PER' needs"),
        (["O", "B-PER"], "IOB1", "word 1: 'B-PER' must follow an entity of its type"),
        (["E-PER"], "IOBES", "word 0: 'E-PER' needs B- or I-"),
        (["B-PER", "O"], "IOBES", "word 1: 'O' must end the entity before it"),
        (["B-PER"], "IOBES", "word 1: the end must end the entity"),
        (["B-PER", "E-LOC"], "IOBES", "word 1: 'E-LOC' needs"),
        (["S-PER"], "IOB2", "unknown tag 'S-PER' in IOB2; choose O or one of B-TYPE, I-TYPE"),
        (["PER"], "IOB2", "unknown tag 'PER'"),
        (["B-"], "IOB2", "unknown tag 'B-'"),
    ],
)
def test_tags_that_break_their_scheme_are_named(tags: list[str], scheme: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_tags(tags, scheme, sentence=3)


def test_tags_of_no_scheme_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="fit none of .*; as IOB2: sentence 1, word 0: 'I-PER' needs"):
        detect_scheme([["B-PER", "O"], ["I-PER", "O", "B-PER"]])
    with pytest.raises(ValueError, match="as IOBES: sentence 0, word 1: 'O' must end"):
        detect_scheme([["B-PER", "O", "S-PER"]])


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scheme 'IOX'; choose from"):
        convert_tags(["O"], "IOX")


def test_tags_without_a_scheme_are_read_as_the_conll_script_does() -> None:
    assert find_entities(["I-PER", "I-LOC", "O", "E-LOC", "PER", "PER"]) == [
        Entity("PER", 0, 1),
        Entity("LOC", 1, 2),
        Entity("LOC", 3, 4),
        Entity("PER", 4, 6),
    ]


@pytest.mark.parametrize("entities", [[Entity("A", 0, 2), Entity("B", 1, 3)], [Entity("A", 1, 1)], [Entity("A", 2, 9)]])
def test_entities_must_be_apart_and_inside(entities: list[Entity]) -> None:
    with pytest.raises(ValueError, match="must be apart and within the 4 words"):
        write_tags(entities, 4)


@given(st.lists(st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIESLU" for kind in "XY")]), max_size=7))
def test_entities_are_those_of_seqeval(tags: list[str]) -> None:
    if not {tag[0] for tag in tags} & {"L", "U"}:  # seqeval has them in its strict mode only
        wanted = [(kind, begin, end + 1) for kind, begin, end in labeling.get_entities(tags)]
        assert [tuple(entity) for entity in find_entities(tags)] == wanted


def test_tags_without_a_prefix_are_no_entities() -> None:
    with pytest.raises(ValueError, match="word 1: only tags of entities have a scheme.* got 'NNP'"):
        convert_tags(["O", "NNP"], "IOB2")
    with pytest.raises(ValueError, match="unknown scheme 'BMEWO'"):
        convert_tags(["B-X"], "BMEWO")
