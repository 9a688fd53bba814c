"""What a checkpoint holds beside the model: everything a run needs to go on as if it had never stopped.

Random states are not in it: what is drawn is a function of the seed and the number of updates (randomness.py), and the
order of rows of the seed and the epoch, so their state is the number of updates.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import sparse_encoder
from sparse_encoder.checkpoint import CheckpointError, read_json_object, read_safetensors, write_json, write_safetensors
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.checkpoints.optimizer_state import OPTIONS, SCHEDULE, checked_state
from sparse_encoder.training.meters import Tables
from sparse_encoder.training.state import TrainerState, read_spelled, spelled

logger = logging.getLogger(__name__)

STATE, ARGUMENTS, RUN, LOSS = "trainer_state.json", "training_args.json", "run.json", "loss.safetensors"
SCALER = "scaler.json"
FORMAT = 1
_MAX_BYTES = 1_000_000_000
_OPTIMIZATION = (
    "optim",
    "optim_args",
    "learning_rate",
    "learning_rate_mapping",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
    "average_tokens_across_devices",
    "bf16",
    "fp16",
)
"""Settings that decide how an update moves the weights; other values would have no effect, or bend the run."""


@dataclass
class Progress:
    """Where a run stands between two log rows."""

    epoch: int = 0
    batches_done: int = 0
    """Batches of the epoch that are in the weights."""
    epoch_stopped: bool = False
    """Whether a callback has ended the epoch at this update."""
    epoch_reported: bool = False
    """Whether what belongs to the end of a pass over the data is done, here perhaps before its end."""
    epoch_ended: bool = False
    """Whether what belongs to the end of the epoch (evaluation, saving) is done too."""
    last_logged_step: int = 0
    loss_tables: list[Tables] = field(default_factory=list)
    """Of the loss and its terms since the last log row."""
    grad_norm: float = 0.0
    learning_rate: float = 0.0
    """Of the last update."""
    skipped_in_a_row: int = 0


def data_identity(
    args: TrainingArguments, num_processes: int, choices: Mapping[str, Any]
) -> dict[str, Any]:  # settings of several types
    """Return what decides which rows are in which batch, with values of several types.

    Args:
        args: The settings.
        num_processes: That share the batches.
        choices: What the trainer adds: a fingerprint of the data, samplers, prompts; plain values.
    """
    return {
        "seed": args.seed,
        "data_seed": args.data_seed,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "dataloader_drop_last": args.dataloader_drop_last,
        "num_processes": num_processes,
        "code_version": sparse_encoder.__version__,
        **choices,
    }


def optimization_identity(args: TrainingArguments) -> dict[str, Any]:
    """Return the settings that a resumed run must have as its checkpoint has them, in the form that JSON gives back."""
    values = {name: getattr(args, name) for name in _OPTIMIZATION}
    identity: dict[str, Any] = json.loads(json.dumps(values, default=str))  # settings of several types
    return identity


class Stateful(Protocol):
    """A scaler of the losses, or the guard of the updates that has one."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state; empty if there is none."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        ...


def write_run(folder: Path, identity: Mapping[str, Any], progress: Progress) -> None:
    """Write what kind of run this is and where it stands."""
    versions = {"sparse_encoder": sparse_encoder.__version__, "torch": str(torch.__version__)}
    values = {"format": FORMAT, "versions": versions, "identity": dict(identity), "progress": spelled(asdict(progress))}
    write_json(folder / RUN, values)


def read_run(folder: Path, identity: Mapping[str, Any]) -> Progress:
    """Read where a run stands.

    Args:
        folder: A checkpoint.
        identity: What must be the same in this run; all of it, or a part.

    Raises:
        CheckpointError: If the checkpoint has no training state, or is of another kind of run; names the setting.
    """
    needed = (RUN, STATE, OPTIONS, SCHEDULE, ARGUMENTS)
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise CheckpointError(
            f"cannot be resumed from: there is no {missing[0]}", path=folder, hint="Was it saved with save_only_model?"
        )
    path = folder / RUN
    values = read_json_object(path, max_bytes=_MAX_BYTES, error=CheckpointError)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"format must be {FORMAT}, got {values.get('format')!r}", path=path, field="format")
    for name in ("versions", "identity", "progress"):
        if not isinstance(values.get(name), dict):
            raise CheckpointError("must be there, and an object", path=path, field=name)
    if missing := sorted({"sparse_encoder", "torch"} - set(values["versions"])):
        raise CheckpointError(f"must name {missing[0]}", path=path, field="versions")
    _compare(folder, values["identity"], identity)
    known = {each.name for each in fields(Progress)}
    if set(values["progress"]) != known:
        others = sorted(known ^ set(values["progress"]))
        raise CheckpointError(f"must have the keys {sorted(known)}; see {others}", path=path, field="progress")
    if values["versions"]["torch"] != str(torch.__version__):
        logger.warning(
            "%s was written with torch %s, and this is %s: the last bits may differ from those of one run",
            folder,
            values["versions"]["torch"],
            torch.__version__,
        )
    return Progress(**read_spelled(values["progress"]))


def _compare(folder: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse another kind of run."""
    for name, value in identity.items():
        if name not in saved:
            raise CheckpointError("the checkpoint does not say it", path=folder / RUN, field=name)
        if saved[name] != value:
            raise CheckpointError(
                f"{name} was {saved[name]!r} and is {value!r} now, so the run would not go on as it was",
                path=folder,
                field=name,
                hint="Give the old value, or start a new run from the model in the checkpoint; with "
                "ignore_data_skip=True the data, their batches, the seed and the version of this library may differ, "
                "and the epoch begins anew",
            )


def write_scaler(folder: Path, scaler: Stateful) -> None:
    """Write the state of the scaler of the losses; no file if there is none."""
    if state := scaler.state_dict():
        write_json(folder / SCALER, checked_state(state, "scaler"))


def read_scaler(folder: Path, scaler: Stateful | None) -> None:
    """Read what :func:`write_scaler` wrote.

    Raises:
        CheckpointError: If it is missing or incomplete, or this run has no scaler.
    """
    path = folder / SCALER
    saved = read_json_object(path, error=CheckpointError) if path.exists() else {}
    known = {} if scaler is None else scaler.state_dict()
    if others := sorted(set(saved) ^ set(known)):
        raise CheckpointError(
            "is there in the checkpoint only" if others[0] in saved else "is not in the checkpoint",
            path=path,
            field=others[0],
            hint="The state of a loss scaler goes with fp16=True, and only with it",
        )
    if scaler is not None and saved:
        scaler.load_state_dict(saved)


def write_state(folder: Path, state: TrainerState) -> None:
    """Write the state and the log."""
    state.save_to_json(folder / STATE)


def read_state(folder: Path) -> TrainerState:
    """Read the state and the log.

    Raises:
        CheckpointError: If the file is damaged.
    """
    return TrainerState.load_from_json(folder / STATE)


def check_loss_can_be_saved(loss: nn.Module, model: nn.Module) -> None:
    """Refuse a loss with a state that is no tensor.

    Raises:
        TypeError: If a module of the loss, beside those of the model, has ``get_extra_state``.
    """
    of_model = {id(part) for part in model.modules()}
    for part in loss.modules():
        if id(part) not in of_model and type(part).get_extra_state is not nn.Module.get_extra_state:
            raise TypeError(
                f"{type(part).__name__} has get_extra_state, which a checkpoint cannot hold; keep its state in "
                "buffers, or train with save_strategy='no'"
            )


def own_tensors(loss: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers, also those left out of ``state_dict``, that a loss has beside its model's.

    Raises:
        TypeError: As :func:`check_loss_can_be_saved`.
    """
    check_loss_can_be_saved(loss, model)
    of_model = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    tensors = {name: each for name, each in loss.state_dict(keep_vars=True).items() if isinstance(each, Tensor)}
    tensors |= {name: each for name, each in loss.named_buffers() if name not in tensors}
    return {name: each for name, each in tensors.items() if id(each) not in of_model}


def write_loss(folder: Path, loss: nn.Module, model: nn.Module) -> None:
    """Write what a loss has beside its model; no file if that is nothing."""
    if tensors := own_tensors(loss, model):
        write_safetensors(folder / LOSS, tensors)


def read_loss(folder: Path, loss: nn.Module, model: nn.Module) -> None:
    """Read what a loss has beside its model.

    Raises:
        CheckpointError: If the checkpoint's loss has other tensors.
    """
    own = own_tensors(loss, model)
    saved = read_safetensors(folder / LOSS) if (folder / LOSS).exists() else {}
    if others := sorted(set(own) ^ set(saved)):
        raise CheckpointError(f"the loss has other tensors than the checkpoint's: {others[:10]}", path=folder / LOSS)
    others = sorted(name for name, tensor in own.items() if saved[name].shape != tensor.shape)
    if wrong := [name for name in others if name in loss.state_dict()]:
        raise CheckpointError("the loss has another shape than the checkpoint's", path=folder / LOSS, field=wrong[0])
    for name in others:  # a buffer that state_dict leaves out may be as long as the last batch
        owner, _, leaf = name.rpartition(".")
        setattr(loss.get_submodule(owner), leaf, saved[name].to(own.pop(name).device))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
