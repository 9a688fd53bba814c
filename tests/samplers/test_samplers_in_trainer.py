"""The samplers beyond the peer's, given to a trainer with functools.partial."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from model_helpers import WORDS, write_masked_language_model

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments, losses, samplers


def texts(count: int, shift: int) -> Dataset:
    def text(row: int) -> str:
        return " ".join(WORDS[(row + shift + place) % len(WORDS)] for place in range(1 + row % 9))

    return Dataset.from_dict({name: [text(row * step) for row in range(count)] for step, name in ((1, "a"), (3, "b"))})


def words(row: Mapping[str, str]) -> int:
    return max(len(text.split()) for text in row.values()) + 2


def trainer(folder: Path, data: object, **options: Any) -> SparseEncoderTrainer:  # noqa: ANN401  (arguments)
    write_masked_language_model(folder / "plain")
    model = SparseEncoder(str(folder / "plain"), device="cpu")
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        **options,
    }
    args = SparseEncoderTrainingArguments(**settings)
    loss = losses.SpladeLoss(
        model,
        losses.SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=1e-3,
        query_regularizer_weight=1e-3,
    )
    return SparseEncoderTrainer(model=model, args=args, train_dataset=data, loss=loss)


def test_batches_by_a_token_budget_are_trained_on(tmp_path: Path) -> None:
    sampling = partial(samplers.LengthBucketBatchSampler, max_tokens=24, lengths=words, bucket_width=2)
    data = texts(30, 0)
    run = trainer(tmp_path, data, batch_sampler=sampling)
    batches = list(run.get_train_dataloader().batch_sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(30))
    assert all(len(batch) * max(words(data[row]) for row in batch) <= 24 for batch in batches)
    assert {len(batch) for batch in batches} >= {2, 4}
    assert run.train().global_step == len(batches)


@pytest.mark.parametrize(
    ("mixing", "steps"),
    [
        (partial(samplers.TemperatureBatchSampler, temperature=2.0), 9),
        (partial(samplers.CappedProportionalBatchSampler, max_rows_per_dataset=9), 4),
    ],
)
def test_mixes_are_trained_on(tmp_path: Path, mixing: Any, steps: int) -> None:  # noqa: ANN401  (a function)
    data = DatasetDict({"large": texts(28, 0), "small": texts(8, 5)})
    run = trainer(tmp_path, data, multi_dataset_batch_sampler=mixing, batch_sampler="no_duplicates_hashed")
    assert run.train().global_step == steps
