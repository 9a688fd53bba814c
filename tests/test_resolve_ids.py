from __future__ import annotations

import logging
import pickle
import warnings
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Features, List, Value

from sparse_encoder.util import resolve_ids
from sparse_encoder.util.dataset import RowNumbers

QUERIES = Dataset.from_dict({"query_id": ["q1", "q2"], "text": ["what", "who"]})
DOCUMENTS = Dataset.from_dict({"id": [7, 8, 9, 10], "body": ["seven", "eight", "nine", "ten"], "n": [0, 1, 2, 3]})
ROWS = Dataset.from_dict(
    {
        "query_id": ["q2", "q1", "q2"],
        "document_ids": [[9, 7], [7, 8], [8, 10]],
        "other": [1, 2, 3],
        "scores": [[0.5, 0.25], [1.0, 0.0], [2.0, 3.0]],
    }
)
LOOKUPS: dict[str, Any] = {"query_id": QUERIES, "document_ids": (DOCUMENTS, "id", "body")}


def test_lists_of_ids_become_numbered_columns_in_the_order_of_the_lookups() -> None:
    rows = ROWS.with_transform(resolve_ids(LOOKUPS))
    assert list(rows[0].items()) == [
        ("query", "who"),
        ("document_1", "nine"),
        ("document_2", "seven"),
        ("scores", [0.5, 0.25]),
    ]
    assert rows[1:]["document_2"] == ["eight", "ten"]


def test_lists_may_stay_lists_of_different_length() -> None:
    ragged = Dataset.from_dict({"entity_ids": [[9], [7, 8, 10]]})
    rows = ragged.with_transform(resolve_ids({"entity_ids": (DOCUMENTS, "id", "body")}, output_format="lists"))
    assert rows[:] == {"entities": [["nine"], ["seven", "eight", "ten"]]}
    with pytest.raises(ValueError, match=r"'entity_ids' have different lengths, \[1, 3\]; cut them with max_list"):
        ragged.with_transform(resolve_ids({"entity_ids": (DOCUMENTS, "id", "body")}))[:]


def test_lists_are_cut_with_their_scores() -> None:
    rows = ROWS.with_transform(resolve_ids(LOOKUPS, max_list_length=1))
    assert rows[0] == {"query": "who", "document_1": "nine", "scores": [0.5]}


def test_single_ids_become_one_column_each() -> None:
    triplets = Dataset.from_dict({"query_id": ["q1"], "positive_id": [8], "negative_id": [10], "label": [1]})
    lookups: dict[str, Any] = dict.fromkeys(("positive_id", "negative_id"), (DOCUMENTS, "id", "body"))
    transform = resolve_ids({"query_id": QUERIES, **lookups})
    assert triplets.with_transform(transform)[0] == {
        "query": "what",
        "positive": "eight",
        "negative": "ten",
        "label": 1,
    }
    assert transform.keywords["lookups"][1].rows is transform.keywords["lookups"][2].rows  # read once


def test_lists_in_strings_are_read() -> None:
    stored = Dataset.from_dict({"document_ids": ["[9, 7]"], "scores": [" [0.5, 0.25]"]})
    rows = stored.with_transform(resolve_ids({"document_ids": (DOCUMENTS, "id", "body")}, max_list_length=2))
    assert rows[0] == {"document_1": "nine", "document_2": "seven", "scores": [0.5, 0.25]}
    for bad in ("[9, ", "[9] + [7]"):
        broken = Dataset.from_dict({"document_ids": ["[9]", bad]})
        with pytest.raises(ValueError, match="'document_ids' seems to hold lists as strings, but not in"):
            broken.with_transform(resolve_ids({"document_ids": (DOCUMENTS, "id", "body")}))[:]


def test_other_columns_may_be_kept() -> None:
    rows = ROWS.with_transform(resolve_ids({"query_id": QUERIES}, keep_columns=["other", "absent"]))
    assert rows[0] == {"query": "who", "other": 1}


def test_of_equal_ids_the_last_counts(caplog: pytest.LogCaptureFixture) -> None:
    twice = Dataset.from_dict({"id": ["a", "b", "a"], "text": ["first", "b", "last"]})
    with caplog.at_level(logging.WARNING):
        transform = resolve_ids({"text_id": twice})
    assert transform({"text_id": ["a", "b"]}) == {"text": ["last", "b"]}
    assert [record for record in caplog.messages if "1 rows of lookups['text_id']" in record]


def test_lookups_of_any_format_and_selection_are_read() -> None:
    chosen = DOCUMENTS.with_format("numpy").select([3, 1])
    assert resolve_ids({"a_id": (chosen, "id", "body")})({"a_id": [8, 10]}) == {"a": ["eight", "ten"]}
    assert chosen.format["type"] == "numpy"


def test_the_transform_maps_and_pickles_and_streams() -> None:
    transform = pickle.loads(pickle.dumps(resolve_ids(LOOKUPS)))
    mapped = ROWS.map(transform, batched=True, remove_columns=ROWS.column_names)
    assert mapped[:] == ROWS.with_transform(transform)[:]
    features = Features(
        {**{name: Value("string") for name in ("query", "document_1", "document_2")}, "scores": List(Value("float64"))}
    )
    stream = ROWS.to_iterable_dataset().map(
        transform, batched=True, remove_columns=ROWS.column_names, features=features
    )
    assert list(stream) == list(mapped)


def test_no_rows_stay_no_rows() -> None:
    assert resolve_ids(LOOKUPS)({"query_id": [], "document_ids": []}) == {"query": [], "document": []}


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lookups": {}, "keep_columns": "label"}, TypeError, "keep_columns must be a list of names"),
    ({"lookups": {}, "max_list_length": 0}, ValueError, "max_list_length must be at least 1, got 0"),
    ({"lookups": {}, "output_format": "rows"}, ValueError, "output_format must be 'columns' or 'lists', got 'rows'"),
    ({"lookups": {"a": [1]}}, TypeError, r"lookups\['a'\] must be a datasets.Dataset, got list"),
    ({"lookups": {"a": DatasetDict({"x": QUERIES})}}, TypeError, "must be a datasets.Dataset, got DatasetDict"),
    ({"lookups": {"a": (QUERIES, "b", "c", "d")}}, ValueError, "got 4 parts"),
    ({"lookups": {"a": (QUERIES, "b")}}, ValueError, r"has no column 'b'; it has \['query_id', 'text'\]"),
    ({"lookups": {"a": DOCUMENTS}}, ValueError, r"must name its value column: candidates are \['body', 'n'\]"),
    ({"lookups": {"a": DOCUMENTS.remove_columns("id")}}, ValueError, "must name its id column: candidates are none"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_ids(**options)


IDS: list[list[Any]] = [
    [5, -3, 9, 5],
    ["b", "abc", "a", "abc"],
    ["long " * 20, "short"],
    ["a", "a\0"],
    [1, "1", 2],
    [1.5, 2.5, 1.5],
    [10**30, 1],
    [(1, 2), (2, 1)],
    ["é", "e", "日本"],
    [],
]


@pytest.mark.parametrize("ids", IDS)
def test_rows_are_found_as_by_a_dict(ids: list[Any]) -> None:
    rows, expected = RowNumbers(ids), {each: row for row, each in enumerate(ids)}
    assert rows.num_ids == len(expected)
    wanted = list(reversed(ids)) * 2
    if ids:
        assert rows.find(wanted) == [expected[each] for each in wanted]
    for absent in (-99, 99, "0", "zz", "abcd", "", None):
        if absent not in expected:
            with pytest.raises(KeyError) as caught:
                rows.find([*ids, absent])
            assert caught.value.args == (absent,)


def test_numbers_and_short_strings_are_kept_in_arrays() -> None:
    for ids in ([3, 1, 2], ["a", "bb"]):
        assert RowNumbers(ids).by_id is None


def test_ids_that_are_not_there_are_named() -> None:
    transform = resolve_ids(LOOKUPS)
    with pytest.raises(KeyError, match="the id 'q3' of column 'query_id' is not in its lookup"):
        transform({"query_id": ["q1", "q3"], "document_ids": [[7], [8]]})


def test_results_of_one_name_and_empty_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="two columns would be called 'query'"):
        resolve_ids({"query_id": QUERIES, "query_ids": QUERIES})({"query_id": ["q1"], "query_ids": ["q1"]})
    with pytest.raises(ValueError, match="the lists of column 'query_ids' are empty"):
        resolve_ids({"query_ids": QUERIES})({"query_ids": [[], []]})


def test_formats_of_the_rows_are_named() -> None:
    with pytest.raises(TypeError, match="needs rows as a dict of columns, got list; take the dataset's format away"):
        resolve_ids(LOOKUPS)([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'document_ids' holds ids that cannot be looked up, ndarray"):
        resolve_ids(LOOKUPS)(ROWS.with_format("numpy")[:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"max_list_length": 1}, {"output_format": "lists"}, {"keep_columns": ()}])
def test_rows_are_those_of_the_peer(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("sentence_transformers.util")
    single = Dataset.from_dict({"query_id": ["q2"], "passage_idx": [8], "label": [1.0]})
    for rows, lookups in ((ROWS, LOOKUPS), (single, {"query_id": QUERIES, "passage_idx": (DOCUMENTS, "id", "body")})):
        found = rows.with_transform(resolve_ids(lookups, **options))[:]
        expected = rows.with_transform(peer.resolve_ids(lookups, **options))[:]
        assert found == expected
        assert list(found) == list(expected)
