"""What models return and what labels say: the loss, the logits, smoothing; tensors only, nothing of trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100
"""The label of what does not count."""

TIMINGS = ("_runtime", "_per_second", "_model_preparation_time")
"""Ends of the names of metrics that depend on the clock."""

LossFunction = Callable[..., Tensor]  # of outputs and labels, with num_items_in_batch by name


@dataclass
class EvalPrediction:
    """What ``compute_metrics`` gets; it unpacks into predictions and labels, and what else was asked for."""

    predictions: Any
    """Arrays, nested as the model's outputs are; with ``batch_eval_metrics`` tensors, as all parts are."""
    label_ids: Any
    """Arrays of labels; ``-100`` where there is none."""
    inputs: Any = None
    """Arrays of the model's main input, if ``include_for_metrics`` has ``inputs``."""
    losses: Any = None
    """The loss of each row's batch, if ``include_for_metrics`` has ``loss``."""

    def __iter__(self) -> Any:  # noqa: ANN401  (an iterator over the parts)
        """Yield predictions, labels, and inputs and losses if they are there."""
        yield self.predictions
        yield self.label_ids
        yield from (part for part in (self.inputs, self.losses) if part is not None)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401  (as the parts)
        """Return a part by its place."""
        return tuple(self)[index]


def loss_in(outputs: Any) -> Tensor:  # noqa: ANN401  (a mapping, a tuple or a tensor)
    """Return the loss among a model's outputs.

    Raises:
        ValueError: If there is none; lists what there is.
    """
    if isinstance(outputs, Mapping):
        if outputs.get("loss") is None:
            raise ValueError(f"the model returned no loss, only {sorted(outputs)}; does the batch have labels?")
        loss: Tensor = outputs["loss"]
        return loss
    if hasattr(outputs, "loss"):
        if outputs.loss is None:
            raise ValueError("the model returned no loss (None); does the batch have labels?")
        named: Tensor = outputs.loss
        return named
    first = outputs[0] if isinstance(outputs, tuple | list) else outputs
    if not isinstance(first, Tensor) or first.ndim:
        raise ValueError(
            "the model must return a mapping with 'loss', or a tuple that begins with the loss, a scalar; "
            f"got {type(first).__name__}{tuple(first.shape) if isinstance(first, Tensor) else ''}"
        )
    return first


def logits_in(outputs: Any) -> Tensor:  # noqa: ANN401  (a mapping, a tuple or a tensor)
    """Return the logits among a model's outputs: those of the name, or what comes first."""
    if isinstance(outputs, Mapping):
        logits: Tensor = outputs["logits"]
        return logits
    if hasattr(outputs, "logits"):
        named: Tensor = outputs.logits
        return named
    first: Tensor = outputs[0] if isinstance(outputs, tuple | list) else outputs
    return first


def without_loss(outputs: Any, *, has_loss: bool, ignore: Sequence[str] | None) -> Any:  # noqa: ANN401  (as above)
    """Return a model's outputs but the loss: one alone, several as a tuple.

    Args:
        outputs: A mapping, a tuple, an object with named fields, or a tensor.
        has_loss: Whether a tuple begins with the loss.
        ignore: Names of outputs that are left out as well.
    """
    left_out = {"loss", *(ignore or ())}
    if hasattr(outputs, "_asdict"):
        outputs = outputs._asdict()
    elif not isinstance(outputs, Mapping | tuple | list | Tensor):
        outputs = vars(outputs)
    if isinstance(outputs, Mapping):
        kept = tuple(value for name, value in outputs.items() if name not in left_out and value is not None)
    elif isinstance(outputs, Tensor):
        return outputs
    else:
        kept = tuple(outputs[1:] if has_loss else outputs)
    return kept[0] if len(kept) == 1 else kept


def smoothed_loss(
    outputs: Any,  # noqa: ANN401  (as above)
    labels: Tensor,
    smoothing: float,
    *,
    shift: bool = False,
    num_items: Tensor | int | None = None,
) -> Tensor:
    r"""Return the cross-entropy to a target that gives a part of its mass to all classes.

    .. math:: (1 - \epsilon) \, \overline{-\log p_y} + \epsilon \, \overline{\tfrac{1}{C} \sum_c -\log p_c}

    Means are over the labels that are not -100.

    Source: Szegedy et al., 2016, https://arxiv.org/abs/1512.00567.

    Args:
        outputs: Of a model, with logits, (..., C).
        labels: Classes, (...); -100 where none counts.
        smoothing: ε, at least 0 and below 1.
        shift: Whether the logits of a position are about the next label, as in causal language models.
        num_items: Labels to divide by in the place of those of this batch.

    Returns:
        Scalar tensor; 0 where no label counts.
    """
    logits = logits_in(outputs)
    if shift:
        logits, labels = logits[..., :-1, :], labels[..., 1:]
    costs = -nn.functional.log_softmax(logits.float(), dim=-1)  # (..., C)
    counts = labels != IGNORED
    own = costs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    every = costs.mean(dim=-1)
    total = (((1 - smoothing) * own + smoothing * every) * counts).sum()
    divisor = counts.sum() if num_items is None else num_items
    return total / (divisor.clamp(min=1) if isinstance(divisor, Tensor) else max(divisor, 1))


def count_labels(labels: Sequence[Tensor], *, shift: bool = False) -> Tensor:
    """Count the labels of some batches that count, a scalar tensor; of causal language models without the first."""
    return torch.stack([((each[..., 1:] if shift else each) != IGNORED).sum() for each in labels]).sum()


def is_causal(model: nn.Module) -> bool:
    """Return whether the logits of a position are about the next token, so that labels are shifted by one.

    That is what the name of the model's class, or of one it is derived from, says: it has ``Causal`` in it, as in
    ``LlamaForCausalLM``, or ends with ``LMHeadModel``, as ``GPT2LMHeadModel`` does.
    """
    names = [kind.__name__ for kind in type(model).__mro__]
    return any("causal" in name.lower() or name.endswith("LMHeadModel") for name in names)


def ignored_outputs(model: nn.Module) -> list[str]:
    """Return the outputs that are no predictions: ``config.keys_to_ignore_at_inference``, or the cached keys."""
    config = getattr(model, "config", None)
    return list(getattr(config, "keys_to_ignore_at_inference", None) or ["past_key_values"])


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Let a model whose ``config`` has ``use_cache`` keep no keys and values for a while."""
    settings = getattr(getattr(model, "config", None), "__dict__", {})
    if not settings.get("use_cache"):
        yield
        return
    model.config.use_cache = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        model.config.use_cache = True  # type: ignore[union-attr]
