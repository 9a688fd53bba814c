"""The bias of the head that scores the vocabulary, by the methods that older scripts call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_encoder.backbone.heads import VocabularyHead
from sparse_encoder.backbone.vocabulary_editing import EditableModel


class HeadBias(EditableModel):
    """Give and take the head's bias; one base of a pretrained model."""

    def get_lm_head(self) -> VocabularyHead | None:
        """Return the head that scores every token of the vocabulary; None for a model without."""
        return self.vocabulary_head()

    def get_bias(self) -> dict[str, Tensor] | None:
        """Return the head's bias, (V,), by its name in the model; None for a model without."""
        head = self.vocabulary_head()
        if head is None or head.bias is None:
            return None
        name = next(name for name, each in self.named_parameters(remove_duplicate=False) if each is head.bias)
        return {name: head.bias}

    @torch.no_grad()
    def set_bias(self, value: Mapping[str, Tensor]) -> None:
        """Give the head's bias other values.

        Args:
            value: The tensor, (V,), by the name that :meth:`get_bias` has for it.

        Raises:
            ValueError: If names or shapes are others; another size also needs other embeddings.
        """
        own = self.get_bias() or {}
        if value.keys() != own.keys():
            raise ValueError(f"set_bias takes {sorted(own)}, got {sorted(value)}")
        for name, bias in own.items():
            if value[name].shape != bias.shape:
                raise ValueError(
                    f"{name} must be of shape {tuple(bias.shape)}, got {tuple(value[name].shape)}; "
                    "resize_token_embeddings changes the number of tokens"
                )
            bias.copy_(value[name])
