"""Parameter groups, optimizers and the guarded update; knows losses and models as modules with parameters only."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sparse_encoder.training.arguments import SparseEncoderTrainingArguments
from sparse_encoder.training.optimization.schedules import SCHEDULES, Course
from sparse_encoder.training.steps import steps_of

logger = logging.getLogger(__name__)

_NORMS = (nn.LayerNorm, nn.RMSNorm)
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)")

ParameterGroup = dict[str, Any]  # params, and the options of an optimizer


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained by name, shared ones once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def parameter_groups(
    module: nn.Module, *, weight_decay: float, learning_rates: Mapping[str, float]
) -> list[ParameterGroup]:
    """Group the trained parameters by weight decay and learning rate.

    Biases and the parameters of norms are not decayed. The groups come as: decayed, not decayed, then the same two for
    each pattern; empty ones are left out.

    Args:
        module: What is trained, usually a loss that holds a model.
        weight_decay: Of the decayed groups.
        learning_rates: Learning rates by regular expression; see :func:`searchable_names`.

    Raises:
        ValueError: If a pattern finds no trained parameter.
    """
    parameters = trainable_parameters(module)
    pattern_of = _assign_patterns(module, parameters, learning_rates)
    decayed = decayed_names(module)
    groups: list[ParameterGroup] = []
    for pattern in (None, *learning_rates):
        for decay in (True, False):
            names = [name for name in parameters if pattern_of[name] == pattern and (name in decayed) == decay]
            if not names:
                continue
            group: ParameterGroup = {
                "params": [parameters[name] for name in names],
                "weight_decay": weight_decay if decay else 0.0,
            }
            if pattern is not None:
                group["lr"] = learning_rates[pattern]
            groups.append(group)
    return groups


def decayed_names(module: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay applies to."""
    in_norms = {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, _NORMS)
        for name, _ in part.named_parameters(recurse=False)
    }
    return {
        name for name, _ in module.named_parameters() if name not in in_norms and not _NOT_DECAYED.search(name.lower())
    }


def searchable_names(module: nn.Module) -> dict[str, list[str]]:
    """Return what patterns are searched in, for every parameter: its name, and its name within each module around it.

    The latter begin with the module's class: ``SparseStaticEmbedding.weight``.
    """
    names = {name: [name] for name, _ in module.named_parameters()}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, texts in names.items():
            if name.startswith(prefix):
                texts.append(f"{type(part).__name__}.{name.removeprefix(prefix)}")
    return names


def _assign_patterns(
    module: nn.Module, parameters: Iterable[str], learning_rates: Mapping[str, float]
) -> dict[str, str | None]:
    """Return the first pattern that is found in each parameter's names."""
    names = searchable_names(module) if learning_rates else {}
    found = {
        name: [pattern for pattern in learning_rates if any(re.search(pattern, text) for text in names[name])]
        for name in parameters
    }
    for pattern in learning_rates:
        if not any(pattern in patterns for patterns in found.values()):
            raise ValueError(
                f"the pattern {pattern!r} of learning_rate_mapping finds no trained parameter; "
                f"there are {list(found)[:10]} and others"
            )
    twice = [name for name, patterns in found.items() if len(patterns) > 1]
    if twice:
        logger.warning("several patterns of learning_rate_mapping find %s; the first one counts", twice[:10])
    return {name: patterns[0] if patterns else None for name, patterns in found.items()}


def build_optimizer(groups: list[ParameterGroup], args: SparseEncoderTrainingArguments) -> Optimizer:
    """Return the optimizer that the arguments name."""
    if args.optim == "sgd":
        return SGD(groups, lr=args.learning_rate)
    return AdamW(
        groups,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=args.optim == "adamw_torch_fused",
    )


def build_scheduler(optimizer: Optimizer, args: SparseEncoderTrainingArguments, max_steps: int) -> LambdaLR:
    """Return the schedule that the arguments name, over a run of ``max_steps`` updates.

    Raises:
        ValueError: If the warm-up is longer than the run, or does not go with the schedule.
    """
    warmup_steps = steps_of(args.warmup_steps, max_steps)
    if warmup_steps > max_steps:
        raise ValueError(f"warmup_steps must be at most the {max_steps} updates of the run, got {warmup_steps}")
    course = Course(warmup_steps, max_steps, base_rate=optimizer.defaults["lr"])
    return LambdaLR(optimizer, SCHEDULES[args.lr_scheduler_type](course, **args.mapping("lr_scheduler_kwargs")))


class GuardedUpdate:
    """Clip the gradient and let the optimizer move the weights, unless the gradient is not finite.

    Optimizers that can leave out an update on the device (torch's fused ones) never make the process wait for it; the
    others cost one transfer of a number per update. What is left out is counted on the device.

    Args:
        optimizer: Moves the weights.
        max_grad_norm: Longer gradients are scaled down to it; 0 leaves them as they are.
        skipped_in_a_row: Updates that were left out right before, in an earlier part of the run.
    """

    def __init__(self, optimizer: Optimizer, max_grad_norm: float, skipped_in_a_row: int = 0) -> None:
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self._skipped: Tensor | None = None  # in a row, and since they were last taken: (2,)
        self._skipped_before = skipped_in_a_row

    def clip(self) -> Tensor:
        """Scale the gradient down to the largest norm; returns its norm before, a scalar tensor."""
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        norm = torch.nn.utils.get_total_norm(each.grad for each in parameters if each.grad is not None)
        if self.max_grad_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        return norm

    def step(self, norm: Tensor) -> None:
        """Update the weights if the norm of their gradient is finite."""
        not_finite = (~torch.isfinite(norm)).float()
        if self._skipped is None:
            self._skipped = torch.tensor([float(self._skipped_before), 0.0], device=norm.device)
        in_a_row, taken = self._skipped
        self._skipped = torch.stack([(in_a_row + 1) * not_finite, taken + not_finite])
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):  # torch's own name for: skips on the device
            self.optimizer.found_inf = not_finite  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.found_inf  # type: ignore[attr-defined]
        else:
            if not_finite:
                self.optimizer.zero_grad(set_to_none=True)  # parameters without a gradient are not moved
            self.optimizer.step()

    def skipped(self) -> tuple[int, int]:
        """Return how many updates were left out in a row up to the last one, and in all, in one transfer."""
        if self._skipped is None:
            return self._skipped_before, 0
        in_a_row, total = self._skipped.tolist()
        return int(in_a_row), int(total)


def learning_rates_of(optimizer: Optimizer) -> list[float]:
    """Return the learning rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def non_embedding_parameters(module: nn.Module) -> int:
    """Count the parameters that take part in matrix products: all but those of embeddings."""
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    return sum(each.numel() for each in module.parameters() if id(each) not in embeddings)


def find_group(optimizer: Optimizer, parameter: nn.Parameter) -> ParameterGroup:
    """Return the group that holds this very parameter.

    Raises:
        ValueError: If none does.
    """
    for group in optimizer.param_groups:
        if any(each is parameter for each in group["params"]):
            return group
    raise ValueError("the parameter is in no group of the optimizer; is it frozen, or of another model?")
