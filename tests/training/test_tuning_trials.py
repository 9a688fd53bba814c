from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training_helpers import Anything, TinyEncoder, arguments, pairs, splade_loss

from sparse_encoder.samplers import BatchSamplers
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.tuning import default_compute_objective
from sparse_encoder.training.tuning.objective import objectives_of
from sparse_encoder.training.tuning.trials import TrialRun, arguments_of, fitted, trial_run


def with_values(args: Anything, **values: Anything) -> Anything:
    return arguments_of(args, trial_run(values))


@pytest.mark.parametrize(
    ("value", "old", "expected"),
    [
        (0.1, 0, 0.1),  # the peer makes it 0
        (3.0, 8, 3),
        (3, 2.5, 3.0),
        (2**53 + 1, 2.5, 2**53 + 1),  # no float has this value
        ("1e-4", 5e-5, 1e-4),
        ("16", 8, 16),
        ("0.1", 0, 0.1),
        ("many", 8, "many"),
        (np.float32(0.5), 5e-5, 0.5),
        (np.int64(7), 8, 7),
        (np.bool_(True), False, True),
        ("false", True, False),  # there True
        ("True", False, True),
        (1, False, True),
        (2, False, 2),
        (True, 8, True),
        (5, None, 5),
        ("cosine", "linear", "cosine"),
        (BatchSamplers.NO_DUPLICATES, "batch_sampler", "no_duplicates"),
    ],
)
def test_values_take_the_type_of_the_setting_where_nothing_is_lost(
    value: object, old: object, expected: object
) -> None:
    result = fitted(value, old)
    assert result == expected
    assert type(result) is type(expected)


def test_settings_of_a_run_are_a_checked_copy() -> None:
    args = arguments("out", learning_rate=1e-2)
    changed = with_values(args, learning_rate="1e-3", warmup_steps=0.25, batch_sampler="no_duplicates")
    assert (changed.learning_rate, changed.warmup_steps) == (1e-3, 0.25)
    assert changed.get_warmup_steps(40) == 10
    assert changed.batch_sampler is BatchSamplers.NO_DUPLICATES
    assert (args.learning_rate, args.warmup_steps, args.batch_sampler) == (1e-2, 0, BatchSamplers.BATCH_SAMPLER)
    assert changed.output_dir == "out"


@pytest.mark.parametrize(
    ("given", "values", "expected"),
    [
        ({"warmup_ratio": 0.3}, {"warmup_ratio": 0.1}, {"warmup_steps": 0.1, "warmup_ratio": None}),
        ({"warmup_steps": 7}, {"warmup_ratio": 0.1}, {"warmup_steps": 0.1, "warmup_ratio": None}),
        ({"warmup_steps": 7}, {"warmup_steps": 3}, {"warmup_steps": 3}),
        ({"activation_checkpointing": True}, {"gradient_checkpointing": False}, {"gradient_checkpointing": False}),
        ({"gradient_checkpointing": True}, {"activation_checkpointing": False}, {"gradient_checkpointing": False}),
    ],
)
def test_the_value_of_a_trial_counts_under_either_name(given: Anything, values: Anything, expected: Anything) -> None:
    changed = with_values(arguments("out", **given), **values)
    assert {name: getattr(changed, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            {"per_device_train_batch_size": 4.5},
            TypeError,
            "per_device_train_batch_size must be a whole number, got 4.5",
        ),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be >= 0"),
        ({"lr_scheduler_type": "lineal"}, ValueError, "lineal"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number, got 'fast'"),
        ({"output_dir": "there", "use_cpu": False}, ValueError, r"\['output_dir', 'use_cpu'\] cannot differ"),
        ({"prompts": "query: "}, ValueError, r"\['prompts'\] cannot differ between trials"),
    ],
)
def test_values_that_are_not_allowed_are_refused(values: Anything, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        with_values(arguments("out"), **values)


def test_a_run_of_a_search_has_a_folder_of_its_own_and_uploads_nothing() -> None:
    args = arguments("out", push_to_hub=True)
    changed = arguments_of(args, TrialRun(trial=None, values={}, params={}, name="run-3"))
    assert (changed.output_dir, changed.push_to_hub) == (str(Path("out") / "run-3"), False)
    assert (args.output_dir, args.push_to_hub) == ("out", True)


def make(folder: Path, **options: Anything) -> SparseEncoderTrainer:
    options = {"num_train_epochs": 1, **options}
    return SparseEncoderTrainer(
        None, arguments(folder, **options), pairs(10), pairs(6), splade_loss, model_init=TinyEncoder
    )


def test_train_takes_settings_by_name_and_gives_them_back(tmp_path: Path) -> None:
    run = make(tmp_path, learning_rate=1e-2, num_train_epochs=1)
    args = run.args
    run.train(trial={"learning_rate": 1e-3, "num_train_epochs": 2, "seed": np.int64(7)})
    assert run.state.max_steps == 6
    assert run.state.log_history[0]["learning_rate"] == 1e-3
    assert (run.state.is_hyper_param_search, run.state.trial_name) == (True, None)
    assert run.state.trial_params == {"learning_rate": 1e-3, "num_train_epochs": 2, "seed": 7}
    json.dumps(run.state.to_dict())
    assert run.args is args and args.learning_rate == 1e-2
    assert run.trial is None
    expected = make(tmp_path / "other", learning_rate=1e-3, num_train_epochs=2, seed=7)
    expected.train()
    losses = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in (run, expected)]
    assert losses[0] == losses[1]
    run.train()
    assert (run.state.is_hyper_param_search, run.state.trial_params, run.state.max_steps) == (False, None, 3)


def test_train_takes_anything_with_params(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.train(trial=SimpleNamespace(params={"max_steps": 2}))
    assert run.state.global_step == 2
    with pytest.raises(TypeError, match="a dict of settings by name, or have them as params, got 5"):
        run.train(trial=5)


def test_settings_are_given_back_after_an_error(tmp_path: Path) -> None:
    run = make(tmp_path)
    args, rows = run.args, run.train_dataset
    run.train_dataset = None
    with pytest.raises(ValueError, match="train_dataset"):
        run.train(trial={"learning_rate": 1.0})
    run.train_dataset = rows
    assert run.args is args and args.learning_rate == 1e-2


def test_values_that_are_no_settings_of_a_trial_reach_model_init(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make(tmp_path, max_steps=1)
    run.model_init = lambda trial: TinyEncoder(dropout=trial["dropout"])
    run.train(trial={"dropout": 0.5})
    assert run.model.dropout.p == 0.5
    assert "['dropout'] are no settings of SparseEncoderTrainingArguments" in caplog.text


CLOCK = {"eval_runtime": 3.0, "eval_samples_per_second": 5.0, "eval_a_steps_per_second": 7.0, "epoch": 2.0}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"eval_loss": 0.25}, 0.25),
        ({"eval_loss": 0.25, "eval_ndcg": 0.5, "eval_mrr": 0.125}, 0.625),
        ({"eval_ndcg": 0.5}, 0.5),
        ({"eval_loss": 0.25, "eval_model_preparation_time": 9.0}, 0.25),
    ],
)
def test_the_default_objective_counts_no_clock(metrics: dict[str, float], expected: float) -> None:
    given = {**metrics, **CLOCK}
    assert default_compute_objective(given) == expected
    assert given == {**metrics, **CLOCK}


def test_without_metrics_there_is_no_objective() -> None:
    with pytest.raises(ValueError, match="nothing to search by, only .*'eval_runtime'.*give compute_objective"):
        default_compute_objective(CLOCK)


@pytest.mark.parametrize(
    ("result", "directions", "error", "message"),
    [
        ([1.0, 2.0], ["minimize"], ValueError, r"each of the directions \['minimize'\], got \[1.0, 2.0\]"),
        (1.0, ["minimize", "maximize"], ValueError, "each of the directions"),
        ("low", ["minimize"], TypeError, "must return numbers, got 'low'"),
        (None, ["minimize"], TypeError, "must return numbers, got None"),
    ],
)
def test_objectives_are_a_number_for_each_direction(
    result: object, directions: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        objectives_of(lambda metrics: result, {}, directions)


def test_objectives_get_a_copy_of_the_metrics() -> None:
    metrics = {"eval_loss": 0.5}
    assert objectives_of(lambda each: (each.pop("eval_loss"), np.float32(2)), metrics, ["minimize"] * 2) == [0.5, 2.0]
    assert metrics == {"eval_loss": 0.5}


def test_unknown_values_are_told(caplog: pytest.LogCaptureFixture) -> None:
    from sparse_encoder.training.tuning.trials import warn_of_unknown

    with caplog.at_level(logging.WARNING):
        warn_of_unknown(arguments("out"), {"learning_rate": 1.0})
        assert caplog.messages == []
        warn_of_unknown(arguments("out"), {"learning_rte": 1.0, "dropout": 0.5})
    assert "['dropout', 'learning_rte'] are no settings of SparseEncoderTrainingArguments" in caplog.text
