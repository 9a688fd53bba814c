"""A decoder with a head that scores the next token, from and to folders. Knows no family by name.

Axes: B texts, T new tokens, P tokens of the past, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sparse_encoder.backbone.cache import Decoding, DynamicCache, KeyValueCache, StaticCache
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import HEAD_WEIGHT, WORD_EMBEDDINGS
from sparse_encoder.backbone.heads import VocabularyHead, build_head
from sparse_encoder.backbone.pretrained import PretrainedModel
from sparse_encoder.backbone.record import Record
from sparse_encoder.backbone.token_caches import new_token_cache
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.generation_files import GenerationFiles
from sparse_encoder.generation.kept_places import keeps_all, kept_places
from sparse_encoder.generation.mixin import GenerationMixin
from sparse_encoder.generation.outputs import CausalLanguageModelOutput
from sparse_encoder.generation.token_loss import token_loss


class _Tokens(NamedTuple):
    """What a call reads, checked."""

    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    attention_mask: Tensor


class CausalLanguageModel(GenerationMixin, GenerationFiles, PretrainedModel):
    """A decoder and a head that scores the next token: the families gpt2, llama, mistral, qwen2 and qwen3.

    Args:
        config: Which transformer.
        hf_config: The ``config.json`` it was read from; its keys are written again.
        attn_implementation: ``"sdpa"`` or ``"eager"``.
        generation_config: How to write, in the place of what files say; it is copied.

    Raises:
        ConfigError: If tokens see those behind them.
    """

    has_head = True
    is_encoder_decoder: ClassVar[bool] = False
    tied_targets = {HEAD_WEIGHT: WORD_EMBEDDINGS}

    def __init__(
        self,
        config: TransformerConfig,
        hf_config: Mapping[str, Any],
        *,
        attn_implementation: str = "sdpa",
        generation_config: GenerationConfig | None = None,
    ) -> None:
        super().__init__(config, hf_config, attn_implementation=attn_implementation)
        if not config.causal:
            kind = self.hf_config.get("model_type")
            field = "is_causal" if self.family.is_decoder else "model_type"
            raise ConfigError(
                f"must be that of a decoder whose tokens see only those before them, got an encoder ({kind!r})",
                field=field,
                hint="MaskedLanguageModel loads encoders",
            )
        self._take_generation_config(generation_config)
        self.head = build_head(config)
        self.tie_weights()

    def forward(  # type: ignore[override]  # house: peer signature
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        return_dict: bool | None = None,
    ) -> CausalLanguageModelOutput | tuple[Any, ...]:
        """Score the token that follows each one.

        The loss is the mean cross-entropy of the labels behind the first; it is 0 with zero gradients, and not NaN,
        where none counts.

        Args:
            input_ids: Token ids, of new tokens only where there is a cache, (B, T).
            attention_mask: 1 for a token, 0 for padding, past and new, (B, P + T); None takes all for tokens.
            position_ids: Places, (T,) or (B, T); None counts all columns of the mask. For texts padded on the left
                count behind the padding, as ``generate`` does.
            past_key_values: Keys and values of the past; it takes the new ones in.
            inputs_embeds: Embeddings in the place of ``input_ids``, (B, T, D).
            labels: What the text says, the same as ``input_ids``: they are shifted here, (B, T); -100 for places that
                the loss leaves out.
            use_cache: Whether a cache is made and returned; None: not in training nor with labels, else as the config
                says.
            output_attentions: Return attention probabilities of each layer, (B, H, T, P + T).
            output_hidden_states: Return hidden states of each layer, (B, T, D).
            logits_to_keep: How many of the last places are scored, or which places, (K,); 0 means all, which labels
                need.
            return_dict: False returns what there is as a tuple, in the order of the output's fields.

        Raises:
            TypeError: If the cache is no cache.
            ValueError: If an input is missing, given twice, or of another shape than what goes with it.
        """
        if labels is not None and not keeps_all(logits_to_keep):
            raise ValueError(
                f"logits_to_keep must be 0 with labels, which all places are scored for; got {logits_to_keep}"
            )
        cache = self._cache(past_key_values, use_cache, has_labels=labels is not None)
        tokens = self._tokens(input_ids, inputs_embeds, attention_mask, cache)
        record = Record(keeps_hidden_states=bool(output_hidden_states), keeps_attentions=bool(output_attentions))
        hidden: Tensor = self.backbone(
            tokens.input_ids,
            tokens.attention_mask,
            position_ids=position_ids,
            inputs_embeds=tokens.inputs_embeds,
            decoding=Decoding(cache),
            record=record,
        )
        logits: Tensor = self.head(kept_places(hidden, logits_to_keep))
        output = CausalLanguageModelOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            past_key_values=cache,
            hidden_states=tuple(record.hidden_states) if output_hidden_states else None,
            attentions=tuple(record.attentions) if output_attentions else None,
        )
        return output.to_tuple() if return_dict is False else output

    def _cache(self, given: KeyValueCache | None, wanted: bool | None, *, has_labels: bool) -> KeyValueCache | None:
        if given is not None:
            if not callable(getattr(given, "num_columns", None)):
                kind = type(given).__name__
                raise TypeError(f"past_key_values must be a DynamicCache or a StaticCache, got a {kind}")
            return given if wanted is not False else self._refuse_cache()
        if wanted is None:
            wanted = not self.training and not has_labels and self.hf_config.get("use_cache", True) is not False
        return DynamicCache() if wanted else None

    @staticmethod
    def _refuse_cache() -> KeyValueCache:
        raise ValueError("past_key_values cannot go with use_cache=False: leave one of them out")

    def _tokens(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> _Tokens:
        given = input_ids if inputs_embeds is None else inputs_embeds
        if (input_ids is None) == (inputs_embeds is None) or given is None:
            raise ValueError(f"give input_ids or inputs_embeds, got {'neither' if given is None else 'both'}")
        if attention_mask is None and given.ndim >= 2:
            past = 0 if cache is None else cache.get_seq_length()
            if input_ids is not None and past == 0:
                self.warn_if_padding_and_no_attention_mask(input_ids, None)
            shape = (given.shape[0], past + given.shape[1])
            attention_mask = torch.ones(shape, dtype=torch.long, device=given.device)
        if attention_mask is None:
            raise ValueError(f"input_ids must be of shape (texts, tokens), got {tuple(given.shape)}")
        return _Tokens(input_ids, inputs_embeds, attention_mask)

    @staticmethod
    def _loss(logits: Tensor, labels: Tensor) -> Tensor:
        if labels.shape != logits.shape[:2]:
            wanted = tuple(logits.shape[:2])
            raise ValueError(f"labels must be of the shape of input_ids, {wanted}, got {tuple(labels.shape)}")
        return token_loss(logits[:, :-1], labels[:, 1:].to(logits.device))

    def new_cache(self, kind: str, max_cache_len: int) -> DynamicCache | StaticCache:
        """Build an empty cache.

        Args:
            kind: ``"dynamic"`` grows with the text, ``"static"`` has its size from the beginning.
            max_cache_len: Tokens that a static one can hold.

        Raises:
            ValueError: If the kind is unknown.
        """
        return new_token_cache(kind, max_cache_len)

    def vocabulary_head(self) -> VocabularyHead:
        """Return the head."""
        return self.head
