from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse_encoder.training import (
    HubStrategy,
    IntervalStrategy,
    SaveStrategy,
    TrainingArguments,
    get_last_checkpoint,
    set_seed,
)
from sparse_encoder.training.argument_checks import STRATEGIES


def test_the_strategies_are_those_that_arguments_take() -> None:
    for kind, field in (
        (IntervalStrategy, "eval_strategy"),
        (IntervalStrategy, "logging_strategy"),
        (SaveStrategy, "save_strategy"),
        (HubStrategy, "hub_strategy"),
    ):
        assert sorted(each.value for each in kind) == sorted(STRATEGIES[field])
    args = TrainingArguments("out", eval_strategy=IntervalStrategy.EPOCH, save_strategy=SaveStrategy.NO)
    assert args.eval_strategy == IntervalStrategy.EPOCH == "epoch"
    assert args.save_strategy == "no"


def test_a_seed_makes_all_draws_the_same() -> None:
    def draws() -> tuple[float, float, float]:
        set_seed(7)
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    first = draws()
    assert draws() == first
    set_seed(8)
    assert random.random() != first[0]


def test_a_seed_may_ask_for_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    set_seed(1)
    set_seed(1, deterministic=True)
    assert asked == [True]


def test_the_last_checkpoint_has_the_highest_number(tmp_path: Path) -> None:
    assert get_last_checkpoint(tmp_path) is None
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-11.corrupt", "eval"):
        (tmp_path / name).mkdir()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
