from __future__ import annotations

import gc
import logging
import math
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_helpers import Anything, TinyEncoder, arguments, digest, pairs, splade_loss, tiny_encoder

from sparse_encoder.evaluation import BaseEvaluator
from sparse_encoder.losses import EmbeddingLoss
from sparse_encoder.training import SparseEncoderTrainer, TrainerCallback
from sparse_encoder.training.events.early_stopping import EarlyStoppingCallback
from sparse_encoder.training.tuning import BestRun
from sparse_encoder.training.tuning.backends import BACKENDS

optuna = pytest.importorskip("optuna")

RATES = [1e-6, 3e-2]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def make(folder: Path, *, rows: Anything = 6, **options: Anything) -> SparseEncoderTrainer:
    own = {name: options.pop(name) for name in ("loss", "evaluator", "callbacks") if name in options}
    own.setdefault("loss", splade_loss)
    init = options.pop("model_init", TinyEncoder)
    options.setdefault("num_train_epochs", 1)
    eval_rows = pairs(rows) if isinstance(rows, int) else rows
    return SparseEncoderTrainer(None, arguments(folder, **options), pairs(10), eval_rows, model_init=init, **own)


def rates(trial: Anything) -> dict[str, Anything]:
    return {"learning_rate": trial.suggest_categorical("learning_rate", RATES)}


def grid(**values: Anything) -> Anything:
    return optuna.samplers.GridSampler(values, seed=0)


def seeds(trial: Anything) -> dict[str, Anything]:
    return {"seed": trial.suggest_int("seed", 3, 3)}


class Watch(TrainerCallback):
    """Remember what a trainer says of itself when a run begins and ends."""

    def __init__(self) -> None:
        self.begun: list[tuple[Anything, Anything]] = []
        self.ended = 0

    def on_train_begin(self, args: Anything, state: Anything, control: Anything, **context: Anything) -> None:
        self.begun.append((args, state))

    def on_train_end(self, args: Anything, state: Anything, control: Anything, **context: Anything) -> None:
        self.ended += 1


def test_a_search_finds_the_better_of_two_learning_rates(tmp_path: Path) -> None:
    run = make(tmp_path, num_train_epochs=3)
    best = run.hyperparameter_search(rates, n_trials=2, sampler=grid(learning_rate=RATES))
    assert isinstance(best, BestRun)
    assert best.hyperparameters == {"learning_rate": 3e-2}
    found = {each.params["learning_rate"]: each.value for each in best.run_summary.trials}
    assert found[3e-2] < found[1e-6]
    assert best.objective == found[3e-2]
    (number,) = [each.number for each in best.run_summary.trials if each.params["learning_rate"] == 3e-2]
    assert best.run_id == str(number)
    losses = []
    for rate in RATES:
        alone = make(tmp_path / f"alone{rate}", num_train_epochs=3, learning_rate=rate)
        alone.train()
        losses.append(alone.evaluate()["eval_loss"])
    assert losses == [found[1e-6], found[3e-2]]


def test_the_best_settings_train_to_the_same_again(tmp_path: Path) -> None:
    run = make(tmp_path)
    best = run.hyperparameter_search(rates, n_trials=2, sampler=grid(learning_rate=RATES))
    for name, value in best.hyperparameters.items():  # as the peer's pages show it
        setattr(run.args, name, value)
    run.train()
    assert run.evaluate()["eval_loss"] == best.objective


def test_maximize_finds_the_other(tmp_path: Path) -> None:
    run = make(tmp_path, num_train_epochs=3)
    best = run.hyperparameter_search(
        rates, n_trials=2, direction="maximize", backend="optuna", sampler=grid(learning_rate=RATES)
    )
    assert best.hyperparameters == {"learning_rate": 1e-6}


def test_two_trials_with_the_same_values_give_the_same(tmp_path: Path) -> None:
    made: list[dict[str, Tensor]] = []

    def init() -> nn.Module:
        made.append(digest(model := TinyEncoder(dropout=0.2)))
        return model

    run = make(tmp_path, model_init=init)
    best = run.hyperparameter_search(seeds, n_trials=2)
    assert len({each.value for each in best.run_summary.trials}) == 1
    torch.manual_seed(3)  # of the trial, not args.seed, which is 42
    expected = digest(TinyEncoder(dropout=0.2))
    of_trials = made[1:3]
    assert all(torch.equal(each[name], expected[name]) for each in of_trials for name in expected)


def test_the_default_space_is_that_of_the_documentation(tmp_path: Path) -> None:
    run = make(tmp_path)
    best = run.hyperparameter_search(n_trials=1, sampler=optuna.samplers.RandomSampler(seed=0))
    ranges = {name: each.__dict__ for name, each in best.run_summary.trials[0].distributions.items()}
    assert ranges == {
        "learning_rate": {"low": 1e-6, "high": 1e-4, "log": True, "step": None},
        "num_train_epochs": {"low": 1, "high": 5, "log": False, "step": 1},
        "seed": {"low": 1, "high": 40, "log": False, "step": 1},
        "per_device_train_batch_size": {"choices": (4, 8, 16, 32, 64)},
    }


def test_settings_and_model_are_as_they_were(tmp_path: Path) -> None:
    watch = Watch()
    run = make(tmp_path, callbacks=[watch])
    args, before, weights = run.args, run.args.to_dict(), digest(run.model)
    run.hyperparameter_search(rates, n_trials=2, sampler=grid(learning_rate=RATES))
    assert run.args is args and run.args.to_dict() == before
    assert (run.search, run.trial, run.is_in_train) == (None, None, False)
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())
    assert run.loss.model is run.model is run.callback_handler.context["model"]
    assert (run.state.global_step, run.state.log_history, run.optimizer) == (0, [], None)
    assert {each.learning_rate for each, _ in watch.begun} == set(RATES)
    assert run.evaluate()["eval_loss"] == make(tmp_path / "new").evaluate()["eval_loss"]


def test_the_state_of_a_run_names_its_trial(tmp_path: Path) -> None:
    watch = Watch()
    run = make(tmp_path, callbacks=[watch], save_strategy="epoch", eval_strategy="epoch")
    run.hyperparameter_search(rates, n_trials=2, sampler=grid(learning_rate=RATES))
    assert [state.trial_name for _, state in watch.begun] == ["run-0", "run-1"]
    assert all(state.is_hyper_param_search for _, state in watch.begun)
    assert sorted(state.trial_params["learning_rate"] for _, state in watch.begun) == RATES
    assert [args.output_dir for args, _ in watch.begun] == [str(tmp_path / "run-0"), str(tmp_path / "run-1")]
    assert sorted(os.listdir(tmp_path)) == ["run-0", "run-1"]
    for name in ("run-0", "run-1"):
        assert [each for each in os.listdir(tmp_path / name) if "lock" in each or "checkpoint" in each] == [
            "checkpoint-3"
        ]
    run.train()
    assert not run.state.is_hyper_param_search


def test_hp_name_names_the_folders(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.hyperparameter_search(seeds, n_trials=2, hp_name=lambda trial: f"seed{trial.params['seed']}")
    assert sorted(os.listdir(tmp_path)) == ["seed3", "seed3-1"]  # trials do not share a folder
    with pytest.raises(ValueError, match=r"hp_name must return the name of a folder in output_dir, got '\.\./there'"):
        run.hyperparameter_search(seeds, n_trials=1, hp_name=lambda trial: "../there")


def test_checkpoints_of_another_search_are_not_written_over(tmp_path: Path) -> None:
    from sparse_encoder.checkpoint import CheckpointError

    options: dict[str, Anything] = {"save_strategy": "epoch"}
    run = make(tmp_path, **options)
    run.hyperparameter_search(seeds, n_trials=1)
    run.hyperparameter_search(seeds, n_trials=1)  # its own
    with pytest.raises(CheckpointError, match="checkpoints of another run"):
        make(tmp_path, **options).hyperparameter_search(seeds, n_trials=1)
    make(tmp_path, overwrite_output_dir=True, **options).hyperparameter_search(seeds, n_trials=1)


class Given(BaseEvaluator):
    """Return metrics that grow with each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: object, **__: object) -> dict[str, float]:
        self.calls += 1
        return {"ndcg": 0.1 * self.calls, "mrr": 0.01}


def test_the_objective_is_the_sum_of_other_metrics_than_the_loss(tmp_path: Path) -> None:
    run = make(tmp_path, evaluator=Given())
    best = run.hyperparameter_search(seeds, n_trials=2, direction="maximize")
    assert best.objective == pytest.approx(0.21)
    assert best.run_id == "1"


def test_the_last_evaluation_of_a_run_counts(tmp_path: Path) -> None:
    evaluator = Given()
    run = make(tmp_path, evaluator=evaluator, eval_strategy="steps", eval_steps=1)
    best = run.hyperparameter_search(seeds, lambda metrics: metrics["eval_ndcg"], n_trials=1)
    assert evaluator.calls == 3  # none behind the run
    assert best.objective == pytest.approx(0.3)
    assert best.run_summary.trials[0].intermediate_values == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})


class GiveUp(optuna.pruners.BasePruner):
    """Give every trial up but the first, at its second report."""

    def prune(self, study: Anything, trial: Anything) -> bool:
        return trial.number > 0 and len(trial.intermediate_values) == 2


def test_a_trial_that_promises_less_is_given_up(tmp_path: Path) -> None:
    watch = Watch()
    run = make(tmp_path, callbacks=[watch], eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1)
    args = run.args
    best = run.hyperparameter_search(seeds, n_trials=3, pruner=GiveUp())
    states = [each.state.name for each in best.run_summary.trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [len(each.intermediate_values) for each in best.run_summary.trials] == [3, 2, 2]
    assert [state.global_step for _, state in watch.begun] == [3, 2, 2]
    assert watch.ended == 3  # trackers hear of the end
    assert run.args is args and not run.is_in_train
    assert [str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*lock*")] == []
    assert sorted(os.listdir(tmp_path / "run-1")) == ["checkpoint-1"]
    run.args.output_dir = str(tmp_path / "run-1")
    run.train()  # the folder is free


def test_several_directions_give_the_trials_that_none_beats(tmp_path: Path) -> None:
    run = make(tmp_path, eval_strategy="epoch")
    best = run.hyperparameter_search(
        rates,
        lambda metrics: [metrics["eval_loss"], math.log(metrics["eval_loss"])],
        n_trials=2,
        direction=["minimize", "maximize"],
        sampler=grid(learning_rate=RATES),
    )
    assert isinstance(best, list)
    assert len(best) == 2  # each is the best in one
    for each in best:
        assert each.objective[1] == math.log(each.objective[0])
        trial = each.run_summary.trials[int(each.run_id)]
        assert (trial.values, trial.params) == (each.objective, each.hyperparameters)
        assert trial.intermediate_values == {}


def test_one_direction_in_a_list_is_one_direction(tmp_path: Path) -> None:
    best = make(tmp_path).hyperparameter_search(seeds, n_trials=1, direction=["minimize"])
    assert isinstance(best, BestRun) and isinstance(best.objective, float)


def test_several_datasets_need_an_objective(tmp_path: Path) -> None:
    run = make(tmp_path, rows={"a": pairs(4), "b": pairs(6)})
    with pytest.raises(ValueError, match=r"several datasets, \['a', 'b'\], need compute_objective"):
        run.hyperparameter_search(seeds, n_trials=1)
    best = run.hyperparameter_search(seeds, lambda metrics: metrics["eval_a_loss"] + metrics["eval_b_loss"], n_trials=1)
    run.train(trial=best.hyperparameters)
    metrics = run.evaluate()
    assert best.objective == metrics["eval_a_loss"] + metrics["eval_b_loss"]


def test_errors_of_a_trial_end_the_search_unless_they_are_caught(tmp_path: Path) -> None:
    def init(trial: Anything) -> nn.Module:
        if trial is not None and trial.number == 0:
            raise KeyError("no such model")
        return tiny_encoder()

    run = make(tmp_path, model_init=init)
    args = run.args
    with pytest.raises(KeyError, match="no such model"):
        run.hyperparameter_search(seeds, n_trials=2)
    assert run.args is args and run.search is None and run.trial is None
    best = run.hyperparameter_search(seeds, n_trials=2, catch=(KeyError,), gc_after_trial=True)
    assert best.run_id == "1"
    assert [each.state.name for each in best.run_summary.trials] == ["FAIL", "COMPLETE"]
    with pytest.raises(RuntimeError, match=r"no trial came to its end.*\{'FAIL': 1\}"):
        run.hyperparameter_search(seeds, n_trials=1, catch=KeyError)


def test_a_search_ends_in_time(tmp_path: Path) -> None:
    best = make(tmp_path).hyperparameter_search(seeds, n_trials=None, timeout=0.5)
    assert best.objective > 0


def test_options_reach_the_study(tmp_path: Path) -> None:
    seen: list[int] = []
    storage = f"sqlite:///{tmp_path}/study.db"
    options: dict[str, Anything] = {"storage": storage, "study_name": "mine", "load_if_exists": True}
    run = make(tmp_path / "out")
    first = run.hyperparameter_search(
        seeds, n_trials=1, callbacks=[lambda study, trial: seen.append(trial.number)], **options
    )
    second = run.hyperparameter_search(seeds, n_trials=1, **options)
    assert seen == [0]
    assert first.run_summary.study_name == "mine"
    assert len(second.run_summary.trials) == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["run-0", "run-1"]


class Learned(EmbeddingLoss):
    """A loss with a parameter and a buffer of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.bias = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("count", torch.zeros(()))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        self.count += 1
        return (embeddings[0].mean() - self.bias) ** 2

    def get_config_dict(self) -> dict[str, Anything]:
        return {}


def test_what_a_loss_has_learned_is_forgotten(tmp_path: Path) -> None:
    loss = Learned(tiny_encoder())
    run = make(tmp_path, loss=loss, num_train_epochs=2, learning_rate=0.1)
    best = run.hyperparameter_search(seeds, n_trials=2)
    assert len({each.value for each in best.run_summary.trials}) == 1
    assert (loss.bias.item(), loss.count.item()) == (1.5, 0)
    assert loss.model is run.model
    run.train(trial=best.hyperparameters)
    assert loss.bias.item() != 1.5
    assert run.evaluate()["eval_loss"] == best.objective


def test_early_stopping_counts_each_trial_anew(tmp_path: Path) -> None:
    watch = Watch()
    run = make(
        tmp_path,
        callbacks=[watch, EarlyStoppingCallback(2)],
        evaluator=Given(),
        num_train_epochs=4,
        eval_strategy="epoch",
        metric_for_best_model="eval_mrr",
        greater_is_better=True,
    )
    run.hyperparameter_search(seeds, n_trials=2)
    assert [state.epoch for _, state in watch.begun] == [3.0, 3.0]


def test_a_batch_that_was_made_smaller_is_so_for_its_trial_only(tmp_path: Path) -> None:
    class Small(TinyEncoder):
        def forward(self, features: dict[str, Anything]) -> dict[str, Anything]:
            if self.training and len(features["input_ids"]) > 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return super().forward(features)

    watch = Watch()
    run = make(tmp_path, model_init=Small, callbacks=[watch], auto_find_batch_size=True)
    best = run.hyperparameter_search(seeds, n_trials=2)
    assert [args.per_device_train_batch_size for args, _ in watch.begun] == [3, 3, 3, 3]  # two attempts each
    assert run.args.per_device_train_batch_size == 4
    assert len({each.value for each in best.run_summary.trials}) == 1


@pytest.mark.parametrize("as_module", [False, True])
def test_models_of_trials_are_released(tmp_path: Path, as_module: bool) -> None:
    alive: list[weakref.ref[nn.Module]] = []

    def init() -> nn.Module:
        gc.collect()
        assert sum(each() is not None for each in alive) <= 1  # the one that is replaced
        model = TinyEncoder()
        alive.append(weakref.ref(model))
        return model

    options: dict[str, Anything] = {"loss": splade_loss(TinyEncoder())} if as_module else {}
    run = make(tmp_path, model_init=init, eval_strategy="epoch", save_strategy="epoch", **options)
    run.hyperparameter_search(seeds, n_trials=3)
    gc.collect()
    assert len(alive) == 5
    assert [each() for each in alive if each() is not None] == [run.model]


def test_no_trial_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path, push_to_hub=True, save_strategy="epoch")
    pushed: list[object] = []
    publisher = run.publisher
    assert publisher is not None
    monkeypatch.setattr(publisher, "on_save", lambda *rest: pushed.append(rest))
    run.hyperparameter_search(seeds, n_trials=1)
    assert pushed == []
    assert run.publisher is publisher
    run.train()
    assert len(pushed) == 1


def test_values_that_are_no_settings_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def space(trial: Anything) -> dict[str, Anything]:
        return {"dropout": trial.suggest_float("dropout", 0.0, 0.5)}

    made: list[float] = []

    def init(trial: Anything) -> nn.Module:
        made.append(0.0 if trial is None else trial.params["dropout"])
        return TinyEncoder(dropout=made[-1])

    run = make(tmp_path, model_init=init)
    with caplog.at_level(logging.WARNING, logger="sparse_encoder"):
        best = run.hyperparameter_search(space, n_trials=2)
    assert [each for each in caplog.messages if "dropout" in each] == [
        "the trial's values of ['dropout'] are no settings of SparseEncoderTrainingArguments"
    ]
    assert made[1:3] == [each.params["dropout"] for each in best.run_summary.trials]


def test_a_search_needs_model_init(tmp_path: Path) -> None:
    run = SparseEncoderTrainer(tiny_encoder(), arguments(tmp_path), pairs(10), pairs(6), splade_loss)
    with pytest.raises(RuntimeError, match="needs a trainer with model_init"):
        run.hyperparameter_search()


def test_a_search_needs_something_to_evaluate_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an eval_dataset or an evaluator"):
        make(tmp_path, rows=None).hyperparameter_search()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "sigopt"}, ValueError, "'sigopt' is not supported: its service has ended"),
        ({"backend": "wandb"}, ValueError, "'wandb' is not supported: its sweeps .* report_to='wandb'"),
        ({"backend": "hyperopt"}, ValueError, r"unknown backend 'hyperopt'; choose from \['optuna', 'ray'\]"),
        ({"direction": "down"}, ValueError, r"direction must be one of .*'minimize'.*got \['down'\]"),
        ({"direction": []}, ValueError, "direction must be one of"),
        ({"direction": ["minimize", "maximize"]}, ValueError, "need compute_objective, which returns a list"),
        ({"n_trials": 0}, ValueError, "n_trials must be a whole number > 0, got 0"),
        ({"n_trials": 2.0}, ValueError, "n_trials must be a whole number > 0, got 2.0"),
        ({"n_trials": None}, ValueError, "n_trials=None needs a timeout"),
        ({"n_jobs": 2}, ValueError, "n_jobs must be 1: the trials share one trainer"),
        ({"directions": ["minimize"]}, ValueError, "directions is called direction here"),
        ({"colour": "red"}, TypeError, "colour"),
        ({"hp_space": lambda trial: None}, TypeError, "hp_space must return a dict of settings by name, got None"),
        ({"hp_space": lambda trial: {"seed": -1}}, ValueError, "seed must be >= 0, got -1"),
        ({"compute_objective": lambda metrics: "low"}, TypeError, "must return numbers, got 'low'"),
        ({"compute_objective": lambda metrics: [1, 2]}, ValueError, "a number for each of the directions"),
    ],
)
def test_what_does_not_work_is_refused_by_name(
    tmp_path: Path, options: Anything, error: type[Exception], message: str
) -> None:
    run = make(tmp_path)
    args = run.args
    with pytest.raises(error, match=message):
        run.hyperparameter_search(**{"hp_space": seeds, "n_trials": 1, **options})
    assert run.search is None and run.args is args
    assert run.hyperparameter_search(seeds, n_trials=1).run_id == "0"  # and does no harm


def test_a_missing_backend_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'sparse-encoder\[hpo\]'"):
        run.hyperparameter_search(backend="optuna")
    with pytest.raises(ImportError, match=r"pip install 'ray\[tune\]'"):
        run.hyperparameter_search(backend="ray")
    monkeypatch.setattr("sparse_encoder.training.tuning.backends.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs optuna or ray: pip install 'sparse-encoder\[hpo\]'"):
        run.hyperparameter_search()


def test_the_first_backend_that_is_installed_is_taken(tmp_path: Path) -> None:
    assert list(BACKENDS) == ["optuna", "ray"]
    best = make(tmp_path).hyperparameter_search(seeds, n_trials=1)
    assert isinstance(best.run_summary, optuna.Study)


def test_a_search_cannot_be_begun_within_a_run(tmp_path: Path) -> None:
    run = make(tmp_path)

    class Nested(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            run.hyperparameter_search(seeds)

    run.add_callback(Nested)
    with pytest.raises(RuntimeError, match="called while the trainer runs"):
        run.train()
    with pytest.raises(RuntimeError, match="called while the trainer runs"):
        run.hyperparameter_search(seeds, n_trials=1)


def test_any_object_can_steer_a_search(tmp_path: Path) -> None:
    class Both:
        name = "both"

        def default_space(self, trial: Anything) -> Anything:
            return {"learning_rate": trial}

        def run(self, search: Anything) -> BestRun:
            found = {}
            for number, rate in enumerate(RATES):
                values = search.values_of(rate)
                (found[rate],) = search.run(search.trial_run(rate, number, values, values))
            best = min(found, key=lambda rate: found[rate])
            return BestRun(str(RATES.index(best)), found[best], {"learning_rate": best}, found)

    best = make(tmp_path, num_train_epochs=3).hyperparameter_search(backend=Both())
    assert (best.run_id, best.hyperparameters) == ("1", {"learning_rate": 3e-2})
    assert best.objective == min(best.run_summary.values())


def test_a_trial_that_diverges_has_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    class Diverging(EmbeddingLoss):
        def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
            return embeddings[0].mean() * (math.nan if run.args.learning_rate > 1e-3 else 1.0)

        def get_config_dict(self) -> dict[str, Anything]:
            return {}

    run = make(tmp_path, loss=Diverging, num_train_epochs=5)
    best = run.hyperparameter_search(rates, n_trials=2, sampler=grid(learning_rate=RATES))
    assert {each.params["learning_rate"]: each.state.name for each in best.run_summary.trials} == {
        1e-6: "COMPLETE",
        3e-2: "FAIL",
    }
    assert best.hyperparameters == {"learning_rate": 1e-6}


def test_an_objective_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    run = make(tmp_path, eval_strategy="epoch")
    results = iter([math.nan, 5.0, 7.0])
    best = run.hyperparameter_search(seeds, lambda metrics: next(results), n_trials=3)
    assert [each.state.name for each in best.run_summary.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert (best.run_id, best.objective) == ("1", 5.0)


def test_a_study_of_the_users_own_can_train(tmp_path: Path) -> None:
    run = make(tmp_path, num_train_epochs=3)

    def objective(trial: Anything) -> float:
        rates(trial)
        run.train(trial=trial)
        return run.evaluate()["eval_loss"]

    study = optuna.create_study(sampler=grid(learning_rate=RATES))
    study.optimize(objective, n_trials=2)
    assert study.best_params == {"learning_rate": 3e-2}
    run.train(trial=study.best_trial)
    assert run.evaluate()["eval_loss"] == study.best_value
    assert run.state.trial_params == {"learning_rate": 3e-2}


class Point(nn.Module):
    """One number, which moves towards those in the data."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": ((self.point * x - labels) ** 2).mean()}

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)


def test_the_generic_trainer_searches_too(tmp_path: Path) -> None:
    from sparse_encoder.training.arguments import TrainingArguments
    from sparse_encoder.training.generic import Trainer

    rows = [{"x": float(i), "labels": 3.0 * i} for i in range(1, 6)]
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, save_strategy="no", max_steps=8, optim="sgd", max_grad_norm=0.0
    )
    run = Trainer(None, args, train_dataset=rows, eval_dataset=rows, model_init=Point)
    best = run.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-4, 3e-2])},
        n_trials=2,
        sampler=grid(learning_rate=[1e-4, 3e-2]),
    )
    assert best.hyperparameters == {"learning_rate": 3e-2}
    assert run.model.point.item() == 0.0
    run.train(trial=best.hyperparameters)
    assert run.evaluate()["eval_loss"] == best.objective < 1.0
