from __future__ import annotations

import pytest

transformers = pytest.importorskip("transformers")
optuna = pytest.importorskip("optuna")

import inspect  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from torch import nn  # noqa: E402
from training_helpers import Anything, arguments, pairs, splade_loss, tiny_encoder  # noqa: E402
from transformers.trainer_utils import BestRun as PeerBestRun  # noqa: E402
from transformers.trainer_utils import default_compute_objective as peer_objective  # noqa: E402
from transformers.trainer_utils import default_hp_space_optuna as peer_space  # noqa: E402

from sparse_encoder.training import SparseEncoderTrainer  # noqa: E402
from sparse_encoder.training.tuning import BestRun, default_compute_objective, default_hp_space_optuna  # noqa: E402

CLOCK = {"eval_runtime": 3.0, "eval_samples_per_second": 5.0, "eval_steps_per_second": 7.0, "epoch": 2.0}


@pytest.mark.parametrize("seed", range(5))
def test_the_default_space_chooses_as_the_peer(seed: int) -> None:
    chosen = []
    for space in (default_hp_space_optuna, peer_space):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        trial = study.ask()
        chosen.append((space(trial), trial.distributions))
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    "metrics",
    [
        {"eval_loss": 0.25},
        {"eval_loss": 0.25, "eval_ndcg@10": 0.5},
        {"eval_ndcg@10": 0.5, "eval_mrr@10": 0.125, "eval_sparsity": -0.25},
        {"eval_a_loss": 0.5, "eval_b_loss": 0.25, "eval_a_runtime": 1.0},
    ],
)
def test_the_default_objective_is_the_peers(metrics: dict[str, float]) -> None:
    assert default_compute_objective({**metrics, **CLOCK}) == peer_objective({**metrics, **CLOCK})


def test_the_time_of_preparing_a_model_counts_in_the_peers_objective_only() -> None:
    metrics = {"eval_loss": 0.25, "eval_model_preparation_time": 9.0, **CLOCK}
    assert peer_objective(metrics) == 9.0
    assert default_compute_objective(metrics) == 0.25


def test_results_and_arguments_have_the_peers_names() -> None:
    assert BestRun._fields == PeerBestRun._fields
    assert BestRun._field_defaults == PeerBestRun._field_defaults
    ours, theirs = (
        inspect.signature(each.hyperparameter_search).parameters
        for each in (SparseEncoderTrainer, transformers.Trainer)
    )
    assert [*ours][:-1] == [*theirs][:-1]
    assert [each.default for each in ours.values()] == [each.default for each in theirs.values()]


class PeerModel(nn.Module):
    """The mean of one number per row, which moves to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.point + x.unsqueeze(1)) ** 2).mean()}


def test_model_init_sees_the_same_random_numbers_as_in_the_peer(tmp_path: Path) -> None:
    """At construction and at every train(): ``set_seed(args.seed)`` comes before ``model_init``."""
    drawn: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> nn.Module:
        drawn["ours"].append(torch.rand(()).item())
        return tiny_encoder()

    def theirs() -> nn.Module:
        drawn["peer"].append(torch.rand(()).item())
        return PeerModel()

    run: Anything = SparseEncoderTrainer(
        None, arguments(tmp_path / "ours", seed=17, max_steps=1), pairs(8), None, splade_loss, model_init=ours
    )
    run.train()
    args = transformers.TrainingArguments(
        str(tmp_path / "peer"), seed=17, max_steps=1, use_cpu=True, report_to="none", save_strategy="no"
    )
    args.disable_tqdm = True
    peer = transformers.Trainer(None, args, train_dataset=[{"x": float(i)} for i in range(8)], model_init=theirs)
    peer.train()
    assert len(drawn["ours"]) == 2
    assert drawn["ours"] == drawn["peer"]


@pytest.mark.parametrize("arity", [0, 1])
def test_a_search_trains_the_same_trials_as_the_peers(tmp_path: Path, arity: int) -> None:
    """Numbers, folders, and what ``model_init`` gets."""
    got: dict[str, list[Anything]] = {"ours": [], "peer": []}

    def space(trial: Anything) -> dict[str, Anything]:
        return {"max_steps": trial.suggest_int("max_steps", 1, 9)}

    def init(who: str, make: Anything) -> Anything:
        if arity == 0:
            return make
        return lambda trial: got[who].append(None if trial is None else (trial.number, trial.params)) or make()

    ours = SparseEncoderTrainer(
        None,
        arguments(tmp_path / "ours", save_strategy="steps", save_steps=100),
        pairs(8),
        pairs(4),
        splade_loss,
        model_init=init("ours", tiny_encoder),
    )
    rows = [{"x": float(i)} for i in range(8)]
    args = transformers.TrainingArguments(
        str(tmp_path / "peer"), use_cpu=True, report_to="none", save_strategy="steps", save_steps=100, disable_tqdm=True
    )
    peer = transformers.Trainer(None, args, train_dataset=rows, eval_dataset=rows, model_init=init("peer", PeerModel))
    peer.can_return_loss = True
    best = [
        each.hyperparameter_search(
            space, lambda metrics: 1.0, n_trials=3, sampler=optuna.samplers.RandomSampler(seed=1)
        )
        for each in (ours, peer)
    ]
    assert best[0][:3] == best[1][:3]
    folders = [
        sorted(str(each.relative_to(tmp_path / who)) for each in (tmp_path / who).glob("run-*/checkpoint-*"))
        for who in ("ours", "peer")
    ]
    assert len(folders[0]) == 3
    assert folders[0] == folders[1]
    if arity == 1:
        made = [[each for each in got[who] if each is not None] for who in ("ours", "peer")]
        assert [number for number, _ in made[0]] == [number for number, _ in made[1]] == [0, 1, 2]
        assert all(params for _, params in made[0])  # the peer makes the model before the trial has chosen
        assert not any(params for _, params in made[1])
