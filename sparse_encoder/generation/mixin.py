"""`generate` and `compute_transition_scores`, for every model that gives logits of a next token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_encoder.generation.beam_search import write_beams
from sparse_encoder.generation.preparation import Settings, prepare, settle
from sparse_encoder.generation.protocol import GenerativeModel
from sparse_encoder.generation.records import GenerateOutput, Records
from sparse_encoder.generation.request import GenerationRequest, refuse
from sparse_encoder.generation.sampling import write_rows
from sparse_encoder.generation.special_tokens import ends_of
from sparse_encoder.generation.transition_scores import compute_transition_scores

if TYPE_CHECKING:
    from sparse_encoder.generation.config import GenerationConfig
    from sparse_encoder.generation.request import PrefixFunction


class GenerationMixin:
    """Let a model write."""

    def generate(  # house: peer signature
        self: GenerativeModel,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Iterable[Callable[..., Tensor]] | None = None,
        stopping_criteria: Iterable[Callable[..., Any]] | None = None,
        prefix_allowed_tokens_fn: PrefixFunction | None = None,
        synced_gpus: bool | None = None,
        assistant_model: None = None,
        streamer: Any = None,  # noqa: ANN401  # anything with put and end
        negative_prompt_ids: None = None,
        negative_prompt_attention_mask: None = None,
        custom_generate: None = None,
        *,
        tokenizer: Any = None,  # noqa: ANN401  # anything that decodes
        generator: torch.Generator | None = None,
        **kwargs: Any,  # noqa: ANN401  # fields of a generation config and inputs of the model, sorted at once
    ) -> GenerateOutput | Tensor:
        """Write on from a prompt.

        ``num_beams=1`` takes the most likely token at each step, or draws one with ``do_sample=True``; more beams
        search for likely texts, or draw continuations. A setting is taken from the arguments, else from
        ``generation_config``, else from ``model.generation_config``, else it is the default; neither config is
        changed. Without ``max_new_tokens`` and ``max_length`` 20 tokens are written. Prompts of several lengths are
        padded on the left and come with their ``attention_mask``.

        Nothing is recorded for gradients. The model stays in the mode it is in: one in training writes with dropout,
        so call ``model.eval()`` first, as with transformers. Unlike there, a shorter beam is filled with the pad token
        even if that is 0, and arguments that are not supported are refused.

        Args:
            inputs: Token ids of the prompt, or of the encoder, (B, P); also by the name ``input_ids``. Without them,
                ``inputs_embeds`` or one begin token is read.
            generation_config: Settings of this call.
            logits_processor: Functions of ids (R, T) and scores (R, V) that return scores, after those that settings
                ask for; one of the same type takes the place of such.
            stopping_criteria: Functions of ids (R, T) and scores so far that return which rows end, (R,), besides
                those that settings ask for. With beams they see every candidate.
            prefix_allowed_tokens_fn: Gets a number and the ids of a row, and returns the tokens that may follow. The
                number is that of the text; where rows are drawn, ``do_sample=True`` with ``num_return_sequences`` and
                without beams, it is that of the row, ``num_return_sequences`` of which belong to a text.
            synced_gpus: Refused unless False or None.
            assistant_model: Refused.
            streamer: Gets the prompt and each token by its method ``put``, then ``end`` is called; for one row.
            negative_prompt_ids: Refused.
            negative_prompt_attention_mask: Refused.
            custom_generate: Refused.
            tokenizer: Needed for ``stop_strings``.
            generator: Numbers for sampling are drawn from it; None: torch's own.
            **kwargs: Fields of :class:`GenerationConfig`, and ``input_ids``, ``attention_mask``, ``position_ids``,
                ``inputs_embeds``, ``past_key_values``; with an encoder ``encoder_outputs``, ``decoder_input_ids`` and
                ``decoder_attention_mask`` and no ``position_ids``. Ids beside embeddings name the same tokens, and
                are what the result begins with. A cache of an encoder answers for the text that it was filled by.

        Returns:
            Prompt and written tokens, (R, T), ``num_return_sequences`` rows of a text next to each other; with
            ``return_dict_in_generate=True`` an output that holds them, and what else was asked for.

        Raises:
            ValueError: If arguments are unknown or not supported, contradict each other or leave nothing to write.
            TypeError: If a value has the wrong type.
        """
        refuse(
            {
                "synced_gpus": synced_gpus,
                "assistant_model": assistant_model,
                "negative_prompt_ids": negative_prompt_ids,
                "negative_prompt_attention_mask": negative_prompt_attention_mask,
                "custom_generate": custom_generate,
            }
        )
        request = GenerationRequest(
            inputs=inputs,
            generation_config=generation_config,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
            streamer=streamer,
            tokenizer=tokenizer,
            generator=generator,
            settings=kwargs,
        )
        with torch.no_grad():
            return write(self, request)

    def compute_transition_scores(  # house: peer signature
        self: GenerativeModel,
        sequences: Tensor,
        scores: Sequence[Tensor] | None,
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
        *,
        mask_finished: bool = False,
    ) -> Tensor:
        """Pick the score of each written token; :func:`compute_transition_scores` says more.

        Args:
            sequences: Prompt and written tokens, (R, P + T).
            scores: For each step the scores of the next token, (S, V) each.
            beam_indices: Rows of the scores that each token was chosen from, (R, T); None: each row its own.
            normalize_logits: Turn scores into log-probabilities first.
            mask_finished: Set what is behind the first end token to 0; end tokens are those of
                ``model.generation_config``.

        Returns:
            float, (R, T).

        Raises:
            ValueError: If there are no scores, shapes do not go together, or there is no end token to mask behind.
        """
        return compute_transition_scores(
            sequences,
            scores,
            beam_indices,
            normalize_logits,
            mask_finished=mask_finished,
            eos_token_id=ends_of(self.generation_config),
        )


def write(model: GenerativeModel, request: GenerationRequest) -> GenerateOutput | Tensor:
    """Do what a call of `generate` asks for."""
    settings = settle(model, request)
    if not leaves_only_tokens(request, settings):
        return written(model, request, settings)
    with torch.inference_mode():
        tokens = written(model, request, settings)
    assert isinstance(tokens, Tensor)
    return tokens.clone()  # an ordinary tensor, that can be used with gradients


def leaves_only_tokens(request: GenerationRequest, settings: Settings) -> bool:
    """Return whether nothing that is computed reaches the caller but the tokens.

    Then torch need not keep what later use in training would need, which makes steps faster.
    """
    asked = (
        request.logits_processor,
        request.stopping_criteria,
        request.prefix_allowed_tokens_fn,
        request.streamer,
        settings.arguments.past_key_values,
    )
    return not settings.config.return_dict_in_generate and all(value is None for value in asked)


def written(model: GenerativeModel, request: GenerationRequest, settings: Settings) -> GenerateOutput | Tensor:
    """Prepare and write; returns tokens, or all that was asked for."""
    records = Records(settings.config)
    task = prepare(model, request, settings, records.wanted)
    beams = write_beams(model, task, records) if (task.config.num_beams or 1) > 1 else None
    sequences = write_rows(model, task, records) if beams is None else beams.sequences
    if not task.config.return_dict_in_generate:
        return sequences
    return records.result(sequences, beams, task.inputs)
