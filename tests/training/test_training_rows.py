from __future__ import annotations

import datasets
import pytest
import torch
from data_helpers import Numbered
from training_helpers import Anything, pairs

from sparse_encoder.training.data.rows import Rows

LISTED = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(6)]


@pytest.mark.parametrize("kind", [list, tuple, Numbered, datasets.Dataset.from_list])
def test_rows_of_every_kind_are_read_alike(kind: Anything) -> None:
    rows = Rows(kind(LISTED), seed=0, name="train_dataset")
    assert rows.column_names == ["question", "answer"]
    assert len(rows) == 6
    assert rows.__getitems__([4, 0]) == [LISTED[4], LISTED[0]]
    assert rows[3] == LISTED[3]


REFUSED = [
    (datasets.DatasetDict({"a": pairs(3)}), "train_dataset holds several datasets; .* datasets.Dataset"),
    ({"a": pairs(3)}, "several datasets"),
    (pairs(3).to_iterable_dataset(), "of the type IterableDataset; give a datasets.Dataset"),
    (iter(LISTED), "list_iterator"),
    ("texts", "of the type str"),
    ([], "has no rows"),
    (pairs(3).select([]), "has no rows"),
    (Numbered([("a", "b")]), "must be dicts from column to value, got tuple"),
    ([{"label": 1}], "no text column"),
    ([{"text": "a", "return_loss": 1}], r"reserved names, \['return_loss'\]"),
    ([{"text": "a", "dataset_name": 1}], r"reserved names, \['dataset_name'\]"),
]


@pytest.mark.parametrize(("dataset", "message"), REFUSED)
def test_other_data_are_refused(dataset: Anything, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rows(dataset, seed=0, name="train_dataset")


def test_the_fingerprint_tells_other_data() -> None:
    def fingerprint(rows: list[dict[str, str]]) -> str:
        return Rows(rows, seed=0, name="train_dataset").fingerprint()

    same = fingerprint(LISTED)
    assert fingerprint([dict(row) for row in LISTED]) == same
    assert fingerprint(LISTED[:5]) != same
    assert fingerprint([*LISTED[:5], {"question": "q5", "answer": "other"}]) != same
    assert fingerprint([{"answer": row["question"], "question": row["answer"]} for row in LISTED]) != same


def noisy(seed: int) -> Rows:
    dataset = pairs(6).with_transform(lambda batch: {"text": [str(torch.rand(()).item()) for _ in batch["anchor"]]})
    return Rows(dataset, seed=seed, name="train_dataset")


def test_what_rows_draw_is_a_function_of_seed_and_epoch() -> None:
    first = noisy(1).__getitems__([2, 3])
    again = noisy(1)
    again.__getitems__([0, 1])
    assert again.__getitems__([2, 3]) == first
    again.set_epoch(1)
    assert again.__getitems__([2, 3]) != first
    assert noisy(2).__getitems__([2, 3]) != first
