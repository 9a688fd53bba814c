from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_helpers import Anything, TinyEncoder, arguments, digest, pairs, splade_loss
from tuning_helpers import FakeTune, Range, folder_names

from sparse_encoder.losses import EmbeddingLoss
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.tuning import BestRun, default_hp_space_ray

RATES = [1e-6, 3e-2]


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> FakeTune:
    return FakeTune().install(monkeypatch.setitem)


def make(folder: Path, **options: Anything) -> SparseEncoderTrainer:
    options = {"num_train_epochs": 1, **options}
    return SparseEncoderTrainer(
        None, arguments(folder, **options), pairs(10), pairs(6), splade_loss, model_init=TinyEncoder
    )


def both(trial: object) -> dict[str, Anything]:
    return {"learning_rate": Range("choice", RATES)}


def search(run: SparseEncoderTrainer, **options: Anything) -> BestRun:
    best = run.hyperparameter_search(**{"hp_space": both, "n_trials": 4, "backend": "ray", **options})
    assert isinstance(best, BestRun)
    return best


def test_ray_finds_the_better_of_two_learning_rates(tmp_path: Path, tune: FakeTune) -> None:
    run = make(tmp_path, num_train_epochs=3, save_strategy="epoch")
    args, before, weights = run.args, run.args.to_dict(), digest(run.model)
    best = search(run)
    assert {each.config["learning_rate"] for each in best.run_summary.trials} == set(RATES)
    assert best.hyperparameters == {"learning_rate": 3e-2}
    alone = make(tmp_path / "alone", num_train_epochs=3, learning_rate=3e-2)
    alone.train()
    assert best.objective == alone.evaluate()["eval_loss"]
    assert f"run-{best.run_id}" in folder_names(tmp_path)
    assert folder_names(tmp_path / f"run-{best.run_id}") == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    assert run.args is args and args.to_dict() == before
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())


def test_the_default_space_has_the_documented_ranges(tmp_path: Path, tune: FakeTune) -> None:
    space = default_hp_space_ray(None)
    assert {name: (each.kind, each.bounds) for name, each in space.items()} == {
        "learning_rate": ("loguniform", (1e-6, 1e-4)),
        "num_train_epochs": ("choice", ([1, 2, 3, 4, 5],)),
        "seed": ("randint", (1, 41)),
        "per_device_train_batch_size": ("choice", ([4, 8, 16, 32, 64],)),
    }
    best = search(make(tmp_path), hp_space=None, n_trials=1)
    assert sorted(best.hyperparameters) == sorted(space)


def test_options_go_to_ray(tmp_path: Path, tune: FakeTune) -> None:
    search(make(tmp_path), n_trials=1)
    assert tune.options["resources_per_trial"] == {"cpu": 1}
    assert tune.options["progress_reporter"].metric_columns == ["objective"]
    given = {"resources_per_trial": {"cpu": 2}, "progress_reporter": None, "verbose": 0}
    search(make(tmp_path / "2"), n_trials=1, **given)
    assert tune.options == given


def test_a_trial_with_a_gpu_gets_one(tmp_path: Path, tune: FakeTune, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path)
    monkeypatch.setattr(type(run.args), "n_gpu", 1)
    search(run, n_trials=1)
    assert tune.options["resources_per_trial"] == {"cpu": 1, "gpu": 1}


def test_each_evaluation_is_reported(tmp_path: Path, tune: FakeTune) -> None:
    best = search(make(tmp_path, eval_strategy="steps", eval_steps=1), n_trials=1)
    (trial,) = best.run_summary.trials
    assert len(trial.reports) == 3
    assert all(each["objective"] == each["eval_loss"] for each in trial.reports)
    assert [each["epoch"] for each in trial.reports] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert best.objective == trial.reports[-1]["objective"]
    (trial,) = search(make(tmp_path / "2"), n_trials=1).run_summary.trials
    assert len(trial.reports) == 1  # of the evaluation behind the run


def test_what_is_for_rays_own_logger_is_no_setting(
    tmp_path: Path, tune: FakeTune, caplog: pytest.LogCaptureFixture
) -> None:
    search(make(tmp_path), hp_space=lambda trial: {"learning_rate": 1e-3, "wandb": {"project": "mine"}}, n_trials=1)
    assert "are no settings" not in caplog.text


@pytest.mark.parametrize("name", ["ASHAScheduler", "MedianStoppingRule"])
def test_schedulers_that_stop_trials_need_evaluations(tmp_path: Path, tune: FakeTune, name: str) -> None:
    scheduler = type(name, (), {})()
    with pytest.raises(ValueError, match=f"{name} goes by evaluations during training"):
        search(make(tmp_path), scheduler=scheduler)
    search(make(tmp_path, eval_strategy="epoch"), scheduler=scheduler, n_trials=1)
    assert tune.options["scheduler"] is scheduler


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"direction": ["minimize", "maximize"], "compute_objective": list},
            "backend='optuna' takes several directions",
        ),
        ({"n_trials": None, "timeout": 3}, "ray needs n_trials"),
        ({"scheduler": type("PopulationBasedTraining", (), {})()}, "it takes up trials from checkpoints"),
    ],
)
def test_what_ray_cannot_do_is_refused(tmp_path: Path, tune: FakeTune, options: Anything, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(make(tmp_path), **options)


def test_no_report_is_no_best_trial(tmp_path: Path, tune: FakeTune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "report", lambda metrics: None)
    with pytest.raises(RuntimeError, match="no trial reported an objective"):
        search(make(tmp_path), n_trials=1)


class Diverging(EmbeddingLoss):
    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        return embeddings[0].mean() * math.nan

    def get_config_dict(self) -> dict[str, Anything]:
        return {}


def test_a_trial_that_diverges_reports_that_it_has_no_objective(tmp_path: Path, tune: FakeTune) -> None:
    args = arguments(tmp_path, num_train_epochs=5)
    run = SparseEncoderTrainer(None, args, pairs(10), pairs(6), Diverging, model_init=TinyEncoder)
    (trial,) = search(run, n_trials=1).run_summary.trials
    assert [*trial.last_result] == ["objective"] and math.isnan(trial.last_result["objective"])


@pytest.mark.slow
def test_a_trial_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = FakeTune(in_process=False).install(monkeypatch.setitem)
    monkeypatch.chdir(tmp_path)
    run = make(Path("out"), eval_strategy="epoch")
    best = search(run, n_trials=1, direction="maximize")
    assert folder_names(tmp_path / "out") == [f"run-{best.run_id}"]
    assert len(best.run_summary.trials[0].reports) == 1
    tune.in_process = True
    assert search(run, n_trials=1).objective == best.objective
