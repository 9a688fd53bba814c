"""What `generate` needs of a model and of its cache. Knows no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sparse_encoder.backbone.config import TransformerConfig
    from sparse_encoder.generation.config import GenerationConfig

CacheKind = Literal["dynamic", "static"]


class GenerationCache(Protocol):
    """Hold the keys and values of the tokens that were read."""

    def get_seq_length(self) -> int:
        """Return how many tokens were read."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put row ``beam_idx[i]`` at place ``i``; ``beam_idx`` is (R,)."""


class EncoderStates(Protocol):
    """Hold what an encoder made of a batch of texts."""

    @property
    def last_hidden_state(self) -> Tensor:
        """Of each token, (B, S, D)."""

    @property
    def hidden_states(self) -> tuple[Tensor, ...] | None:
        """Of each layer, when asked for."""

    @property
    def attentions(self) -> tuple[Tensor, ...] | None:
        """Of each layer, when asked for."""


class GenerativeModel(Protocol):
    """Give the logits of the next token.

    A decoder is called with ``input_ids`` or ``inputs_embeds``, ``attention_mask`` over all tokens read so far and the
    new ones, ``position_ids`` of the new tokens (None: counted on from the cache),
    ``past_key_values``, ``use_cache``, ``output_attentions``, ``output_hidden_states`` and ``logits_to_keep``; it
    returns logits, attentions and hidden_states by these names, and fills the cache in place.
    """

    __call__: Callable[..., Any]  # torch's type of a module's call

    @property
    def config(self) -> TransformerConfig:
        """Which transformer."""

    @property
    def generation_config(self) -> GenerationConfig:
        """How this model writes unless the call says otherwise."""

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the input and a decoder writes from its own start token."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def new_cache(self, kind: CacheKind, max_cache_len: int) -> GenerationCache:
        """Build an empty cache; a static one is for at most ``max_cache_len`` tokens."""


class EncoderDecoderModel(GenerativeModel, Protocol):
    """Read with an encoder and write with a decoder.

    It is called with ``decoder_input_ids``, ``decoder_attention_mask``, ``encoder_outputs``, ``attention_mask`` of the
    encoder, and the rest as a decoder; it names what it records ``decoder_attentions``, ``cross_attentions`` and
    ``decoder_hidden_states``.
    """

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> EncoderStates:
        """Run the encoder over ids (B, S) or embeddings (B, S, D)."""
