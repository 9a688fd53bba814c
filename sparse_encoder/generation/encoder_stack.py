"""The encoder of a model with two stacks, taken out and called as in transformers. Knows no layers.

Axes: B texts, S tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.devices import device_of
from sparse_encoder.backbone.transformer import Transformer
from sparse_encoder.generation.outputs import EncoderOutput


class EncoderStack(nn.Module):
    """Run the encoder of a model by itself; its parameters and its mode are the model's.

    Unlike the encoder of a transformers model it is no part of its model, which runs :attr:`backbone` itself: forward
    hooks on this object see only calls of this object, and those on ``backbone`` see both.

    Args:
        backbone: The encoder.
        encode: The method of its model that runs it; so a copy of this object holds a copy of the whole model.
    """

    def __init__(self, backbone: Transformer, encode: Callable[..., EncoderOutput]) -> None:
        super().__init__()
        self.training = backbone.training
        self.backbone = backbone
        self._encode = encode

    @property
    def device(self) -> torch.device:
        """Of the first parameter."""
        return device_of(self.backbone)

    @property
    def dtype(self) -> torch.dtype:
        """Of the first floating parameter."""
        return next(each.dtype for each in self.parameters() if each.is_floating_point())

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings, which are the model's."""
        return self.backbone.embeddings.word

    @property
    def config(self) -> TransformerConfig:
        """Which transformer."""
        return self.backbone.config

    def forward(  # house: peer signature
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> EncoderOutput | tuple[Any, ...]:
        """Return what `generate` takes for ``encoder_outputs``.

        Args:
            input_ids: Token ids, (B, S).
            attention_mask: 1 for a token, 0 for padding, (B, S); None takes all for tokens.
            inputs_embeds: Embeddings in the place of ``input_ids``, (B, S, D).
            output_attentions: Return attention probabilities of each layer.
            output_hidden_states: Return hidden states of each layer.
            return_dict: False returns what there is as a tuple, in the order of the output's fields.

        Raises:
            ValueError: If there are both ids and embeddings, or none of them.
        """
        output = self._encode(
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return output.to_tuple() if return_dict is False else output
