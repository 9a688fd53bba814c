"""The values of a trial on a trainer's settings: put there for its run, and taken away again."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sparse_encoder.training.arguments import TrainingArguments, plain

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=TrainingArguments)

_FIXED = frozenset(
    {
        "ddp_backend",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "ddp_timeout",
        "disable_tqdm",
        "fsdp",
        "fsdp_config",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "label_names",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "output_dir",
        "overwrite_output_dir",
        "prompts",
        "push_to_hub",
        "report_to",
        "router_mapping",
        "tf32",
        "use_cpu",
    }
)
"""Settings that a trainer has acted on before a trial comes."""
_SAME_AS = {  # a name: another that would be used in its place, and the value that says nothing
    "warmup_ratio": ("warmup_steps", 0),
    "gradient_checkpointing": ("activation_checkpointing", None),
    "gradient_checkpointing_kwargs": ("activation_checkpointing_kwargs", None),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRun:
    """A trial as the run of a trainer."""

    trial: Any  # of the backend's own kind
    """What ``model_init`` gets."""
    values: Mapping[str, Any]  # settings of several types
    """Settings by name."""
    params: Mapping[str, Any]  # as above
    """What the trial chose, by name; the values may have been made of it."""
    name: str | None = None
    """Folder of the run in ``args.output_dir``, in a search; None trains where the settings say."""
    overwrite: bool = False
    """Whether checkpoints in that folder may go."""


def trial_run(trial: object) -> TrialRun:
    """Return a trial that was given to ``train()``: settings by name, or an object that has them as ``params``.

    Raises:
        TypeError: If it is something else.
    """
    values = trial if isinstance(trial, Mapping) else getattr(trial, "params", None)
    if not isinstance(values, Mapping):
        raise TypeError(f"a trial must be a dict of settings by name, or have them as params, got {trial!r}")
    return TrialRun(trial=trial, values=values, params=values)


@contextmanager
def applied_trial(trainer: TrainerBase, trial: object) -> Iterator[None]:
    """Let a trainer have the values of a trial for a while; its own settings are left as they are.

    Args:
        trainer: Gets a copy of its settings, with the values in it.
        trial: A :class:`TrialRun`, anything that :func:`trial_run` takes, or None for none. One that is applied
            already is not applied again.

    Raises:
        TypeError: If it is no trial, or a value has the wrong type.
        ValueError: If a value is not allowed, or cannot differ between trials.
    """
    present = trainer.trial
    if trial is None or (present is not None and present.trial is trial):
        yield
        return
    args, publisher = trainer.args, trainer.publisher
    if isinstance(trial, TrialRun):
        run = trial
    else:
        run = trial_run(trial)
        warn_of_unknown(args, run.values)
    trainer.args, trainer.trial = arguments_of(args, run), run
    if run.name is not None:
        trainer.publisher = None
    try:
        yield
    finally:
        trainer.args, trainer.trial, trainer.publisher = args, present, publisher


def arguments_of(args: Arguments, run: TrialRun) -> Arguments:
    """Return the settings of a run: a copy, with the values of the trial, checked like any other.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is not allowed, or cannot differ between trials.
    """
    values = {name: value for name, value in run.values.items() if name in settings_of(args)}
    if fixed := sorted(_FIXED & set(values)):
        raise ValueError(f"{fixed} cannot differ between trials: the trainer has acted on them when it was built")
    changed = copy.copy(args)
    for name, value in values.items():
        other, nothing = _SAME_AS.get(name, (None, None))
        if other is not None and other not in values:
            setattr(changed, other, nothing)
        setattr(changed, name, fitted(value, getattr(args, name)))
    if run.name is not None:
        changed.output_dir = str(Path(str(args.output_dir)) / run.name)
        changed.push_to_hub = False
        changed.overwrite_output_dir = args.overwrite_output_dir or run.overwrite
    changed.__post_init__()
    return changed


def settings_of(args: TrainingArguments) -> set[str]:
    """Return the names that a trial may have values for."""
    return {each.name for each in fields(args)} | set(vars(args))


def warn_of_unknown(args: TrainingArguments, values: Mapping[str, Any]) -> None:  # settings of several types
    """Tell of values that are no settings."""
    if unknown := sorted(set(values) - settings_of(args)):
        logger.warning("the trial's values of %s are no settings of %s", unknown, type(args).__name__)


def fitted(value: Any, old: Any) -> Any:  # noqa: ANN401  (values of several types)
    """Return a value of the type that a setting has had, if it can be had without a loss, else as it is.

    A ratio of 0.1 in the place of 0 steps stays 0.1 (the peer makes it 0), and ``"false"`` is false (there true).

    Args:
        value: A number, perhaps of numpy or as text, or anything else.
        old: Present value of the setting; None fits all.
    """
    value = value.item() if isinstance(value, np.generic) else plain(value)
    if isinstance(old, bool):
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.lower(), value)
        return bool(value) if isinstance(value, int) and value in (0, 1) else value
    if not isinstance(old, int | float) or isinstance(value, bool):
        return value
    if isinstance(value, str):
        value = _number(value)
    if isinstance(old, float) and isinstance(value, int) and float(value) == value:
        return float(value)
    if isinstance(old, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def trial_facts(trainer: TrainerBase) -> dict[str, Any]:  # values of several types
    """Return what the state of a run tells of its trial, by the names there."""
    run = trainer.trial
    if run is None:
        return {}
    params = {name: _json_value(value) for name, value in run.params.items()}
    return {"is_hyper_param_search": True, "trial_name": run.name, "trial_params": params}


def _json_value(value: Any) -> Any:  # noqa: ANN401  (values of several types)
    """Return a value as JSON can hold it."""
    value = value.item() if isinstance(value, np.generic) else plain(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _number(text: str) -> int | float | str:
    """Return the number that a text spells, or the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
