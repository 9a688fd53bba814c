from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_helpers import Anything, TinyEncoder, arguments, digest, pairs, splade_loss, tiny_encoder

from sparse_encoder.losses import SpladeLoss
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.events.splade_weights import SpladeRegularizerWeightSchedulerCallback


def make(
    folder: Path, model_init: Anything, model: Anything = None, loss: Anything = splade_loss, **options: Anything
) -> SparseEncoderTrainer:
    options = {"num_train_epochs": 1, **options}
    return SparseEncoderTrainer(model, arguments(folder, **options), pairs(10), pairs(6), loss, model_init=model_init)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_trainer_needs_a_model_or_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a model, or model_init"):
        make(tmp_path, None)


def test_with_both_the_given_model_is_used_until_train_replaces_it(tmp_path: Path) -> None:
    given = tiny_encoder()
    before = digest(given)
    with pytest.warns(UserWarning, match="both given") as caught:
        run = make(tmp_path, TinyEncoder, given)
    assert caught[0].filename == __file__
    assert run.model is given
    run.train()
    assert run.model is not given
    assert same(digest(given), before)
    assert run.callback_handler.context["model"] is run.model
    assert run.loss.model is run.model


@pytest.mark.parametrize("function", [lambda a, b: TinyEncoder(), lambda a, b, c=1: TinyEncoder(), lambda a, *, b: a])
def test_model_init_takes_one_argument_at_most(tmp_path: Path, function: Anything) -> None:
    with pytest.raises(RuntimeError, match="no argument, or the trial of a search, got a function of .'a', 'b'"):
        make(tmp_path, function)


@pytest.mark.parametrize("result", [None, "bert-base", TinyEncoder])
def test_model_init_returns_a_model(tmp_path: Path, result: object) -> None:
    with pytest.raises(RuntimeError, match="model_init must return a model"):
        make(tmp_path, lambda: result)


@pytest.mark.parametrize("name", ["required", "default", "keyword", "nothing"])
def test_model_init_gets_the_trial_if_it_takes_an_argument(tmp_path: Path, name: str) -> None:
    got: list[object] = []
    functions: dict[str, Anything] = {
        "required": lambda trial: got.append(trial) or TinyEncoder(),
        "default": lambda trial=5: got.append(trial) or TinyEncoder(),
        "keyword": lambda *rest, **more: got.append((rest, more)) or TinyEncoder(),
        "nothing": lambda: got.append("nothing") or TinyEncoder(),
    }
    run = make(tmp_path, functions[name])
    trial = {"learning_rate": 1e-3}
    run.train(trial=trial)
    expected = {"required": [None, trial], "default": [None, trial], "keyword": [((), {})] * 2}
    assert got == expected.get(name, ["nothing"] * 2)
    assert run.call_model_init() is not run.model


def test_the_seed_is_set_before_the_model_is_made(tmp_path: Path) -> None:
    """The rule of the peer: ``set_seed(args.seed)``, then ``model_init``, at construction and at each train()."""
    run = make(tmp_path, TinyEncoder, seed=29)
    torch.manual_seed(29)
    expected = digest(TinyEncoder())
    assert same(digest(run.model), expected)
    made: list[dict[str, torch.Tensor]] = []
    drawn: list[tuple[float, float]] = []

    def init() -> nn.Module:
        drawn.append((random.random(), float(np.random.rand())))
        made.append(digest(model := TinyEncoder()))
        return model

    run.model_init = init
    torch.manual_seed(1)
    run.train()
    run.train()
    assert same(made[0], expected) and same(made[1], expected)
    random.seed(29)
    np.random.seed(29)
    assert drawn == [(random.random(), float(np.random.rand()))] * 2


def test_every_train_begins_anew(tmp_path: Path) -> None:
    run = make(tmp_path, TinyEncoder, num_train_epochs=2)
    first = run.train()
    weights, model, optimizer = digest(run.model), run.model, run.optimizer
    second = run.train()
    assert run.model is not model and run.optimizer is not optimizer
    assert same(digest(run.model), weights)
    assert second.training_loss == first.training_loss


def test_a_loss_that_is_a_module_gets_the_new_model(tmp_path: Path) -> None:
    loss = splade_loss(tiny_encoder())
    run = make(tmp_path, TinyEncoder, loss=loss)
    run.train()
    inner = loss.loss
    assert isinstance(loss, SpladeLoss) and isinstance(inner, nn.Module)
    assert run.loss is loss
    assert loss.model is run.model and inner.model is run.model
    trained = {id(each) for each in run.model.parameters()}
    assert {id(each) for group in run.optimizer.param_groups for each in group["params"]} == trained


def test_a_loss_that_is_a_function_is_made_anew(tmp_path: Path) -> None:
    run = make(tmp_path, TinyEncoder)
    first = run.loss
    run.train()
    assert run.loss is not first
    assert run.loss.model is run.model


def test_schedules_of_losses_that_are_gone_go_with_them(tmp_path: Path) -> None:
    """Else each train() would add one, and keep its old loss and model."""
    run = make(tmp_path, TinyEncoder)
    run.train()
    run.train()
    schedules = [
        each for each in run.callback_handler.callbacks if isinstance(each, SpladeRegularizerWeightSchedulerCallback)
    ]
    assert [each.loss for each in schedules] == [run.loss]


def test_a_schedule_that_was_given_stays(tmp_path: Path) -> None:
    loss = splade_loss(tiny_encoder())
    given = SpladeRegularizerWeightSchedulerCallback(loss, warmup_ratio=0.5)
    run = SparseEncoderTrainer(
        None, arguments(tmp_path), pairs(10), None, loss, model_init=TinyEncoder, callbacks=[given]
    )
    run.train()
    run.train()
    assert run.callback_handler.callbacks[1] is given
    assert sum(isinstance(each, type(given)) for each in run.callback_handler.callbacks) == 1


def test_model_init_alone_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(tmp_path, TinyEncoder)
        make(tmp_path, None, tiny_encoder())
    assert [str(each.message) for each in caught] == []


def test_a_folder_belongs_to_a_trainer_only_after_it_has_trained_there(tmp_path: Path) -> None:
    from sparse_encoder.checkpoint import CheckpointError

    options: dict[str, Anything] = {"save_strategy": "epoch"}
    make(tmp_path, TinyEncoder, **options).train()
    other = make(tmp_path, TinyEncoder, **options)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="checkpoints of another run"):
            other.train()
    other.args.output_dir = str(tmp_path / "other")
    other.train()
    other.train()
    other.args.output_dir = str(tmp_path)
    with pytest.raises(CheckpointError, match="checkpoints of another run"):
        other.train()
