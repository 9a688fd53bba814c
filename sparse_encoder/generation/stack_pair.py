"""What editing, counting and recomputing mean for an encoder with a decoder. Knows nothing of what they compute.

Axes: B pairs of texts, S tokens of the encoder, T tokens of the decoder, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.editing import ModelEditing
from sparse_encoder.backbone.facts import CountedModel
from sparse_encoder.backbone.flops import FORWARD_AND_BACKWARD, pair_operations
from sparse_encoder.backbone.heads import LinearHead, VocabularyHead
from sparse_encoder.backbone.recomputing import Options
from sparse_encoder.backbone.resize import NewRows
from sparse_encoder.backbone.transformer import Transformer


class StackPair(ModelEditing, CountedModel):
    """Treat two stacks as one model; one base of an encoder with a decoder."""

    decoder: Transformer
    head: LinearHead

    def get_decoder(self) -> Transformer:
        """Return the decoder, which takes embeddings and no ids."""
        return self.decoder

    def _set_config(self, config: TransformerConfig, written: Mapping[str, Any]) -> None:
        """Take another config of the encoder; what both stacks share changes in the decoder's too."""
        assert config.decoder is not None  # or there would be no model
        shared = {name: getattr(config, name) for name in ("vocab_size", "pad_token_id")}
        decoder = replace(config.decoder, **shared)
        super()._set_config(replace(config, decoder=decoder), written)
        self.decoder.config = decoder

    def _resize_tables(
        self, words: nn.Embedding, head: VocabularyHead | None, *, rows: int, maker: Callable[[bool], NewRows]
    ) -> None:
        super()._resize_tables(words, head, rows=rows, maker=maker)
        bias = self.head.logits_bias
        if bias is not None:  # new tokens get none
            self.head.logits_bias = F.pad(bias, (0, rows - bias.shape[1]))

    def floating_point_ops(
        self,
        inputs: Mapping[str, object],
        exclude_embeddings: bool = True,
        *,
        count_products: bool = False,
        backward: bool = True,
    ) -> int:
        """Say how many floating-point operations a batch takes, as in :class:`PretrainedModel`.

        Args:
            inputs: ``input_ids``, (B, S), with ``decoder_input_ids`` or ``labels``, (B, T), and whatever else.
            exclude_embeddings: Leave the tables out of the estimate.
            count_products: Count products instead of parameters.
            backward: Whether the backward pass counts too.

        Raises:
            ValueError: If products are asked for with embeddings, or without the ids of both stacks.
        """
        if not count_products or not exclude_embeddings:
            return super().floating_point_ops(
                inputs, exclude_embeddings, count_products=count_products, backward=backward
            )
        encoder, decoder = inputs.get("input_ids"), inputs.get("decoder_input_ids", inputs.get("labels"))
        if not isinstance(encoder, Tensor) or not isinstance(decoder, Tensor):
            raise ValueError("count_products needs input_ids, and decoder_input_ids or labels")
        forward = pair_operations(self.backbone, self.decoder, self.head, encoder, decoder)
        return forward * (FORWARD_AND_BACKWARD if backward else 1)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Options | None = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """Recompute layers of both stacks in the backward pass, as in :class:`PretrainedModel`."""
        super().activation_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)
        self.decoder.checkpointing = self.backbone.checkpointing

    def activation_checkpointing_disable(self) -> None:
        """Keep activations of both stacks again."""
        super().activation_checkpointing_disable()
        self.decoder.checkpointing = None
