"""Heads of attention: taken out for good, or weighed by a mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import cast

from torch import Tensor

from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.families.pruned import PRUNED_HEADS, written_pruned_heads
from sparse_encoder.backbone.head_masks import check_num_heads, head_mask_by_layer
from sparse_encoder.backbone.pruning import check_prunable, merged_heads, prune_attention
from sparse_encoder.backbone.vocabulary_editing import EditableModel


class HeadEditing(EditableModel):
    """Prune and mask attention heads; one base of a pretrained model."""

    def prune_heads(self, heads_to_prune: Mapping[int, Collection[int]]) -> None:
        """Take heads out of attention; the model that is saved has lost them too.

        Heads and layers are named by their first numbers, also when others are gone already. In families whose steps
        share layers, as ALBERT's do, layers are those with weights of their own. An optimizer must be made afterwards.

        Args:
            heads_to_prune: Heads by layer.

        Raises:
            TypeError: If a head is no integer.
            ValueError: If there is no such layer or head, a layer would lose all its heads, or its attention is not of
                plain projections (adapters must be merged before) or has heads that share keys and values.
        """
        pruned = merged_heads(self.config.pruned_heads, heads_to_prune, self.config.num_layers)
        if not any(pruned):
            return
        attentions = [cast(Attention, layer.attention) for layer in self.backbone.layers]
        for attention, heads in zip(attentions, pruned, strict=True):
            if set(heads) - set(attention.pruned_heads):
                check_prunable(attention)
        config = replace(self.config, pruned_heads=pruned)
        for attention, heads in zip(attentions, pruned, strict=True):
            prune_attention(attention, heads)
        self._set_config(config, {PRUNED_HEADS: written_pruned_heads(pruned)})

    def get_head_mask(
        self, head_mask: Tensor | None, num_hidden_layers: int, is_attention_chunked: bool = False
    ) -> Tensor | list[None]:
        """Bring a mask of heads into the shape that attention probabilities are multiplied with, in the model's dtype.

        ``forward`` takes the mask as it is.

        Args:
            head_mask: 1 keeps a head and 0 takes it out, (H,) or (L, H); or None.
            num_hidden_layers: Layers, L.
            is_attention_chunked: Add a last axis.

        Returns:
            Mask of shape (L, 1, H, 1, 1), or with one more axis; without a mask a list of L None.

        Raises:
            ValueError: If the mask has another number of axes, layers or heads.
        """
        dtype = self.backbone.embeddings.word.weight.dtype
        by_layer = head_mask_by_layer(head_mask, num_hidden_layers, dtype, is_attention_chunked=is_attention_chunked)
        check_num_heads(by_layer, self.config.num_heads)
        return by_layer
