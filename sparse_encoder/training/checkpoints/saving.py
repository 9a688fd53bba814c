"""The files of a run: what a trainer's parts write into a checkpoint and take out of it."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.checkpoint import CheckpointError, read_tensors
from sparse_encoder.checkpoint.writing import system_errors
from sparse_encoder.model_card import TRAINED_TAG
from sparse_encoder.modules.pipeline import load_modules
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.checkpoints.folders import (
    checkpoint_path,
    keep_checkpoint,
    list_checkpoints,
    new_checkpoint,
    remove_replaced,
    rotate_checkpoints,
)
from sparse_encoder.training.checkpoints.manifest import check_manifest
from sparse_encoder.training.checkpoints.opening import first_only
from sparse_encoder.training.checkpoints.optimizer_state import (
    OPTIONS,
    SCHEDULE,
    TENSORS,
    read_optimizer,
    write_optimizer,
)
from sparse_encoder.training.checkpoints.snapshot import (
    ARGUMENTS,
    LOSS,
    RUN,
    SCALER,
    STATE,
    Progress,
    Stateful,
    check_loss_can_be_saved,
    own_tensors,
    read_loss,
    read_run,
    read_scaler,
    read_state,
    write_loss,
    write_run,
    write_scaler,
    write_state,
)
from sparse_encoder.training.checkpoints.weights import with_other_names
from sparse_encoder.training.sharding import load_whole, whole, whole_state
from sparse_encoder.training.state import TrainerState

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase

logger = logging.getLogger(__name__)

_ROOM = 1.2  # times what is to be written must be free
_READ = (ARGUMENTS, LOSS, OPTIONS, RUN, SCALER, SCHEDULE, STATE, TENSORS)
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class RunFiles:
    """Save and resume the run of a trainer whose optimizer and schedule exist.

    Args:
        trainer: Whose run it is.
        identity: Settings that must be the same when the run is resumed.
        scaler: Of the losses, for float16, if there is one.

    Raises:
        TypeError: If checkpoints are to be saved, and the loss has a state that they cannot hold.
    """

    def __init__(self, trainer: TrainerBase, identity: Mapping[str, Any], scaler: Stateful | None = None) -> None:
        self.trainer = trainer
        self.identity = identity
        self.scaler = scaler
        self.output_dir = Path(str(trainer.args.output_dir))
        assert trainer.optimizer is not None and trainer.lr_scheduler is not None
        self.optimizer, self.scheduler = trainer.optimizer, trainer.lr_scheduler
        names = {id(parameter): name for name, parameter in trainer.objective.named_parameters()}
        order = [each for group in self.optimizer.param_groups for each in group["params"]]
        self.names = [names.get(id(parameter), f"#{index}") for index, parameter in enumerate(order)]
        self._written_bytes = 0  # the size of this run's last checkpoint
        if trainer.args.save_strategy != "no" and not trainer.args.save_only_model:
            check_loss_can_be_saved(trainer.objective, trainer.model)

    def save(self, progress: Progress) -> bool:
        """Write a checkpoint of the last update, and remove those that are too many.

        All processes must call this.

        Returns:
            Whether it is written; with ``on_save_error="warn"`` it may not be, and the checkpoints of before are.

        Raises:
            CheckpointError: If it cannot be written, and ``on_save_error`` is ``"stop"``. What was there before is
                as it was.
        """
        state = self.trainer.state
        target = checkpoint_path(self.output_dir, state.global_step)
        best_before = state.best_model_checkpoint
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(target)
        try:
            self.save_to(target, progress)
        except CheckpointError as reason:
            state.best_model_checkpoint = best_before
            if self.trainer.args.on_save_error == "stop":
                raise
            if self.trainer.is_world_process_zero():
                logger.warning("the run goes on without this checkpoint: %s", reason)
            return False
        first_only(lambda: self._tidy(target), self.trainer.accelerator)
        return True

    def save_to(self, target: Path, progress: Progress) -> None:
        """Write a checkpoint of the last update into a folder, which it replaces whole; all processes must call this.

        Raises:
            CheckpointError: If it cannot be written; what was there before is as it was.
        """
        first = self.trainer.is_world_process_zero()
        optimizer = {} if self.trainer.args.save_only_model else whole_state(self.optimizer, keep=first)
        with whole(self.trainer.model, keep=first):
            first_only(lambda: self._write(target, progress, optimizer), self.trainer.accelerator)

    def _write(self, target: Path, progress: Progress, optimizer: Mapping[str, Any]) -> None:
        """Write and publish a checkpoint, if there is room for it.

        Args:
            target: The folder.
            progress: Where the run stands.
            optimizer: Its whole state.
        """
        trainer = self.trainer
        try:
            self._check_room(target)
            with new_checkpoint(target) as folder, system_errors(target):  # a model may save itself in its own way
                trainer.save_model(str(folder), _internal_call=True)
                write_state(folder, trainer.state)
                if not trainer.args.save_only_model:
                    write_loss(folder, trainer.objective, trainer.model)
                    write_optimizer(folder, self.optimizer, self.scheduler, self.names, state=optimizer)
                    if self.scaler is not None:
                        write_scaler(folder, self.scaler)
                    write_run(folder, self.identity, progress)
            self._written_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        except (OSError, CheckpointError) as reason:  # the latter from reading back what was written
            cause = reason.__cause__ if isinstance(reason.__cause__, OSError) else reason
            told = getattr(cause, "strerror", None) or cause
            raise CheckpointError(
                f"the checkpoint could not be saved: {told}", path=target, hint=_repair(getattr(cause, "errno", None))
            ) from reason

    def _check_room(self, target: Path) -> None:
        """Refuse to begin what will not fit.

        Raises:
            OSError: If the file system has less room than a checkpoint is expected to need.
        """
        expected = max(self._written_bytes, self._tensor_bytes())
        place = next(folder for folder in target.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(place).free
        if free < _ROOM * expected:
            raise OSError(errno.ENOSPC, f"about {expected} bytes are to be written and {free} are free")

    def _tensor_bytes(self) -> int:
        """Count the bytes of the model, the loss and the optimizer."""
        trainer = self.trainer
        modules = [trainer.model] if trainer.args.save_only_model else [trainer.objective, trainer.model]
        tensors = {id(each): each for module in modules for each in (*module.parameters(), *module.buffers())}
        if not trainer.args.save_only_model:
            states = (value for values in self.optimizer.state.values() for value in values.values())
            tensors |= {id(each): each for each in states if isinstance(each, Tensor)}
        return sum(each.numel() * each.element_size() for each in tensors.values())

    def _tidy(self, newest: Path) -> None:
        """Remove the checkpoints that a new one has made superfluous; a failure is told, for the new one is there."""
        try:
            remove_replaced(self.output_dir)
            self._rotate(newest)
        except (OSError, CheckpointError) as reason:
            logger.warning("older checkpoints in %s could not be removed: %s", self.output_dir, reason)

    def _rotate(self, newest: Path) -> None:
        args, best = self.trainer.args, self.trainer.state.best_model_checkpoint
        if args.save_total_limit is not None:
            rotate_checkpoints(newest, None if best is None else Path(best), args.save_total_limit)

    def keep_best(self) -> None:
        """Leave the best checkpoint alone of a run that is through, if one is to be kept; all processes must call this.

        While it lasts the last one is there beside it, to be resumed from.
        """
        best = self.trainer.state.best_model_checkpoint
        if self.trainer.args.save_total_limit == 1 and best is not None:
            first_only(lambda: self._remove_all_but(Path(best)), self.trainer.accelerator)

    def _remove_all_but(self, best: Path) -> None:
        if best.resolve().parent == self.output_dir.resolve():
            try:
                keep_checkpoint(best)
            except (OSError, CheckpointError) as reason:
                logger.warning("the checkpoints beside %s are kept: %s", best, reason)

    def _rotate_after_kill(self, resumed: Path) -> None:
        """Do what the run before was killed in front of, unless there are checkpoints beyond the resumed one."""
        newest = list_checkpoints(self.output_dir)[-1:]
        if [each.resolve() for each in newest] == [resumed.resolve()]:
            self._rotate(newest[0])

    def resume(self, checkpoint: Path, identity: Mapping[str, Any]) -> Progress:
        """Bring all parts of the trainer to where a checkpoint was written.

        Args:
            checkpoint: The folder.
            identity: Settings that must be the same.

        Raises:
            CheckpointError: If the checkpoint is damaged, incomplete or of another kind of run.
        """
        trainer, now = self.trainer, self.trainer.state
        listed = check_manifest(checkpoint, digests=trainer.is_local_process_zero())
        if others := [name for name in _READ if name not in listed and (checkpoint / name).exists()]:
            raise CheckpointError("was added to the checkpoint later", path=checkpoint / others[0])
        progress = read_run(checkpoint, identity)
        saved = read_state(checkpoint)
        _tell_other_intervals(checkpoint, saved, now, trainer.args)
        load_weights(trainer.model, checkpoint)
        read_loss(checkpoint, trainer.objective, trainer.model)
        read_optimizer(checkpoint, self.optimizer, self.scheduler, self.names)
        read_scaler(checkpoint, self.scaler)
        trainer.state = replace(
            saved,
            best_model_checkpoint=_moved(saved.best_model_checkpoint, checkpoint),
            max_steps=now.max_steps,
            num_train_epochs=now.num_train_epochs,
            logging_steps=now.logging_steps,
            eval_steps=now.eval_steps,
            save_steps=now.save_steps,
            is_local_process_zero=now.is_local_process_zero,
            is_world_process_zero=now.is_world_process_zero,
        )
        first_only(lambda: self._rotate_after_kill(checkpoint), trainer.accelerator)
        return progress

    def load_best(self) -> None:
        """Give the model, and the loss, the weights of the best checkpoint.

        Raises:
            CheckpointError: If that checkpoint is damaged.
        """
        trainer, best = self.trainer, self.trainer.state.best_model_checkpoint
        if best is None:
            logger.warning("no evaluation of this run has a checkpoint: the model keeps its last weights")
            return
        check_manifest(Path(best))
        load_weights(trainer.model, Path(best))
        if (Path(best) / RUN).exists():
            read_loss(Path(best), trainer.objective, trainer.model)
        elif own_tensors(trainer.objective, trainer.model):
            logger.warning("save_only_model=True: the loss keeps its last weights, the model has its best ones")


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the weights of a saved one with the same modules; how the model was constructed does not matter.

    Args:
        model: A sequence of the library's modules, a model of its backbone, or another module, whose tensors are saved
            by their own names; perhaps shared out among processes, which must all call this.
        folder: Where it was saved.

    Raises:
        LoadError: If the folder does not hold such a model.
        RuntimeError: If tensors have other names or shapes.
    """
    bases = _bases_of(model)
    if isinstance(model, PretrainedModel):  # its files have the names of other libraries
        load_whole(model, _state_of(model, type(model).from_pretrained(folder, base_model=bases)))
        return
    if not isinstance(model, nn.Sequential) or not hasattr(model, "save_pretrained"):
        load_whole(model, with_other_names(model, read_tensors(folder)))
        return
    saved = load_modules(folder, model_kwargs={"base_model": bases})
    if len(saved) != len(model):
        raise CheckpointError(f"the model has {len(model)} modules, the saved one {len(saved)}", path=folder)
    names = list(model._modules)  # children() leaves out a module's second place
    tensors = {
        f"{name}.{key}": each
        for name, part in zip(names, saved, strict=True)
        for key, each in _state_of(model.get_submodule(name), part).items()
    }
    load_whole(model, tensors)


def _bases_of(model: nn.Module) -> dict[str, Path]:
    """Return where the bases of a model's adapters are, by name: what is open already may be opened again."""
    parts = [part for part in model.modules() if isinstance(part, PretrainedModel) and part.has_adapters]
    sources = [part.source for part in parts if part.source is not None]
    return {source.name or str(source.folder): source.folder for source in sources}


def _state_of(module: nn.Module, saved: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a saved module by the names that they have in one with adapters."""
    tensors = dict(saved.state_dict())
    for path, part in module.named_modules():
        if isinstance(part, PretrainedModel) and part.has_adapters:
            prefix, other = f"{path}." if path else "", saved.get_submodule(path)
            assert isinstance(other, PretrainedModel)
            tensors = {name: each for name, each in tensors.items() if not name.startswith(prefix)}
            tensors |= {f"{prefix}{name}": each for name, each in part.state_of_saved(other).items()}
    return tensors


def _repair(code: int | None) -> str:
    """Say what to do about an error of the file system."""
    if code in _FULL:
        return "Make room and resume; save_total_limit keeps fewer checkpoints, save_only_model smaller ones"
    if code in _FORBIDDEN:
        return "Give output_dir a folder that this process may write to, and resume from the last checkpoint"
    return "The checkpoints of before are as they were; look after the disk before you resume"


def _tell_other_intervals(checkpoint: Path, saved: TrainerState, now: TrainerState, args: TrainingArguments) -> None:
    """Say which intervals a run has changed; they do not change its weights."""
    for kind in ("logging", "eval", "save"):
        name = f"{kind}_steps"
        before, after = getattr(saved, name), getattr(now, name)
        if before != after and getattr(args, f"{kind}_strategy") == "steps":
            logger.warning("%s was written with %s=%d, and the run goes on with %d", checkpoint, name, before, after)


def mark_as_trained(model: nn.Module) -> None:
    """Tell a model's card that the README it was loaded with does not describe it any more."""
    card = getattr(model, "model_card_data", None)
    if card is not None and TRAINED_TAG not in card.tags:
        card.tags.append(TRAINED_TAG)


def _moved(best: str | None, checkpoint: Path) -> str | None:
    """Return where the best checkpoint is now, perhaps moved together with the resumed one; None if it is gone."""
    if best is None:
        return None
    for place in (checkpoint.parent / Path(best).name, Path(best)):
        if place.is_dir():
            return str(place)
    logger.warning("the best checkpoint so far, %s, is gone; its metric still has to be beaten", best)
    return None
