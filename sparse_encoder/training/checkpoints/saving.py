"""The files of a run: what a trainer's parts write into a checkpoint and take out of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sparse_encoder.checkpoint import CheckpointError, read_tensors
from sparse_encoder.model_card import TRAINED_TAG
from sparse_encoder.modules.pipeline import load_modules
from sparse_encoder.training.checkpoints.folders import checkpoint_path, new_checkpoint, rotate_checkpoints
from sparse_encoder.training.checkpoints.manifest import check_manifest
from sparse_encoder.training.checkpoints.optimizer_state import read_optimizer, write_optimizer
from sparse_encoder.training.checkpoints.snapshot import (
    Progress,
    read_loss,
    read_run,
    read_state,
    write_loss,
    write_run,
    write_state,
)

if TYPE_CHECKING:
    from sparse_encoder.training.trainer import SparseEncoderTrainer

logger = logging.getLogger(__name__)


class RunFiles:
    """Save and resume the run of a trainer whose optimizer and schedule exist.

    Args:
        trainer: Whose run it is.
        identity: Settings that must be the same when the run is resumed.
    """

    def __init__(self, trainer: SparseEncoderTrainer, identity: Mapping[str, Any]) -> None:
        self.trainer = trainer
        self.identity = identity
        self.output_dir = Path(str(trainer.args.output_dir))
        assert trainer.optimizer is not None and trainer.lr_scheduler is not None
        self.optimizer, self.scheduler = trainer.optimizer, trainer.lr_scheduler
        names = {id(parameter): name for name, parameter in trainer.loss.named_parameters()}
        order = [each for group in self.optimizer.param_groups for each in group["params"]]
        self.names = [names.get(id(parameter), f"#{index}") for index, parameter in enumerate(order)]

    def save(self, progress: Progress) -> None:
        """Write a checkpoint of the last update, and remove those that are too many."""
        trainer, state, args = self.trainer, self.trainer.state, self.trainer.args
        target = checkpoint_path(self.output_dir, state.global_step)
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(target)
        if trainer.is_world_process_zero():
            with new_checkpoint(target) as folder:
                trainer.save_model(str(folder))
                write_state(folder, state)
                if not args.save_only_model:
                    write_loss(folder, trainer.loss, trainer.model)
                    write_optimizer(folder, self.optimizer, self.scheduler, self.names)
                    write_run(folder, self.identity, progress)
            if args.save_total_limit is not None:
                best = None if state.best_model_checkpoint is None else Path(state.best_model_checkpoint)
                rotate_checkpoints(target, best, args.save_total_limit)
        trainer.accelerator.wait_for_everyone()

    def resume(self, checkpoint: Path, identity: Mapping[str, Any]) -> Progress:
        """Bring all parts of the trainer to where a checkpoint was written.

        Args:
            checkpoint: The folder.
            identity: Settings that must be the same.

        Raises:
            CheckpointError: If the checkpoint is damaged, incomplete or of another kind of run.
        """
        check_manifest(checkpoint)
        progress = read_run(checkpoint, identity)
        saved = read_state(checkpoint)
        trainer, now = self.trainer, self.trainer.state
        load_weights(trainer.model, checkpoint)
        read_loss(checkpoint, trainer.loss, trainer.model)
        read_optimizer(checkpoint, self.optimizer, self.scheduler, self.names)
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
        return progress

    def load_best(self) -> None:
        """Give the model the weights of the best checkpoint.

        Raises:
            CheckpointError: If that checkpoint is damaged.
        """
        best = self.trainer.state.best_model_checkpoint
        if best is None:
            logger.warning("no evaluation of this run has a checkpoint: the model keeps its last weights")
            return
        check_manifest(Path(best))
        load_weights(self.trainer.model, Path(best))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the weights of a saved one with the same modules; how the model was constructed does not matter.

    Args:
        model: A sequence of the library's modules, or another module, whose tensors are saved by their own names.
        folder: Where it was saved.

    Raises:
        LoadError: If the folder does not hold such a model.
        RuntimeError: If tensors have other names or shapes.
    """
    if not isinstance(model, nn.Sequential):
        model.load_state_dict(read_tensors(folder))
        return
    saved = load_modules(folder)
    if len(saved) != len(model):
        raise CheckpointError(f"the model has {len(model)} modules, the saved one {len(saved)}", path=folder)
    names = list(model._modules)  # children() leaves out a module's second place
    tensors = {
        f"{name}.{key}": each
        for name, part in zip(names, saved, strict=True)
        for key, each in part.state_dict().items()
    }
    model.load_state_dict(tensors)


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
