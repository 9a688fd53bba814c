"""Search for settings: trials of a trainer, steered by optuna or ray."""

from __future__ import annotations

from sparse_encoder.training.tuning.objective import default_compute_objective
from sparse_encoder.training.tuning.optuna_backend import default_hp_space_optuna
from sparse_encoder.training.tuning.protocol import BestRun, SearchBackend, TrialPruned
from sparse_encoder.training.tuning.ray_backend import default_hp_space_ray

__all__ = [
    "BestRun",
    "SearchBackend",
    "TrialPruned",
    "default_compute_objective",
    "default_hp_space_optuna",
    "default_hp_space_ray",
]
