"""Activations computed twice, and gradients that reach layers behind frozen embeddings: switched on and off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparse_encoder.backbone.checkpointing import Checkpointing
from sparse_encoder.backbone.vocabulary_editing import EditableModel

Options = Mapping[str, Any]  # Any: a flag or a name, as torch.utils.checkpoint has them


class Recomputing(EditableModel):
    """Switch the recomputation of activations; one base of a pretrained model.

    It has two names, ``gradient_checkpointing_...`` and ``activation_checkpointing_...``, and works in training only.
    """

    supports_gradient_checkpointing: ClassVar[bool] = True
    _input_hook: tuple[nn.Module, RemovableHandle] | None = None

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Options | None = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """Recompute layers in the backward pass: less memory, one more forward pass.

        Args:
            activation_checkpointing_kwargs: ``preserve_rng_state`` (true: the same dropout the second time),
                ``determinism_check``, and ``use_reentrant``, which must be false: only that form is offered.
            every_n_layers: Recompute only the first of every so many; the others keep their activations.
            offload: Keep what the recomputed layers start from in the memory of the host.

        Raises:
            ValueError: If an option is unknown or out of range, or the model does not support it.
        """
        if not self.supports_gradient_checkpointing:
            raise ValueError(f"{type(self).__name__} does not support gradient checkpointing")
        self.backbone.checkpointing = Checkpointing.of(
            activation_checkpointing_kwargs, every_n_layers=every_n_layers, offload=offload
        )

    def activation_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.backbone.checkpointing = None

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether layers are recomputed in training."""
        return self.backbone.gradient_checkpointing

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Options | None = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """Do what :meth:`activation_checkpointing_enable` does."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """Do what :meth:`activation_checkpointing_disable` does."""
        self.activation_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """What :attr:`is_activation_checkpointing` says."""
        return self.is_activation_checkpointing

    def enable_input_require_grads(self) -> None:
        """Let the output of the word embeddings require a gradient, also when they are frozen.

        What is trained behind them then gets its gradient whatever recomputes the layers in between. Calling it twice
        is the same as once.
        """
        words = self.backbone.embeddings.word
        if self._input_hook is not None and self._input_hook[0] is words:
            return
        self.disable_input_require_grads()
        self._input_hook = (words, words.register_forward_hook(_require_gradient))

    def disable_input_require_grads(self) -> None:
        """Undo :meth:`enable_input_require_grads`; nothing to do if it was not called."""
        if self._input_hook is not None:
            self._input_hook[1].remove()
            self._input_hook = None


def _require_gradient(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if torch.is_grad_enabled():
        output.requires_grad_(True)
