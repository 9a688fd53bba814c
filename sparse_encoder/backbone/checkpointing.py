"""Activations that are computed a second time in the backward pass instead of being kept. Knows no model.

Source: Chen et al., 2016, https://arxiv.org/abs/1604.06174.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from sparse_encoder.backbone.attention import AttentionContext

_OPTIONS = ("determinism_check", "preserve_rng_state", "use_reentrant")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpointing:
    """Say which layers are computed again, and how.

    Raises:
        ValueError: If a value is out of range.
    """

    every_n_layers: int = 1
    """Only the first of every so many steps through a layer; the others keep their activations."""
    offload: bool = False
    """Keep what those layers start from in the memory of the host, not of the accelerator."""
    preserve_rng_state: bool = True
    """Draw the same dropout the second time."""
    determinism_check: str = "default"
    """``"default"`` compares shapes and types of the second time with the first; ``"none"`` does not."""

    def __post_init__(self) -> None:
        """Check every value."""
        number = self.every_n_layers
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"every_n_layers must be an integer from 1 on, got {number!r}")
        for name in ("offload", "preserve_rng_state"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r:.80}")
        if self.determinism_check not in ("default", "none"):
            raise ValueError(f"determinism_check must be 'default' or 'none', got {self.determinism_check!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, *, every_n_layers: int = 1, offload: bool = False) -> Checkpointing:
        """Read the options that ``torch.utils.checkpoint`` has.

        Args:
            options: ``preserve_rng_state``, ``determinism_check``, and ``use_reentrant``, which must be false: the
                other form gives layers behind frozen embeddings no gradients, and takes none to a head mask.
            every_n_layers: As the field.
            offload: As the field.

        Raises:
            ValueError: If an option is unknown or has another value.
        """
        given = dict(options or {})
        if unknown := sorted(set(given) - set(_OPTIONS)):
            raise ValueError(f"unknown gradient_checkpointing_kwargs {unknown}; choose from {list(_OPTIONS)}")
        if given.pop("use_reentrant", False) is not False:
            raise ValueError("use_reentrant must be False in gradient_checkpointing_kwargs: only that form is offered")
        return cls(every_n_layers=every_n_layers, offload=offload, **given)

    def run(self, step: int, layer: nn.Module, hidden: Tensor, context: AttentionContext) -> Tensor:
        """Pass hidden states through a layer.

        Args:
            step: Number of the step.
            layer: Called as a module, so that its hooks run.
            hidden: Hidden states, (B, T, D).
            context: What the layer needs besides.

        Returns:
            Hidden states, (B, T, D).
        """
        if step % self.every_n_layers:
            kept: Tensor = layer(hidden, context)
            return kept
        elsewhere = save_on_cpu(pin_memory=hidden.is_cuda) if self.offload else nullcontext()
        with elsewhere:
            again: Tensor = checkpoint(
                layer,
                hidden,
                context,
                use_reentrant=False,
                preserve_rng_state=self.preserve_rng_state,
                determinism_check=self.determinism_check,
            )
        return again
