"""What to change when texts have too few active terms or too many; knows what weighs a loss's regularizers."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from sparse_encoder.losses import SpladeLoss
from sparse_encoder.training.events.active_terms import DOCUMENTS, ONE_OF, QUERIES

_REVIVE = "add AntiZeroLoss, and look for texts that are empty or of unknown words only"


class Advice(NamedTuple):
    """Sentences for the end of a message."""

    too_few: str
    """Where texts collapsed to zero."""
    too_many: str
    """Where they are dense."""
    stronger: str
    """Beginning of a sentence, where a stronger penalty would help."""
    dead: str
    """Where some have no term, while others have."""


def advice_for(texts: str, targets: dict[str, float]) -> Advice:
    """Return what to do about the active terms of some texts.

    Args:
        texts: ``queries``, ``documents`` or ``texts``.
        targets: As of :func:`targets_of`.
    """
    kinds = [texts] if texts in ONE_OF else list(ONE_OF)
    given = [f"target_{ONE_OF[kind]}_dims, which is {targets[kind]:g}" for kind in kinds if kind in targets]
    if given:
        target = " and ".join(given)
        return Advice(
            f"The target is too low for these texts, or the learning rate is too high: raise {target}, or lower "
            "learning_rate",
            f"Lower {target}, or train longer, as a weight takes its time to reach a target",
            f"Lower {target}",
            f"Raise {target}, or {_REVIVE}",
        )
    weight = f"{ONE_OF[texts]}_regularizer_weight" if texts in ONE_OF else "the regularizers' weights"
    return Advice(
        f"The regularizer is too strong or rises too early, or the learning rate is too high: lower {weight}, raise "
        "the warmup_ratio of its schedule, or lower learning_rate",
        f"Raise {weight}, or train longer after its warm-up",
        f"Raise {weight}",
        f"Lower {weight}, or {_REVIVE}",
    )


def targets_of(objective: nn.Module | None) -> dict[str, float]:
    """Return the active terms that queries and documents are to have, where the losses of a run have a target.

    Args:
        objective: All losses; of several with a target for the same texts, the first one's counts.
    """
    found: dict[str, float] = {}
    for loss in () if objective is None else objective.modules():
        if isinstance(loss, SpladeLoss):
            for kind, target in ((QUERIES, loss.query_target), (DOCUMENTS, loss.document_target)):
                if target is not None:
                    found.setdefault(kind, target.target_dims)
    return found
