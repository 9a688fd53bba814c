from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed_helpers import in_processes
from training_helpers import Anything, TinyEncoder, arguments, pairs, splade_loss
from tuning_helpers import folder_names

from sparse_encoder.training import SparseEncoderTrainer

optuna = pytest.importorskip("optuna")

RATES = [1e-6, 3e-2, 1e-2]


class GiveUpThird(optuna.pruners.BasePruner):
    def prune(self, study: Anything, trial: Anything) -> bool:
        return trial.number == 2


def search_in_rank(rank: int, folder: str) -> dict[str, Any]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    begun: list[tuple[int, float]] = []

    def init(trial: Anything) -> TinyEncoder:
        if hasattr(trial, "number"):
            begun.append((trial.number, trial.params["learning_rate"]))
            if trial.number == 1:
                raise KeyError("in all processes")
        return TinyEncoder()

    args = arguments(f"{folder}/out", eval_strategy="steps", eval_steps=1, max_steps=2, save_strategy="epoch")
    trainer = SparseEncoderTrainer(None, args, pairs(16), pairs(6), splade_loss, model_init=init)
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", RATES)},
        n_trials=4,
        timeout=100,
        catch=(KeyError,),
        pruner=GiveUpThird(),
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    trials = [] if best is None else [(each.state.name, each.value) for each in best.run_summary.trials]
    found = None if best is None else (best.run_id, best.objective, best.hyperparameters)
    trainer.train(trial={"learning_rate": 3e-2})
    return {
        "begun": begun,
        "trials": trials,
        "best": found,
        "restored": trainer.args is args and trainer.search is None,
        "loss": trainer.evaluate()["eval_loss"],
    }


@pytest.mark.slow
def test_processes_run_each_trial_together(tmp_path: Path) -> None:
    first, second = in_processes(search_in_rank, ranks=2, folder=tmp_path)
    assert [state for state, _ in first["trials"]] == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    assert [number for number, _ in first["begun"]] == [0, 1, 2, 3]
    assert second["begun"] == first["begun"]
    assert second["best"] is None
    finished = {number: value for number, (state, value) in enumerate(first["trials"]) if state == "COMPLETE"}
    best = min(finished, key=lambda number: finished[number])
    assert first["best"] == (str(best), finished[best], {"learning_rate": dict(first["begun"])[best]})
    assert first["restored"] and second["restored"]
    assert first["loss"] == second["loss"]
    assert [each for each in folder_names(tmp_path / "out") if each.startswith("run-")] == ["run-0", "run-2", "run-3"]
