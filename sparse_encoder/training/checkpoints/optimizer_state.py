"""The state of an optimizer and its schedule as files: tensors in safetensors, the rest in JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from sparse_encoder.checkpoint import CheckpointError, read_json_object, read_safetensors, write_json, write_safetensors
from sparse_encoder.training.sharding import shared_out_state
from sparse_encoder.training.state import read_spelled, spelled

TENSORS, OPTIONS, SCHEDULE = "optimizer.safetensors", "optimizer.json", "scheduler.json"
_MAX_BYTES = 100_000_000


class Schedule(Protocol):
    """What a learning rate schedule must be able to do."""

    def step(self) -> None:
        """Go on by one update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        ...


def write_optimizer(
    folder: Path,
    optimizer: Optimizer,
    scheduler: Schedule,
    names: Sequence[str],
    *,
    state: Mapping[str, Any] | None = None,  # torch's: numbers, tensors, nested
) -> None:
    """Write three files.

    Args:
        folder: Where to.
        optimizer: Its state must be tensors and what JSON can hold.
        scheduler: Its state must be what JSON can hold.
        names: The parameters' names, in the order of the optimizer's groups.
        state: The optimizer's whole state, if it has only a part of it.

    Raises:
        TypeError: If a state is something else.
    """
    state = optimizer.state_dict() if state is None else state
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}  # numbers of several types
    for index, values in state["state"].items():
        for key, value in values.items():
            kind = tensors if isinstance(value, Tensor) else scalars
            kind[f"{index}.{key}"] = value
    if tensors:
        write_safetensors(folder / TENSORS, tensors)
    options = {
        "names": list(names),
        "groups": state["param_groups"],
        "scalars": scalars,
        "tensors": sorted(tensors),
    }
    write_json(folder / OPTIONS, checked_state(spelled(options), "optimizer"))
    write_json(folder / SCHEDULE, checked_state(spelled(scheduler.state_dict()), "scheduler"))


def read_optimizer(folder: Path, optimizer: Optimizer, scheduler: Schedule, names: Sequence[str]) -> None:
    """Load what :func:`write_optimizer` wrote.

    Raises:
        CheckpointError: If the files are damaged, or of an optimizer with other parameters.
    """
    path = folder / OPTIONS
    options = read_spelled(read_json_object(path, max_bytes=_MAX_BYTES, error=CheckpointError))
    if missing := sorted({"names", "groups", "scalars", "tensors"} - set(options)):
        raise CheckpointError("is missing", path=path, field=missing[0])
    if options["names"] != list(names):
        others = sorted(set(options["names"]) ^ set(names))
        raise CheckpointError(
            f"the optimizer has other parameters than the checkpoint's, or in another order: {others[:10]}", path=path
        )
    _check_groups(options["groups"], optimizer, path)
    tensors = read_safetensors(folder / TENSORS) if (folder / TENSORS).exists() else {}
    if others := sorted(set(tensors) ^ set(options["tensors"])):
        raise CheckpointError(f"has other tensors than {OPTIONS} lists: {others[:10]}", path=folder / TENSORS)
    state: dict[int, dict[str, Any]] = {}  # as torch has it
    for name, value in {**tensors, **options["scalars"]}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    schedule = read_json_object(folder / SCHEDULE, error=CheckpointError)
    if missing := sorted(set(scheduler.state_dict()) - set(schedule)):
        raise CheckpointError("is missing; is it another schedule?", path=folder / SCHEDULE, field=missing[0])
    optimizer.load_state_dict(shared_out_state({"state": state, "param_groups": options["groups"]}, optimizer))
    scheduler.load_state_dict(read_spelled(schedule))


def _check_groups(saved: list[dict[str, Any]], optimizer: Optimizer, path: Path) -> None:  # options of several types
    """Refuse groups of other sizes, or that lack an option: torch would go on with the default."""
    groups = optimizer.state_dict()["param_groups"]
    sizes = [[len(group.get("params", ())) for group in each] for each in (saved, groups)]
    if sizes[0] != sizes[1]:
        raise CheckpointError(f"groups have {sizes[0]} parameters, now {sizes[1]}", path=path, field="groups")
    for old, new in zip(saved, groups, strict=True):
        if missing := sorted(set(new) - set(old)):
            raise CheckpointError(f"a group has no {missing[0]}", path=path, field="groups")


def checked_state(value: dict[str, Any], what: str) -> dict[str, Any]:  # a state has values of many types
    """Return a state as it is; refuse what JSON cannot hold exactly.

    Raises:
        TypeError: If there is such a value; names its key.
    """
    for key, each in value.items():
        try:
            json.dumps(each, allow_nan=False)
        except (TypeError, ValueError) as reason:
            raise TypeError(f"the {what}'s state cannot be saved: {key!r} is {each!r}") from reason
    return value
