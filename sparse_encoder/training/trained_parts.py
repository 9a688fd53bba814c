"""Whether a run has something to train that its checkpoints can hold; asked before anything is opened or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparse_encoder.backbone import PretrainedModel

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase


def check_trained_parts(trainer: TrainerBase) -> None:
    """Refuse a run that would fail at its first update, or at its first checkpoint.

    Raises:
        ValueError: If no parameter of the model and the loss is trained, weights have taken adapters in, or checkpoints
            are to be saved of a model of which several adapters are active.
    """
    adapted = [each for each in trainer.objective.modules() if isinstance(each, PretrainedModel) and each.has_adapters]
    for part in adapted:
        part.check_trainable(is_saved=trainer.args.save_strategy != "no")
    if not any(each.requires_grad for each in trainer.objective.parameters()):
        raise ValueError(f"no parameter is trained: {_way_out(adapted)}")


def _way_out(adapted: list[PretrainedModel]) -> str:
    """Say what lets a gradient reach a model."""
    if not adapted:
        return "all are frozen; call requires_grad_(True) on what is to be trained"
    if not all(each.are_adapters_enabled for each in adapted):
        return "the adapters are disabled; call model.enable_adapters()"
    names = adapted[0].active_adapters()
    return f"call model.set_adapter({names[0]!r}), or load_adapter(..., is_trainable=True)"
