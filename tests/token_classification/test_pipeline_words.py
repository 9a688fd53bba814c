"""Words, blanks and marks in the pipeline, whatever the tokenizer; and that scores are those of one text alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from token_classification_helpers import IdTagger, splitting, tagger, tokenizer

from sparse_encoder.token_classification import TokenClassificationPipeline
from sparse_encoder.token_classification.aggregation import Aggregation, Piece, aggregate, trimmed
from sparse_encoder.token_classification.windows import Tokens, joined
from sparse_encoder.tokenizer import Tokenizer

CORPUS = ["Zoë Sylvain works from New York to façade 東京", "New York\u3000x from to works at हिन्दी"] * 3
NAMES = ["O", "B-LOC", "I-LOC"]
KINDS = ["bytes", "metaspace", "whole"]


def tags_by_text(own: Tokenizer, text: str, begin: str, inside: list[str]) -> TokenClassificationPipeline:
    """Make a pipeline that labels the tokens of ``begin`` and ``inside`` in this text, and no others."""
    labels = {}
    encoding = own.encode_windows([text]).encodings[0]
    for number, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        piece = text[start:stop].strip()
        if piece and any(piece in word for word in [begin, *inside]):
            labels[number] = 1 if begin.startswith(piece) else 2
    return TokenClassificationPipeline(IdTagger(NAMES, labels, own.vocab_size), own)  # type: ignore[arg-type]


def everything(kind: str, strategy: str) -> TokenClassificationPipeline:
    own = splitting(kind, CORPUS)
    model = IdTagger(NAMES, dict.fromkeys(range(own.vocab_size), 2), own.vocab_size)
    return TokenClassificationPipeline(model, own, aggregation_strategy=strategy)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.parametrize("text", ["Zoë façade 東京", "works at हिन्दी", "York façade"])
def test_the_word_is_what_the_text_has(kind: str, strategy: str, text: str) -> None:
    (found,) = everything(kind, strategy)(text)
    assert found["word"].strip() == text
    assert text[found["start"] : found["end"]] == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_blanks_are_no_entities(kind: str, strategy: str) -> None:
    text = "  from New   York \t to "
    tagging = everything(kind, strategy)
    for each in tagging(text):
        piece = text[each["start"] : each["end"]]
        assert piece.strip() == piece != ""
    assert tagging("   ") == []


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_blanks_cut_no_entity(strategy: str) -> None:
    text = "from New  York to"
    own = splitting("bytes", CORPUS)
    assert "Ġ" in own.encode_windows([text]).encodings[0].tokens  # the second blank is a token, with a label of its own
    (found,) = tags_by_text(own, text, "New", ["York"])(text, aggregation_strategy=strategy)
    assert text[found["start"] : found["end"]] == "New  York"
    assert found["word"] == " New  York"


def test_a_text_that_the_tokenizer_does_not_split_has_words() -> None:
    own = splitting("whole", CORPUS)
    text = "from New York to"
    assert set(own.encode_windows([text]).encodings[0].word_ids) == {0}
    tagging = tags_by_text(own, text, "New", ["York"])
    for strategy in ("first", "average", "max"):
        spans = [(each["start"], each["end"]) for each in tagging(text, aggregation_strategy=strategy)]
        assert spans == [(5, 13)]
        words = tagging(text, aggregation_strategy=strategy, ignore_labels=[])
        assert [text[each["start"] : each["end"]] for each in words] == ["from", "New York", "to"]


def test_a_word_in_a_list_may_have_blanks() -> None:
    tagging = everything("whole", "first")
    tagging.model.id2label = {0: "O", 1: "B-LOC", 2: "B-LOC"}
    tagging._names = ["O", "B-LOC", "B-LOC"]
    found = tagging(["New York", "to"], is_split_into_words=True)
    assert [(each["start"], each["end"]) for each in found] == [(0, 8), (9, 11)]


def test_a_blank_that_begins_a_word_judges_it() -> None:
    own = splitting("metaspace", CORPUS)
    text = "to 東京"
    encoding = own.encode_windows([text]).encodings[0]
    blank = own.encode_windows(["東"]).encodings[0].ids[0]
    assert encoding.tokens[-3:] == ["▁", "東", "京"]
    model = IdTagger(NAMES, {blank: 1}, own.vocab_size)
    tagging = TokenClassificationPipeline(model, own, aggregation_strategy="first")  # type: ignore[arg-type]
    assert (3, 5) in [(each["start"], each["end"]) for each in tagging(text)]
    assert tagging.label_words([["東京"]]) == [["B-LOC"]]


def test_pieces_of_a_word_have_one_label() -> None:
    own = tokenizer(model_max_length=16)
    model = IdTagger(["O", "B-PER", "I-PER"], {5: 1}, own.vocab_size)  # sy, and neither ##lva nor ##in
    tagging = partial(TokenClassificationPipeline(model, own), "a sylvain")  # type: ignore[arg-type]
    assert [(each["word"], each["start"], each["end"]) for each in tagging(aggregation_strategy="first")] == [
        ("sylvain", 2, 9)
    ]
    assert [each["word"] for each in tagging(aggregation_strategy="simple")] == ["sy"]
    assert tagging(aggregation_strategy="average") == []  # two of three pieces are outside
    assert [each["word"] for each in tagging(aggregation_strategy="max")] == ["sylvain"]


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("ह\u093fन", (0, 1), "ह\u093f"),  # a spacing vowel sign, of class 0
        ("न\u094d\u0926", (0, 1), "न\u094d"),
        ("ส\u0e27\u0e31\u0e2a", (1, 2), "\u0e27\u0e31"),
        ("☕\ufe0fx", (0, 1), "☕\ufe0f"),
        ("👩\u200d🚀 ok", (0, 1), "👩\u200d🚀"),
        ("👍🏽!", (0, 1), "👍🏽"),
        ("a\u200db", (0, 1), "a\u200d"),
        ("ab  ", (0, 4), "ab"),
        ("ab", (0, 1), "a"),
        ("aé", (0, 1), "a"),
    ],
)
def test_all_marks_stay_with_their_letters(text: str, span: tuple[int, int], expected: str) -> None:
    start, stop = trimmed(text, *span)
    assert text[start:stop] == expected


def test_halves_of_characters_move_no_offset() -> None:
    own = tokenizer(model_max_length=16)
    model = IdTagger(["O", "B-PER"], {4: 1}, own.vocab_size)
    tagging = TokenClassificationPipeline(model, own)  # type: ignore[arg-type]
    whole = "a \U0001f600 zoe"
    halves = "a \ud83d\ude00 zoe"
    alone = "a \ud83d zoe"
    assert [(each["start"], each["end"]) for each in tagging(halves)] == [(4, 7)]
    assert tagging([whole, halves])[0] == tagging(halves)
    assert [(each["start"], each["end"]) for each in tagging(alone)] == [(4, 7)]
    words = tagging(["\ud83d\ude00", "zoe"], is_split_into_words=True)
    assert [(each["start"], each["end"]) for each in words] == [(2, 5)]


@pytest.mark.parametrize("strategy", ["none", "average"])
def test_the_side_of_padding_moves_nothing(strategy: str) -> None:
    texts = ["Zoe works at Sylvain .", "a", "Sylvain works at a . zoe at Sylvain"]
    left, right = (
        TokenClassificationPipeline(
            tagger(),
            tokenizer(model_max_length=16, padding_side=side),
            aggregation_strategy=strategy,
            ignore_labels=[],
        )
        for side in ("left", "right")
    )
    assert left.tokenizer.padding_side == "left"
    assert left(texts) == right(texts)
    ids = torch.tensor([left.tokenizer.encode(texts[0])])
    scores = tagger()(ids, torch.ones_like(ids)).logits.detach().softmax(-1)[0, 1:-1].amax(-1)
    if strategy == "none":
        assert [each["score"] for each in left(texts)[0]] == pytest.approx(scores.tolist(), abs=1e-6)


def test_the_window_that_sees_most_is_believed() -> None:
    def window(begin: int, length: int, value: float) -> Tokens:
        scores = np.full((length, 1), value, dtype=np.float32)
        places = list(range(begin, begin + length))
        return Tokens([str(place) for place in places], places, [(0, 0)] * length, list(places), scores, 1)

    tokens = joined([window(0, 6, 0.0), window(2, 6, 1.0), window(4, 5, 2.0)], 4, "right")
    assert tokens.ids == list(range(9))
    assert tokens.scores[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    tokens = joined([window(3, 6, 0.0), window(1, 6, 1.0), window(0, 5, 2.0)], 4, "left")
    assert tokens.ids == list(range(9))


def test_one_score_stays_what_it_is() -> None:
    scores = np.array([0.1, 0.7, 0.2], dtype=np.float32)
    piece = Piece("▁x", scores, 0, 1, 1, False)
    for strategy in ("simple", "first", "average", "max"):
        (found,) = aggregate([piece], NAMES, Aggregation(strategy=strategy), join=" ".join)
        assert found == {"entity_group": "LOC", "score": float(scores[1]), "word": "▁x", "start": 0, "end": 1}
        assert type(found["score"]) is float


def test_texts_are_decoded_once() -> None:
    found = everything("metaspace", "average")("New York works")
    assert [each["word"] for each in found] == ["New York works"]
