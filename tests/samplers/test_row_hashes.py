from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset
from process_helpers import run_python
from samplers_helpers import Rows

from sparse_encoder.samplers.row_hashes import hash_rows, value_text

TABLE = {"a": ["x", "y", "x"], "b": ["y", "1", None], "label": [1, 0, 1]}


def as_rows(table: dict[str, list[Any]]) -> Rows:
    names = list(table)
    return Rows([dict(zip(names, values, strict=True)) for values in zip(*table.values(), strict=True)])


def hashed(dataset: object, batch_size: int = 2, num_proc: int = 1) -> np.ndarray:
    return hash_rows(dataset, exclude={"dataset_name"}, batch_size=batch_size, num_proc=num_proc)


def test_equal_texts_have_equal_hashes_whatever_the_column() -> None:
    found = hashed(Dataset.from_dict(TABLE))
    assert found.dtype == np.int64
    assert found.shape == (3, 3)
    assert found[0, 0] == found[2, 0] != found[1, 0] == found[0, 1]
    assert found[1, 1] == found[0, 2]  # "1" and 1
    assert len(np.unique(found)) == 5  # x, y, 1, None, 0


def test_a_hash_is_the_same_in_every_process() -> None:
    code = """
from sparse_encoder.samplers.row_hashes import hash_rows
print(hash_rows([{"a": "x"}], exclude=(), batch_size=1, num_proc=1)[0, 0])
"""
    printed = {run_python(code, env={"PYTHONHASHSEED": seed}) for seed in ("1", "2")}
    assert printed == {str(hashed([{"a": "x"}])[0, 0])}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_rows_by_number_and_tables_are_hashed_alike(batch_size: int) -> None:
    expected = hashed(Dataset.from_dict(TABLE), 3).tolist()
    assert hashed(as_rows(TABLE), batch_size).tolist() == expected
    assert hashed(Dataset.from_dict(TABLE), batch_size).tolist() == expected


def test_several_processes_find_the_same() -> None:
    data = Dataset.from_dict({name: values * 4 for name, values in TABLE.items()})
    datasets.disable_progress_bars()
    assert hashed(data, 2, num_proc=2).tolist() == hashed(data).tolist()
    datasets.enable_progress_bars()


def test_several_processes_need_a_dataset_of_datasets() -> None:
    with pytest.raises(ValueError, match="precompute_num_proc=3 needs a datasets.Dataset; a Rows is"):
        hashed(Rows([{"a": "x"}]), num_proc=3)


def test_left_out_columns_do_not_count_and_transforms_do() -> None:
    data = Dataset.from_dict({"a": ["x", "y"]})
    data.set_transform(
        lambda batch: {"a": [text.upper() for text in batch["a"]], "dataset_name": ["n"] * len(batch["a"])}
    )
    assert hashed(data).tolist() == hashed([{"a": "X"}, {"a": "Y"}]).tolist()


def test_nothing_to_hash() -> None:
    assert hashed(Rows([])).shape == (0, 0)
    assert hashed(Dataset.from_dict({"a": []})).shape == (0, 0)
    assert hashed(Dataset.from_dict({"dataset_name": ["n"] * 5})).shape == (5, 0)


def test_rows_with_other_columns_are_named() -> None:
    with pytest.raises(ValueError, match=r"row 1 has the columns \['b'\], row 0 has \['a'\]"):
        hashed(Rows([{"a": "x"}, {"b": "x"}]))
    with pytest.raises(ValueError, match="the same columns, got rows with 1 and with 2"):
        hashed(Rows([{"a": "x"}, {"a": "x"}, {"a": "x", "b": "y"}]))


def test_rows_that_are_no_dicts_are_named() -> None:
    with pytest.raises(TypeError, match=r"rows must be dicts from column to value, row 3 is \('x', 'y'\)"):
        hashed([{"a": "x"}, {"a": "x"}, {"a": "x"}, ("x", "y")])


class Opaque:
    def __init__(self, content: object) -> None:
        self.content = content


def test_objects_go_by_their_content() -> None:
    assert value_text(Opaque("x")) == value_text(Opaque("x")) != value_text(Opaque("y"))
    assert value_text({"k": [1, Opaque("x")]}) == value_text({"k": [1, Opaque("x")]})
    assert value_text(["a", 1]) == "['a', 1]"
    assert value_text(np.int64(3)) == "3"


def test_what_cannot_be_pickled_is_never_equal() -> None:
    one, other = Opaque(lambda: 0), Opaque(lambda: 0)
    assert value_text(one) == str(one) != value_text(other)
