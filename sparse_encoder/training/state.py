"""What a training run tells about itself: its state, its flags and its result. Plain values, nothing of torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from sparse_encoder.checkpoint import CheckpointError, read_json_object, write_json

_MAX_BYTES = 1_000_000_000
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ESCAPE = "\\"  # in front of a text that would be taken for one of these
_PAIRS, _COUNTS = "__pairs__", "__counts__"  # a dict, or a Counter, whose keys are no texts, as a list of pairs
_KEYS = (str, int, float, type(None))


class TrainOutput(NamedTuple):
    """The result of a run."""

    global_step: int
    training_loss: float
    """Mean loss of the updates of this call."""
    metrics: dict[str, float]


@dataclass
class TrainerControl:
    """Flags by which callbacks steer the loop; each is lowered again right before what it asks for."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False


@dataclass
class TrainerState:
    """Where a run stands and what it has logged; saved with every checkpoint as ``trainer_state.json``."""

    epoch: float = 0.0
    global_step: int = 0
    """Updates done."""
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    """Token positions given to the model by this process, padding included."""
    total_flos: float = 0.0
    """Floating point operations of all updates, estimated as 6 per token position and parameter outside embeddings."""
    log_history: list[dict[str, float]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] = field(default_factory=dict)
    """States of callbacks by the name of their class."""
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True

    def to_dict(self) -> dict[str, Any]:  # values of several types
        """Return what JSON can hold, as :func:`spelled` says."""
        values: dict[str, Any] = spelled(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainerState:  # as above
        """Undo :meth:`to_dict`.

        Raises:
            ValueError: If a key is missing or unknown.
        """
        known = {each.name for each in fields(cls)}
        if known != set(values):
            raise ValueError(
                f"missing keys {sorted(known - set(values))} and unknown keys {sorted(set(values) - known)} "
                "in the trainer's state"
            )
        return cls(**read_spelled(dict(values)))

    def save_to_json(self, json_path: str | Path) -> None:
        """Write it as a checkpoint's ``trainer_state.json`` has it."""
        write_json(Path(json_path), self.to_dict())

    @classmethod
    def load_from_json(cls, json_path: str | Path) -> TrainerState:
        """Read what :meth:`save_to_json` wrote.

        Raises:
            CheckpointError: If it cannot be read, or a key is missing or unknown.
        """
        path = Path(json_path)
        values = read_json_object(path, max_bytes=_MAX_BYTES, error=CheckpointError)
        try:
            return cls.from_dict(values)
        except ValueError as reason:
            raise CheckpointError(str(reason), path=path) from reason


def spelled(value: Any) -> Any:  # noqa: ANN401  (numbers, texts, and lists and dicts of them)
    """Return a value in a form that JSON gives back exactly: names for numbers that are not finite, keys as they are.

    Tuples become lists. What JSON cannot hold at all is left as it is.
    """
    if isinstance(value, dict):
        return _spelled_dict(value)
    if isinstance(value, list | tuple):
        return [spelled(each) for each in value]
    if isinstance(value, str):
        return _ESCAPE + value if value.lstrip(_ESCAPE) in _NOT_FINITE else value
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_spelled(value: Any) -> Any:  # noqa: ANN401  (as above)
    """Undo :func:`spelled`."""
    if isinstance(value, dict):
        for tag, kind in ((_PAIRS, dict), (_COUNTS, Counter)):
            if set(value) == {tag}:
                return kind({read_spelled(key): read_spelled(each) for key, each in value[tag]})
        return {key: read_spelled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [read_spelled(each) for each in value]
    if not isinstance(value, str):
        return value
    return value[1:] if value[:1] == _ESCAPE and value.lstrip(_ESCAPE) in _NOT_FINITE else _NOT_FINITE.get(value, value)


def _spelled_dict(values: dict[Any, Any]) -> dict[Any, Any]:  # as above
    has_texts = all(isinstance(key, str) for key in values) and not {_PAIRS, _COUNTS} & set(values)
    is_plain = has_texts and not isinstance(values, Counter)
    if is_plain or not all(isinstance(key, _KEYS) for key in values):
        return {key: spelled(each) for key, each in values.items()}
    pairs = [[spelled(key), spelled(each)] for key, each in values.items()]
    return {_COUNTS if isinstance(values, Counter) else _PAIRS: pairs}
