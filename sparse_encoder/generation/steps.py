"""One call of the model a token, with masks and places that grow beside the text. Knows no loop.

Letters: R rows, P tokens of the prompt, T tokens read by one call, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_encoder.generation.model_inputs import ModelInputs
from sparse_encoder.generation.protocol import GenerationCache, GenerativeModel

GROWTH = 256
"""Columns by which a mask grows at once."""


class Wanted(NamedTuple):
    """Say what the model shall record."""

    attentions: bool = False
    hidden_states: bool = False


class Step(NamedTuple):
    """Hold what one call of the model gave."""

    logits: Tensor
    """Of the next token, (R, V), in the dtype of the model."""
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class GrowingMask:
    """Lengthen a mask by ones without copying it for each token.

    Args:
        mask: What there is, (R, M).
    """

    def __init__(self, mask: Tensor) -> None:
        self.length = mask.shape[1]
        self._columns = mask

    def grow(self) -> Tensor:
        """Add a column of ones, and return the mask."""
        if self.length == self._columns.shape[1]:
            ones = self._columns.new_ones(self._columns.shape[0], GROWTH)
            self._columns = torch.cat([self._columns, ones], dim=-1)
        self.length += 1
        return self.columns()

    def columns(self) -> Tensor:
        """Return the mask so far."""
        return self._columns[:, : self.length]


class ModelSteps:
    """Read a prompt, then one token after the other.

    Args:
        model: What reads.
        inputs: What it reads first.
        wanted: What it records.
    """

    def __init__(self, model: GenerativeModel, inputs: ModelInputs, wanted: Wanted) -> None:
        self._model = model
        self._inputs = inputs
        self._wanted = wanted
        self._mask = GrowingMask(first_mask(inputs))
        self._places = inputs.position_ids
        self._started = False

    @property
    def cache(self) -> GenerationCache | None:
        """What holds the tokens that were read; None if every call reads all of them."""
        return self._inputs.cache

    def __call__(self, ids: Tensor) -> Step:
        """Read what was not read yet, and return the logits of the next token.

        Args:
            ids: The text so far, (R, P + tokens written); the first call gets the prompt.
        """
        if not self._started:
            self._started = True
            return self._read_prompt()
        mask = self._mask.grow()
        if self.cache is not None:
            ids = ids[:, -1:]
            if self._places is not None:
                self._places = self._places[:, -1:] + 1
        elif self._places is not None:
            self._places = torch.cat([self._places, self._places[:, -1:] + 1], dim=-1)
        return self._run(ids, mask, self._places, None)

    def _read_prompt(self) -> Step:
        """Read what the cache does not hold."""
        inputs = self._inputs
        ids = inputs.ids[:, -inputs.new_tokens :]
        return self._run(ids, self._mask.columns(), inputs.position_ids, inputs.inputs_embeds)

    def _run(self, ids: Tensor, mask: Tensor, places: Tensor | None, embeds: Tensor | None) -> Step:
        """Call the model once."""
        if self._model.is_encoder_decoder:
            return self._run_behind_encoder(ids, mask)
        output = self._model(
            input_ids=ids if embeds is None else None,
            attention_mask=mask,
            position_ids=places,
            past_key_values=self.cache,
            inputs_embeds=embeds,
            use_cache=self.cache is not None,
            output_attentions=self._wanted.attentions,
            output_hidden_states=self._wanted.hidden_states,
            logits_to_keep=1,
        )
        return Step(last_logits(output), output.attentions, None, output.hidden_states)

    def _run_behind_encoder(self, ids: Tensor, mask: Tensor) -> Step:
        """Call a model with an encoder once."""
        output = self._model(
            decoder_input_ids=ids,
            decoder_attention_mask=mask,
            encoder_outputs=self._inputs.encoder_outputs,
            attention_mask=self._inputs.encoder_mask,
            past_key_values=self.cache,
            use_cache=self.cache is not None,
            output_attentions=self._wanted.attentions,
            output_hidden_states=self._wanted.hidden_states,
            logits_to_keep=1,
        )
        return Step(
            last_logits(output), output.decoder_attentions, output.cross_attentions, output.decoder_hidden_states
        )


def first_mask(inputs: ModelInputs) -> Tensor:
    """Return the mask of all tokens that the first call knows, cached ones too."""
    if inputs.attention_mask is not None:
        return inputs.attention_mask
    past = 0 if inputs.cache is None else inputs.cache.get_seq_length()
    return inputs.ids.new_ones(inputs.ids.shape[0], past + inputs.new_tokens)


def last_logits(output: Any) -> Tensor:  # noqa: ANN401  # a CausalLanguageModelOutput or a Seq2SeqOutput
    """Return the logits of the next token, (R, V)."""
    logits: Tensor = output.logits
    return logits[:, -1]
