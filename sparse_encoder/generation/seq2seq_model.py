"""An encoder with a decoder that writes what the encoder read about, from and to folders. Knows no family by name.

Axes: B pairs of texts, S tokens of the encoder, T new tokens of the decoder, P tokens of its past, D hidden size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_encoder.backbone.cache import Decoding, DynamicCache, EncoderDecoderCache
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families import SEQ2SEQ_FAMILIES
from sparse_encoder.backbone.families.family import HEAD_WEIGHT, WORD_EMBEDDINGS, Family
from sparse_encoder.backbone.heads import LinearHead, VocabularyHead
from sparse_encoder.backbone.pretrained import PretrainedModel
from sparse_encoder.backbone.record import Record
from sparse_encoder.backbone.token_caches import new_token_cache
from sparse_encoder.backbone.transformer import Transformer
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.encoder_stack import EncoderStack
from sparse_encoder.generation.generation_files import GenerationFiles
from sparse_encoder.generation.kept_places import kept_places
from sparse_encoder.generation.mixin import GenerationMixin
from sparse_encoder.generation.outputs import EncoderOutput, Seq2SeqOutput, encoder_output
from sparse_encoder.generation.seq2seq_call import Seq2SeqCall, check_one, shift_right
from sparse_encoder.generation.stack_pair import StackPair
from sparse_encoder.generation.token_loss import token_loss

_ENCODER = "_encoder_stack"


class Seq2SeqModel(GenerationMixin, GenerationFiles, StackPair, PretrainedModel):
    """An encoder, a decoder that looks at what it made, and a head: the families t5, mt5 and bart.

    ``backbone`` is the encoder. Its word embeddings serve the decoder too, which has none of its own; they are in
    memory and in files once. :meth:`prune_heads` takes heads of the encoder out.

    Args:
        config: Of the encoder, with that of its decoder in it.
        hf_config: The ``config.json`` it was read from; its keys are written again.
        attn_implementation: ``"sdpa"`` or ``"eager"``.
        generation_config: How to write, in the place of what files say; it is copied.

    Raises:
        ConfigError: If the config has no decoder.
    """

    has_head = True
    is_pair = True
    is_encoder_decoder: ClassVar[bool] = True
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
        if config.decoder is None:
            raise ConfigError("must be true: this model needs an encoder and a decoder", field="is_encoder_decoder")
        self.hf_config = {**self.family.token_defaults, **self.hf_config, **self.family.settled(config)}
        self.config = self.backbone.config = replace(config, published=self.hf_config)
        self._take_generation_config(generation_config)
        self.decoder = Transformer(config.decoder, attn_implementation=attn_implementation)
        self.head = LinearHead(config)
        self.tie_weights()

    @classmethod
    def own_config(cls, config: TransformerConfig, family: Family, path: Path | None = None) -> TransformerConfig:
        """Return the config as it is.

        Raises:
            ConfigError: If its family has one stack.
        """
        if not family.is_pair:
            told = f"a {family.model_type} is one stack, and a {cls.__name__} an encoder with a decoder"
            raise ConfigError(f"{told}; choose from {sorted(SEQ2SEQ_FAMILIES)}", path=path, field="model_type")
        return config

    def forward(  # type: ignore[override]  # house: peer signature
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: EncoderOutput | tuple[Tensor, ...] | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        return_dict: bool | None = None,
    ) -> Seq2SeqOutput | tuple[Any, ...]:
        r"""Score the next token at each of the decoder's places.

        With ``labels`` and no input of the decoder, its input is the labels, one place later, behind the start token.
        The loss is their mean cross-entropy; it is 0 with zero gradients, and not NaN, where no label counts.

        Args:
            input_ids: Token ids of the encoder, (B, S).
            attention_mask: 1 for a token of the encoder, 0 for padding, (B, S); None takes all for tokens.
            decoder_input_ids: New token ids of the decoder, (B, T).
            decoder_attention_mask: 1 for a token of the decoder, 0 for padding, past and new, (B, P + T); None takes
                all for tokens.
            encoder_outputs: What :meth:`encode` returned, in the place of the encoder's input.
            past_key_values: Keys and values of the decoder's past and of the encoder; it takes the new ones in.
            inputs_embeds: Embeddings in the place of ``input_ids``, (B, S, D).
            decoder_inputs_embeds: Embeddings in the place of ``decoder_input_ids``, (B, T, D).
            labels: What the decoder shall say, (B, T); -100 for places that the loss leaves out.
            use_cache: Whether a cache is made and returned; None: not in training nor with labels, else as the config
                says.
            output_attentions: Return attention probabilities of each layer.
            output_hidden_states: Return hidden states of each layer.
            logits_to_keep: How many of the last places are scored, or which places, (K,); 0 means all.
            return_dict: False returns what there is as a tuple, in the order of the output's fields.

        Raises:
            TypeError: If the cache is of another kind.
            ValueError: If an input is missing, given twice, or of another shape than what goes with it.
        """
        call = Seq2SeqCall(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            logits_to_keep=logits_to_keep,
        )
        output = self._run(call)
        return output.to_tuple() if return_dict is False else output

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> EncoderOutput:
        """Run the encoder alone; arguments as :meth:`forward`.

        Raises:
            ValueError: If there are both ids and embeddings, or none of them.
        """
        check_one("input_ids or inputs_embeds", input_ids, inputs_embeds)
        if attention_mask is None:
            attention_mask = self._encoder_mask(input_ids, inputs_embeds)
        record = Record(keeps_hidden_states=bool(output_hidden_states), keeps_attentions=bool(output_attentions))
        hidden = self.backbone(input_ids, attention_mask, inputs_embeds=inputs_embeds, record=record)
        return EncoderOutput(
            last_hidden_state=hidden,
            hidden_states=tuple(record.hidden_states) if output_hidden_states else None,
            attentions=tuple(record.attentions) if output_attentions else None,
        )

    def get_encoder(self) -> EncoderStack:
        """Return the encoder, which gives what :meth:`encode` does: always the same object, in the model's mode."""
        kept: EncoderStack | None = self.__dict__.get(_ENCODER)
        if kept is None or kept.backbone is not self.backbone:
            kept = self.__dict__[_ENCODER] = EncoderStack(self.backbone, self.encode)  # no module of the model
        kept.training = self.backbone.training
        return kept

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what :meth:`get_encoder` made: a copy makes its own."""
        return {name: value for name, value in super().__getstate__().items() if name != _ENCODER}

    def _encoder_mask(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if input_ids is not None:
            return self.mask_or_ones(input_ids, None)
        assert inputs_embeds is not None  # one of them is
        return inputs_embeds.new_ones(inputs_embeds.shape[:2], dtype=torch.long)

    def _run(self, call: Seq2SeqCall) -> Seq2SeqOutput:
        encoded = self._encoded(call)
        cache = self._cache(call)
        record = Record(
            keeps_hidden_states=bool(call.output_hidden_states), keeps_attentions=bool(call.output_attentions)
        )
        hidden = self._decode(call, encoded.last_hidden_state, cache, record)
        logits: Tensor = self.head(kept_places(hidden, call.logits_to_keep))
        return Seq2SeqOutput(
            loss=None if call.labels is None else token_loss(logits, call.labels),
            logits=logits,
            past_key_values=cache,
            decoder_hidden_states=tuple(record.hidden_states) if call.output_hidden_states else None,
            decoder_attentions=tuple(record.attentions) if call.output_attentions else None,
            cross_attentions=tuple(record.cross_attentions) if call.output_attentions else None,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def _encoded(self, call: Seq2SeqCall) -> EncoderOutput:
        """Run the encoder, or take what it made before."""
        given = call.encoder_outputs
        if given is None:
            return self.encode(
                call.input_ids,
                call.attention_mask,
                inputs_embeds=call.inputs_embeds,
                output_attentions=call.output_attentions,
                output_hidden_states=call.output_hidden_states,
            )
        return encoder_output(given)

    def _cache(self, call: Seq2SeqCall) -> EncoderDecoderCache | None:
        if call.past_key_values is not None:
            return call.past_key_values
        wanted = call.use_cache
        if wanted is None:
            wanted = call.labels is None and not self.training and self.hf_config.get("use_cache", True) is not False
        return EncoderDecoderCache(DynamicCache()) if wanted else None

    def _decode(self, call: Seq2SeqCall, memory: Tensor, cache: EncoderDecoderCache | None, record: Record) -> Tensor:
        """Return hidden states of the decoder, (B, T, D)."""
        embeds = call.decoder_inputs_embeds
        if embeds is None:
            input_ids = call.decoder_input_ids
            if input_ids is None:
                assert call.labels is not None  # or the call would have been refused
                input_ids = self.prepare_decoder_input_ids_from_labels(call.labels)
            embeds = self.backbone.embeddings.embed_words(input_ids)
        else:
            self.backbone.embeddings.check_dtype("decoder_inputs_embeds", embeds)
        mask = call.decoder_attention_mask
        if mask is None:
            past = 0 if cache is None else cache.get_seq_length()
            mask = embeds.new_ones((embeds.shape[0], past + embeds.shape[1]), dtype=torch.long)
        decoding = Decoding(cache, memory, call.attention_mask)
        hidden: Tensor = self.decoder(None, mask, inputs_embeds=embeds, decoding=decoding, record=record)
        return hidden

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder's input for labels: a start token, then all of them but the last, padding for -100.

        Args:
            labels: What the decoder shall say, (B, T).

        Raises:
            ValueError: If the config names no start token or no padding.
        """
        start, pad = (self.hf_config.get(name) for name in ("decoder_start_token_id", "pad_token_id"))
        return shift_right(labels, start=start, pad=pad)

    def new_cache(self, kind: str, max_cache_len: int) -> EncoderDecoderCache:
        """Build an empty cache.

        Args:
            kind: ``"dynamic"`` grows with the text, ``"static"`` has its size from the beginning.
            max_cache_len: Tokens that a static one can hold.

        Raises:
            ValueError: If the kind is unknown.
        """
        return EncoderDecoderCache(new_token_cache(kind, max_cache_len))

    @property
    def architecture(self) -> str:
        """What transformers calls this model."""
        return self.family.pair_architecture

    def vocabulary_head(self) -> VocabularyHead:
        """Return the head."""
        return self.head
