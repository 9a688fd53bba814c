"""Decoders as graphs: one that reads a prompt and goes on, and the two of an encoder with a decoder.

Axes: B texts, H heads of keys and values, S tokens of the encoder, T new tokens, P tokens of the past, K head size,
D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.cache import Decoding, DynamicCache, EncoderDecoderCache
from sparse_encoder.backbone.masks import places_behind_padding

if TYPE_CHECKING:
    from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel


def places_of(attention_mask: Tensor, num_tokens: int) -> Tensor:
    """Count the places of new tokens, so that padding on the left does not count.

    Args:
        attention_mask: Past and new tokens, (B, P + T).
        num_tokens: T.

    Returns:
        Places from 0 on, (B, T).
    """
    return places_behind_padding(attention_mask)[:, attention_mask.shape[1] - num_tokens :]


class CausalGraph(nn.Module):
    """Score next tokens; with a past also give back keys and values, old and new.

    Args:
        model: Its backbone and head are used.
        use_past: Whether there is a past.
    """

    def __init__(self, model: CausalLanguageModel, *, use_past: bool) -> None:
        super().__init__()
        self.use_past = use_past
        self.backbone, self.head = model.backbone, model.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Run the model.

        Args:
            input_ids: New tokens, (B, T).
            attention_mask: Past and new tokens, (B, P + T).
            past: Keys and values of each layer in turn, (B, H, P, K).

        Returns:
            Logits, (B, T, V), then keys and values of each layer, (B, H, P + T, K).
        """
        cache = DynamicCache.from_tensors(zip(past[::2], past[1::2], strict=True)) if self.use_past else None
        hidden = self.backbone(
            input_ids,
            attention_mask,
            position_ids=places_of(attention_mask, input_ids.shape[1]),
            decoding=Decoding(cache),
        )
        present = () if cache is None else tuple(tensor for pair in cache.to_tensors() for tensor in pair)
        return self.head(hidden), *present


class EncoderGraph(nn.Module):
    """Run an encoder, and compute what each layer of the decoder keeps of it.

    Args:
        model: Of two stacks.
    """

    def __init__(self, model: Seq2SeqModel) -> None:
        super().__init__()
        self.backbone, self.decoder = model.backbone, model.decoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return hidden states, (B, S, D), then keys and values of each decoder layer, (B, H, S, K)."""
        states = self.backbone(input_ids, attention_mask)
        # The decoder computes them in its first step; what else that gives is asked for by nobody and leaves the graph.
        cache = EncoderDecoderCache(DynamicCache())
        first = self.backbone.embeddings.embed_words(input_ids[:, :1])
        self.decoder(
            None,
            torch.ones_like(input_ids[:, :1]),
            inputs_embeds=first,
            decoding=Decoding(cache, states, attention_mask),
        )
        kept = cache.cross_attention_cache.to_tensors()
        return states, *(tensor for pair in kept for tensor in pair)


class DecoderGraph(nn.Module):
    """Score next tokens of a decoder that looks at what an encoder gave.

    Args:
        model: Of two stacks.
    """

    def __init__(self, model: Seq2SeqModel) -> None:
        super().__init__()
        self.embeddings, self.decoder, self.head = model.backbone.embeddings, model.decoder, model.head

    def forward(
        self,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run the decoder.

        Args:
            attention_mask: Tokens of the encoder, (B, S).
            decoder_input_ids: New tokens, (B, T).
            decoder_attention_mask: Past and new tokens, (B, P + T).
            past: Of each layer in turn, keys and values of the decoder's tokens, (B, H, P, K), and of the encoder's,
                (B, H, S, K).

        Returns:
            Logits, (B, T, V), then keys and values of the decoder's tokens of each layer, (B, H, P + T, K).
        """
        own = DynamicCache.from_tensors(zip(past[::4], past[1::4], strict=True))
        memory = DynamicCache.from_tensors(zip(past[2::4], past[3::4], strict=True))
        cache = EncoderDecoderCache(own, memory)
        hidden = self.decoder(
            None,
            decoder_attention_mask,
            inputs_embeds=self.embeddings.embed_words(decoder_input_ids),
            decoding=Decoding(cache, None, attention_mask),
        )
        return self.head(hidden), *(tensor for pair in own.to_tensors() for tensor in pair)
