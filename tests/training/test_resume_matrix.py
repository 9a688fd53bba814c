"""A run that goes on from a checkpoint ends with the same bits, whatever it reads and however."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn
from training_helpers import digest, pairs, rows_of, splade_loss, tiny_encoder, trainer

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss
from sparse_encoder.training import EarlyStoppingCallback, SparseEncoderTrainer

Anything = Any  # a setting or a dataset


def labelled(count: int) -> Dataset:
    return pairs(count).add_column("label", [i % 4 for i in range(count)])


def two(count: int = 17) -> dict[str, Anything]:
    questions = pairs(count).rename_columns({"anchor": "question", "positive": "answer"})
    return {"pairs": pairs(12), "questions": questions}


def losses(model: nn.Module) -> dict[str, nn.Module]:
    return {"pairs": splade_loss(model), "questions": SparseMultipleNegativesRankingLoss(model)}


def streams(data: dict[str, Anything], shards: int = 1) -> dict[str, Anything]:
    return {
        name: part.to_iterable_dataset(num_shards=shards).shuffle(seed=3, buffer_size=5) for name, part in data.items()
    }


CASES: dict[str, dict[str, Any]] = {
    "no duplicates": {"rows": pairs(20), "batch_sampler": "no_duplicates"},
    "grouped by label": {"rows": labelled(24), "batch_sampler": "group_by_label"},
    "workers": {"rows": pairs(20), "dataloader_num_workers": 2},
    "persistent workers": {"rows": pairs(20), "dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "proportional": {"rows": two(), "loss": losses},
    "round robin": {"rows": two(), "loss": losses, "multi_dataset_batch_sampler": "round_robin"},
    "several without duplicates": {"rows": two(), "loss": losses, "batch_sampler": "no_duplicates"},
    "several with workers": {"rows": two(), "loss": losses, "dataloader_num_workers": 2},
    "one stream": {"rows": streams(two())["pairs"], "max_steps": 6},
    "one stream with workers": {"rows": streams(two(), 2)["pairs"], "max_steps": 6, "dataloader_num_workers": 2},
    "several streams": {"rows": streams(two()), "loss": losses, "max_steps": 6},
    "bfloat16": {"rows": pairs(20), "bf16": True},
    "float16": {"rows": pairs(20), "fp16": True},
    "float16 on streams": {"rows": streams(two()), "loss": losses, "fp16": True, "max_steps": 6},
    "adafactor": {"rows": pairs(20), "optim": "adafactor", "lr_scheduler_type": "inverse_sqrt"},
    "plateau": {
        "rows": pairs(20),
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "eval_strategy": "steps",
        "eval_steps": 1,
    },
    "compiled": {"rows": pairs(20), "torch_compile_backend": "eager"},
}
COMMON: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
}


def run(folder: Path, seed: int, options: dict[str, Any]) -> SparseEncoderTrainer:
    model = tiny_encoder(dropout=0.3, seed=seed)
    options = dict(options)
    make = options.pop("loss", splade_loss)
    given = make(model)
    evaluation = pairs(5) if make is splade_loss else two(5)
    return trainer(folder, model, eval_dataset=evaluation, loss=given, **{**COMMON, **options})


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case: str, tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", 3, CASES[case])
    last = straight.train().global_step
    assert last >= 4
    checkpoints = [1, last // 2, last - 1]
    for step in dict.fromkeys(checkpoints):
        resumed = run(tmp_path / f"from-{step}", 99, CASES[case])
        torch.rand(step)  # another history of the generator
        resumed.train(resume_from_checkpoint=tmp_path / "straight" / f"checkpoint-{step}")
        ours, theirs = digest(resumed.model), digest(straight.model)
        assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []
        assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]


def stopping(options: dict[str, Any]) -> dict[str, Any]:
    """Add a callback that no evaluation is good enough for."""
    return {**options, "callbacks": [EarlyStoppingCallback(4, early_stopping_threshold=1e9)]}


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    options = {
        "rows": pairs(20),
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "loss",
        "restore_callback_states_from_checkpoint": True,
        "num_train_epochs": 3,
    }
    straight = run(tmp_path / "straight", 3, stopping(options))
    last = straight.train().global_step
    assert 2 < last < straight.state.max_steps
    resumed = run(tmp_path / "resumed", 3, stopping(options))
    resumed.train(resume_from_checkpoint=tmp_path / "straight" / f"checkpoint-{last - 1}")
    assert resumed.state.global_step == last
