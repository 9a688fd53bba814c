from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from datasets import Dataset

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.training import prepare_dataset

MODEL = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"])
ROWS = Dataset.from_dict(
    {
        "input_ids": [[2, 3 + i] + [4] * (i % 3) for i in range(7)],
        "attention_mask": [[1, 1] + [1] * (i % 3) for i in range(7)],
        "label": list(range(7)),
        "title": [f"row {i}" for i in range(7)],
    }
)
PADDING = SimpleNamespace(pad_token_id=0, padding_side="right")


def batches(**options: Any) -> list[dict[str, torch.Tensor]]:  # noqa: ANN401
    return list(prepare_dataset(MODEL, **{"dataset": ROWS, "tokenizer": PADDING, "prefetch": False, **options}))


def test_batches_have_what_the_model_takes() -> None:
    found = batches(batch_size=3, shuffle=False)
    assert [sorted(batch) for batch in found] == [["attention_mask", "input_ids", "labels"]] * 3
    assert [batch["labels"].tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert found[0]["input_ids"].tolist() == [[2, 3, 0, 0], [2, 4, 4, 0], [2, 5, 4, 4]]
    labels = found[0].pop("labels")
    assert MODEL(**found[0]).shape[0] == len(labels)


def test_shuffling_drops_the_last_batch_unless_it_is_said_otherwise() -> None:
    first = batches(batch_size=3, generator=torch.Generator().manual_seed(1))
    second = batches(batch_size=3, generator=torch.Generator().manual_seed(1))
    assert len(first) == 2
    assert [each["labels"].tolist() for each in first] == [each["labels"].tolist() for each in second]
    assert [each["labels"].tolist() for each in first] != [[0, 1, 2], [3, 4, 5]]
    assert len(batches(batch_size=3, drop_remainder=False)) == 3
    assert len(batches(batch_size=3, shuffle=False, drop_remainder=True)) == 2


def test_collators_of_ones_own_get_their_arguments() -> None:
    found = batches(
        tokenizer=None, shuffle=False, collate_fn=lambda rows, plus: len(rows) + plus, collate_fn_args={"plus": 10}
    )
    assert found == [17]
    with pytest.raises(ValueError, match="give both"):
        batches(collate_fn_args={"plus": 1})
    with pytest.raises(ValueError, match=r"no column of \['title'\] is one that the forward of MaskedLanguageModel"):
        batches(dataset=ROWS.select_columns("title"))


def test_a_process_reads_ahead() -> None:
    loader = prepare_dataset(MODEL, ROWS, batch_size=4, shuffle=False, tokenizer=PADDING)
    assert loader.num_workers == 1
