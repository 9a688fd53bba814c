from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from samplers_helpers import Rows, interleaved

from sparse_encoder.samplers import GroupByLabelBatchSampler

LABELS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 0]
NAMES = ["label", "labels", "score", "scores"]


def data(labels: list[Any], column: str = "label") -> Rows:
    return Rows([{"text": f"t{row}", column: label} for row, label in enumerate(labels)])


def test_the_peers_batches() -> None:
    sampler = GroupByLabelBatchSampler(data(LABELS), 4, False, NAMES, seed=42)
    assert list(sampler) == [[8, 7, 0, 3], [10, 11, 6, 5]]
    sampler.set_epoch(1)
    assert list(sampler) == [[7, 6, 4, 0], [10, 11, 8, 5]]
    assert len(sampler) == 2


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_a_table_in_any_format_has_the_same_labels(form: str | None) -> None:
    table = Dataset.from_dict({"text": ["t"] * len(LABELS), "label": LABELS}).with_format(form)
    sampler = GroupByLabelBatchSampler(table, 4, False, NAMES, seed=42)
    assert list(sampler) == [[8, 7, 0, 3], [10, 11, 6, 5]]
    assert sorted(sampler.groups) == [0, 1, 2]


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.sampled_from("abcde"), min_size=12, max_size=60),
    half=st.integers(2, 5),
    drop_last=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_batch_has_several_labels_and_pairs_of_each(
    labels: list[str], half: int, drop_last: bool, seed: int
) -> None:
    counts = Counter(labels)
    if sum(count >= 2 for count in counts.values()) < 2:
        return
    sampler = GroupByLabelBatchSampler(data(labels), 2 * half, drop_last, NAMES, seed=seed)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    for batch in batches:
        found = Counter(labels[row] for row in batch)
        assert len(found) >= 2
        assert all(count % 2 == 0 for count in found.values())
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)


def test_passes_at_once_do_not_disturb_each_other() -> None:
    sampler = GroupByLabelBatchSampler(data(LABELS * 3), 4, False, NAMES, torch.Generator(), seed=3)
    alone = list(sampler)
    assert interleaved(sampler) == (alone, alone)


def test_a_rest_of_less_than_two_pairs_is_left_out() -> None:
    labels = list("aabbccc")  # one round: three pairs, in batches of four
    assert [len(batch) for batch in GroupByLabelBatchSampler(data(labels), 4, False, NAMES)] == [4]
    labels = list("aabbccdd")
    assert [len(batch) for batch in GroupByLabelBatchSampler(data(labels), 12, False, NAMES)] == [8]
    assert list(GroupByLabelBatchSampler(data(labels), 12, True, NAMES)) == []


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_odd_and_small_batches_are_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"even number >= 4 to group by label, got {batch_size}"):
        GroupByLabelBatchSampler(data(LABELS), batch_size, False, NAMES)


def test_the_first_valid_name_wins() -> None:
    rows = Rows([{"score": row % 2, "label": 0} for row in range(8)])
    assert sorted(GroupByLabelBatchSampler(rows, 4, False, ["score", "label"]).groups) == [0, 1]


def test_a_missing_label_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"one of \['label', .*\]; there are \['text', 'kind'\]"):
        GroupByLabelBatchSampler(data(LABELS, "kind"), 4, False, NAMES)
    with pytest.raises(ValueError, match=r"one of \[\]; there are \['text', 'label'\]"):
        GroupByLabelBatchSampler(data(LABELS), 4, False)
    with pytest.raises(ValueError, match=r"there are \[\]"):
        GroupByLabelBatchSampler(Rows([]), 4, False, NAMES)


def test_too_few_labels_are_named() -> None:
    with pytest.raises(ValueError, match=r"of 3 labels in 5 rows, these have two: \['a'\]"):
        GroupByLabelBatchSampler(data(list("aaabc")), 4, False, NAMES)


@pytest.mark.parametrize("form", ["rows", None, "numpy"])
def test_a_row_without_a_label_is_named(form: str | None) -> None:
    for missing in (float("nan"), None):
        labels = [1.0, 1.0, 2.0, missing, 2.0, missing]
        table = Dataset.from_dict({"text": ["t"] * 6, "label": labels}).with_format(None if form == "rows" else form)
        with pytest.raises(ValueError, match=r"needs a label to group by, row 3 has (nan|None) in 'label'"):
            GroupByLabelBatchSampler(data(labels) if form == "rows" else table, 4, False, NAMES)


def test_a_label_that_cannot_be_compared_is_named() -> None:
    with pytest.raises(TypeError, match=r"row 1 has \[2\] in 'label'"):
        GroupByLabelBatchSampler(data([1, [2], 3, 4]), 4, False, NAMES)
    with pytest.raises(TypeError, match=r"row 0 has \[1, 2\] in 'label'"):
        GroupByLabelBatchSampler(data([torch.tensor([1, 2])] * 4), 4, False, NAMES)
