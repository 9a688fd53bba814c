"""Which trackers receive the log of a run, and what all of them do alike; knows none of their interfaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sparse_encoder.training.arguments import TrainingArguments
    from sparse_encoder.training.state import TrainerState


class Tracker(NamedTuple):
    """Where a tracker is found."""

    package: str
    """That must be installed."""
    module: str
    """Of this room."""
    callback: str
    """The class in it."""


TRACKERS = {
    "codecarbon": Tracker("codecarbon", "codecarbon", "CodeCarbonCallback"),
    "tensorboard": Tracker("tensorboard", "tensorboard", "TensorBoardCallback"),
    "wandb": Tracker("wandb", "wandb", "WandbCallback"),
}


def tracker_names(report_to: str | Sequence[str] | None) -> list[str]:
    """Return the trackers that ``report_to`` names: none for ``"none"``, the installed ones for ``"all"``.

    Raises:
        ValueError: If one is unknown, or ``"none"`` or ``"all"`` stands beside others.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names in ([], ["none"]):
        return []
    if names == ["all"]:
        return [name for name, tracker in TRACKERS.items() if find_spec(tracker.package) is not None]
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ValueError(
            f"report_to must be 'none', 'all', or some of {sorted(TRACKERS)}, got {report_to!r}: {unknown[0]!r} is "
            "unknown or stands beside others"
        )
    return list(dict.fromkeys(names))


def reporting_callbacks(report_to: str | Sequence[str] | None) -> list[Any]:  # callbacks; they know this module
    """Build the callbacks of the trackers that ``report_to`` names.

    Raises:
        ValueError: As :func:`tracker_names`.
        ImportError: If a tracker is not installed; says how to.
    """
    callbacks = []
    for name in tracker_names(report_to):
        tracker = TRACKERS[name]
        build: Callable[[], Any] = getattr(import_module(f"{__package__}.{tracker.module}"), tracker.callback)
        callbacks.append(build())
    return callbacks


def require_tracker(name: str, module: str | None = None) -> ModuleType:
    """Import a tracker's package, or another module that needs it.

    Raises:
        ImportError: If it is not installed; says how to.
    """
    try:
        return import_module(module or TRACKERS[name].package)
    except ImportError as reason:
        raise ImportError(
            f"reporting to {name} needs a package that is not installed: pip install 'sparse-encoder[trackers]'"
        ) from reason


def by_section(logs: Mapping[str, object]) -> dict[str, object]:
    """Name what is logged as trackers group it: ``eval_x`` is ``eval/x``, ``test_x`` ``test/x``, else ``train/x``."""
    named = {}
    for name, value in logs.items():
        section, _, rest = name.partition("_")
        named[f"{section}/{rest}" if section in ("eval", "test") and rest else f"train/{name}"] = value
    return named


def model_config(model: object) -> dict[str, Any]:  # values as in a config.json
    """Return the configuration of a model's backbone; nothing if it has none."""
    config = getattr(model, "config", None)
    if config is None:
        return {}
    return dict(config) if isinstance(config, Mapping) else dict(config.to_dict())


def tensorboard_folder(args: TrainingArguments, state: TrainerState) -> str:
    """Return ``$TENSORBOARD_LOGGING_DIR``, else ``args.logging_dir``, else a folder by time and machine.

    That one is in ``runs`` of ``args.output_dir``. A trial of a search has a folder of its name in it.
    """
    chosen = os.environ.get("TENSORBOARD_LOGGING_DIR") or args.logging_dir
    folder = Path(str(args.output_dir)) / "runs" / f"{datetime.now():%b%d_%H-%M-%S}_{socket.gethostname()}"
    folder = Path(chosen).expanduser() if chosen else folder
    return str(folder if state.trial_name is None else folder / state.trial_name)
