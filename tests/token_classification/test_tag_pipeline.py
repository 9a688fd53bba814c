"""The pipeline beyond the peer's: seams, words, marks, devices, inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_classification_helpers import tagger, tokenizer
from torch import Tensor, nn

from sparse_encoder.token_batches import plan_batches
from sparse_encoder.token_classification import TokenClassificationPipeline
from sparse_encoder.token_classification.aggregation import merge_overlapping, trimmed
from sparse_encoder.token_classification.model import TokenClassifierOutput
from sparse_encoder.token_classification.windows import begins_of

TEXT = "Zoe works at Sylvain . a Sylvain works"


pipeline = partial(TokenClassificationPipeline, tagger(), tokenizer(model_max_length=16))


class Oracle(nn.Module):
    """Label tokens by their ids alone, and count calls: what context and windows cannot change."""

    names = ["O", "B-PER", "I-PER"]

    def __init__(self) -> None:
        super().__init__()
        self.config = tagger().config
        self.id2label = dict(enumerate(self.names))
        self.num_labels = 3
        self.head = nn.Module()
        self.head.crf = None
        self.device = torch.device("cpu")
        self.widths: list[tuple[int, ...]] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> TokenClassifierOutput:
        assert input_ids.shape == attention_mask.shape == token_type_ids.shape
        self.widths.append(tuple(input_ids.shape))
        label = torch.zeros_like(input_ids)
        label[input_ids == 5] = 1  # sy
        label[(input_ids == 6) | (input_ids == 7)] = 2  # ##lva, ##in
        return TokenClassifierOutput(logits=nn.functional.one_hot(label, 3).float() * 9)


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stride", [None, 0, 1, 3])
def test_no_entity_is_lost_or_cut_at_a_seam(strategy: str, side: str, stride: int | None) -> None:
    text = "a sylvain at works sylvain . sylvain zoe " * 7
    wanted = [(place, place + 7) for place in range(len(text)) if text.startswith("sylvain", place)]
    for limit in range(6, 16):
        tagging = TokenClassificationPipeline(
            Oracle(),  # type: ignore[arg-type]
            tokenizer(model_max_length=limit, truncation_side=side),
            aggregation_strategy=strategy,
            stride=stride,
        )
        found = tagging(text)
        assert [(each["start"], each["end"]) for each in found] == wanted
        assert {each["word"] for each in found} == {"sylvain"}


def test_a_window_alone_and_windows_give_tokens_their_places() -> None:
    text = "a sylvain " * 6
    one = TokenClassificationPipeline(Oracle(), tokenizer(model_max_length=99), ignore_labels=[])  # type: ignore[arg-type]
    one._max_length = 99  # the oracle takes any length
    several = TokenClassificationPipeline(Oracle(), tokenizer(model_max_length=8), ignore_labels=[])  # type: ignore[arg-type]
    assert several(text) == one(text)
    assert [each["index"] for each in several(text)] == list(range(1, 25))


def test_a_text_has_the_same_scores_in_every_company() -> None:
    texts = [TEXT[:length] for length in range(1, len(TEXT), 3)] + [TEXT * 3]
    alone = [pipeline(aggregation_strategy="average", ignore_labels=[])(text) for text in texts]
    assert pipeline(aggregation_strategy="average", ignore_labels=[])(texts) == alone
    assert pipeline(aggregation_strategy="average", ignore_labels=[], batch_size=2)(texts[::-1])[::-1] == alone


def test_several_devices_share_the_work() -> None:
    texts = [TEXT[:length] for length in range(1, len(TEXT))]
    assert pipeline(device=["cpu", "cpu"], batch_size=3)(texts) == pipeline(device="cpu")(texts)


def test_invisible_characters_do_not_join_words_and_marks_stay_with_their_letters() -> None:
    text = "visit zo\u200be at Zoe\u0301 works"
    legacy = pipeline(aggregation_strategy="first", ignore_labels=[], legacy_subword=True)
    ours = pipeline(aggregation_strategy="first", ignore_labels=[])
    spans = {text[each["start"] : each["end"]] for each in pipeline(ignore_labels=[])(text)}
    assert "Zoe\u0301" in spans
    assert "zo\u200be" in spans
    assert sum(each["word"].count(" ") for each in ours(text)) <= sum(each["word"].count(" ") for each in legacy(text))


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [(" ab", (0, 3), (1, 3)), ("e\u0301\u0323x", (0, 1), (0, 3)), ("ab", (0, 2), (0, 2)), ("  ", (0, 2), (2, 2))],
)
def test_borders(text: str, span: tuple[int, int], expected: tuple[int, int]) -> None:
    assert trimmed(text, *span) == expected


def test_only_prefixes_are_taken_off_names() -> None:
    model = tagger()
    model.id2label = {0: "GPE-LOC", 1: "B-GPE-LOC", 2: "I-X", 3: "E-F", 4: "O"}
    found = TokenClassificationPipeline(model, tokenizer(model_max_length=16), aggregation_strategy="simple")(TEXT)
    assert {each["entity_group"] for each in found} <= {"GPE-LOC", "X", "E-F"}
    assert "score" in json.loads(json.dumps(found))[0]


def test_a_threshold_keeps_the_likely() -> None:
    every = pipeline(ignore_labels=[])(TEXT)
    bound = float(np.median([each["score"] for each in every]))
    assert pipeline(ignore_labels=[], threshold=bound)(TEXT) == [each for each in every if each["score"] >= bound]
    assert pipeline()(TEXT, ignore_labels=[], threshold=bound) == pipeline(ignore_labels=[], threshold=bound)(TEXT)


def test_words_keep_their_places_and_count_as_words() -> None:
    words = ["Sylvain", "", "works", "Zoe."]
    found = pipeline(aggregation_strategy="first", ignore_labels=[])(words, is_split_into_words=True)
    text = " ".join(words)
    assert all(text[each["start"] : each["end"]].strip() == text[each["start"] : each["end"]] for each in found)
    tokens = pipeline(ignore_labels=[])(words, is_split_into_words=True, delimiter="_")
    assert [("_".join(words))[each["start"] : each["end"]] for each in tokens] == [
        "Sy",
        "lva",
        "in",
        "works",
        "Zoe",
        ".",
    ]
    assert pipeline()([words, ["a"]], is_split_into_words=True)[1] == pipeline()(["a"], is_split_into_words=True)


def test_words_are_labelled_whatever_their_number_of_tokens() -> None:
    tagging = TokenClassificationPipeline(Oracle(), tokenizer(model_max_length=6))  # type: ignore[arg-type]
    sentences = [["a", "Sylvain", "", "at"] * 9, [], ["\u200b", "Sylvain"]]
    assert tagging.label_words(sentences, batch_size=2) == [["O", "B-PER", "O", "O"] * 9, [], ["O", "B-PER"]]
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a list of words"):
        tagging.label_words([["a"], "b"])


def test_forms_of_input() -> None:
    tagging = pipeline(ignore_labels=[])
    assert tagging("") == []
    assert tagging(["", "a"])[0] == []
    assert tagging(("a", "at")) == tagging(["a", "at"])
    stream = tagging(text for text in ["a", "at"])
    assert isinstance(stream, Iterator)
    assert list(stream) == tagging(["a", "at"])


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least one text"),
        (3, {}, TypeError, "inputs must be a text or texts, got int"),
        ({"text": "a"}, {}, TypeError, "got dict"),
        (["a", None], {}, TypeError, r"inputs\[1\] must be a text, got NoneType"),
        ([{"text": "a"}], {}, TypeError, r"pass the column, dataset\['text'\]"),
        ("a", {"is_split_into_words": True}, TypeError, "must be a list of words, got a str"),
        ([["a"], "b"], {"is_split_into_words": True}, TypeError, r"inputs\[1\] must be a list of words"),
        ([["a", 3]], {"is_split_into_words": True}, TypeError, r"inputs\[0\]\[1\] must be a word, got 3"),
        ("a", {"aggregation_strategy": "last"}, ValueError, "unknown aggregation_strategy 'last'; choose from"),
        ("a", {"stride": 14}, ValueError, "stride must be between 0 and 13, so that windows move on, got 14"),
        ("a", {"stride": -1}, ValueError, "stride must be between 0"),
        ("a", {"threshold": 1.5}, ValueError, "threshold must be between 0 and 1"),
        ("a", {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ("a", {"ignore_labels": "O"}, TypeError, "ignore_labels must be a list of labels"),
        (["a", "b"], {"offset_mapping": [[(0, 1)]]}, ValueError, "a list for each of the 2 texts, got 1"),
        ("a", {"offset_mapping": [(0, 0)]}, ValueError, "a pair for each token, special ones too, at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(inputs: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        pipeline()(inputs, **options)


def test_options_of_transformers_that_make_no_sense_together() -> None:
    with pytest.raises(ValueError, match="stride needs an aggregation_strategy other than 'none'"):
        pipeline(legacy_subword=True, stride=2)
    with pytest.raises(ValueError, match="does not go with an iterator"):
        pipeline()(iter(["a"]), offset_mapping=[(0, 1)])
    with pytest.raises(ValueError, match="an empty list"):
        pipeline(device=[])


def test_a_bar_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline()(["a"])
    assert capsys.readouterr().err == ""
    pipeline()(["a"], show_progress_bar=True)
    assert "tagging" in capsys.readouterr().err


def test_a_folder_and_its_dtype(tmp_path: Path) -> None:
    tagger().save_pretrained(tmp_path)
    tokenizer(model_max_length=16).save_pretrained(tmp_path)
    loaded = TokenClassificationPipeline.from_pretrained(tmp_path, dtype="bfloat16", ignore_labels=[])
    assert loaded.model.dtype == torch.bfloat16
    for one, other in zip(loaded(TEXT), pipeline(ignore_labels=[])(TEXT), strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=0.1)


def test_overlapping_entities_are_chosen_from_as_in_transformers() -> None:
    def entity(start: int, end: int, score: float) -> dict[str, Any]:
        return {"start": start, "end": end, "score": score}

    found = [entity(5, 9, 0.2), entity(0, 3, 0.5), entity(2, 6, 0.1), entity(9, 10, 0.3), entity(9, 10, 0.4)]
    assert merge_overlapping(found) == [entity(5, 9, 0.2), entity(9, 10, 0.4)]
    assert merge_overlapping([]) == []


def test_batches_have_one_width_and_a_bound() -> None:
    lengths = [3, 300, 17, 16, 5, 299] * 40
    planned = plan_batches(lengths, max_length=512, batch_size=1000, token_budget=2048)
    batches = [(batch.length, batch.rows) for batch in planned]
    assert sorted(row for _, rows in batches for row in rows) == list(range(240))
    for width, rows in batches:
        assert width * len(rows) <= 2048
        assert all(lengths[row] <= width < lengths[row] + 16 or width == 16 for row in rows)
    assert max(len(batch.rows) for batch in plan_batches(lengths, max_length=512, batch_size=7)) == 7


def test_windows_begin_where_the_tokenizer_has_them() -> None:
    assert begins_of([4, 4, 3], 1, "right") == [0, 3, 6]
    assert begins_of([4, 4, 3], 1, "left") == [5, 2, 0]
    assert begins_of([3], 1, "left") == [0]
