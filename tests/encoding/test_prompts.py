from __future__ import annotations

import logging

import pytest

from sparse_encoder.encoding.prompts import (
    check_default_prompt_name,
    document_prompt_name,
    merge_prompts,
    query_prompt_name,
    resolve_prompt,
)

PROMPTS = {"query": "q: ", "document": "", "title": "t: "}


@pytest.mark.parametrize(
    ("given", "saved", "expected"),
    [
        (None, None, {"query": "", "document": ""}),
        (None, {"query": "s: "}, {"query": "s: ", "document": ""}),
        ({"query": "g: "}, {"query": "s: ", "title": "t: "}, {"query": "g: ", "document": "", "title": "t: "}),
        ({"query": None}, {"query": "s: "}, {"query": "s: ", "document": ""}),
        ({"query": "", "document": ""}, {"query": "s: ", "document": "d: "}, {"query": "", "document": ""}),
    ],
)
def test_given_prompts_win_and_saved_ones_fill_gaps(
    given: dict[str, str | None] | None, saved: dict[str, str] | None, expected: dict[str, str]
) -> None:
    assert merge_prompts(given, saved) == expected


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="prompt 'query' must be a string, got int"):
        merge_prompts({"query": 3}, None)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("prompt", "name", "default", "expected"),
    [
        (None, None, None, ""),
        (None, None, "title", "t: "),
        (None, "query", "title", "q: "),
        (None, "document", "title", ""),  # an empty prompt is a prompt: it keeps the default one away
        ("own: ", None, "title", "own: "),
        ("", None, "title", ""),
    ],
)
def test_order_of_prompts(prompt: str | None, name: str | None, default: str | None, expected: str) -> None:
    assert resolve_prompt(PROMPTS, prompt=prompt, prompt_name=name, default_prompt_name=default) == expected


def test_a_prompt_beside_a_name_wins_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = resolve_prompt(PROMPTS, prompt="own: ", prompt_name="query", default_prompt_name=None)
    assert found == "own: "
    assert "prompt wins" in caplog.text


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown prompt_name 'x'; choose from \['document', 'query', 'title'\]"):
        resolve_prompt(PROMPTS, prompt=None, prompt_name="x", default_prompt_name=None)
    with pytest.raises(ValueError, match="unknown default_prompt_name 'x'"):
        check_default_prompt_name("x", PROMPTS)
    check_default_prompt_name(None, PROMPTS)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"query": "", "document": ""}, "document"),
        ({"query": "", "document": "", "passage": "p: "}, "passage"),
        ({"query": "", "document": "", "corpus": "c: "}, "corpus"),
        ({"query": "", "document": "", "corpus": "c: ", "passage": "p: "}, "passage"),
        ({"query": "", "document": "d: ", "passage": "p: "}, "document"),
        ({"corpus": ""}, "corpus"),
        ({"title": "t: "}, None),
    ],
)
def test_documents_get_the_first_prompt_that_is_not_empty(prompts: dict[str, str], expected: str | None) -> None:
    assert document_prompt_name(prompts) == expected


def test_queries_get_their_prompt_even_if_it_is_empty() -> None:
    assert query_prompt_name({"query": ""}) == "query"
    assert query_prompt_name({"title": "t: "}) is None
