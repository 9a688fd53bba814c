"""What a caller wants to see of each step, and the result it becomes part of. Knows no loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparse_encoder.generation.beams import BestBeams
from sparse_encoder.generation.model_inputs import ModelInputs
from sparse_encoder.generation.outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    Steps,
)
from sparse_encoder.generation.steps import Step, Wanted

if TYPE_CHECKING:
    from sparse_encoder.generation.config import GenerationConfig

GenerateOutput = (
    GenerateDecoderOnlyOutput
    | GenerateEncoderDecoderOutput
    | GenerateBeamDecoderOnlyOutput
    | GenerateBeamEncoderDecoderOutput
)


class Records:
    """Keep what was asked for, step by step; without ``return_dict_in_generate`` nothing.

    Args:
        config: Says what is asked for.
    """

    def __init__(self, config: GenerationConfig) -> None:
        kept = bool(config.return_dict_in_generate)
        self.wanted = Wanted(kept and bool(config.output_attentions), kept and bool(config.output_hidden_states))
        self.scores: tuple[Tensor, ...] | None = () if kept and config.output_scores else None
        self.logits: tuple[Tensor, ...] | None = () if kept and config.output_logits else None
        self._attentions: Steps = ()
        self._cross_attentions: Steps = ()
        self._hidden_states: Steps = ()

    def add(self, step: Step, logits: Tensor, scores: Tensor) -> None:
        """Keep one step.

        Args:
            step: What the model gave.
            logits: As the model gave them, float32, (R, V).
            scores: What became of them, float32, (R, V).
        """
        if self.scores is not None:
            self.scores += (scores,)
        if self.logits is not None:
            self.logits += (logits,)
        if step.attentions is not None and self.wanted.attentions:
            self._attentions += (step.attentions,)
        if step.cross_attentions is not None and self.wanted.attentions:
            self._cross_attentions += (step.cross_attentions,)
        if step.hidden_states is not None and self.wanted.hidden_states:
            self._hidden_states += (step.hidden_states,)

    def result(self, sequences: Tensor, beams: BestBeams | None, inputs: ModelInputs) -> GenerateOutput:
        """Return what was kept, with what was written.

        Args:
            sequences: Prompt and written tokens, (R, T).
            beams: Scores and rows of beams, if there were any.
            inputs: What was read first; holds the cache.
        """
        values: dict[str, Any] = {
            "sequences": sequences,
            "scores": self.scores,
            "logits": self.logits,
            "past_key_values": inputs.cache,
        }
        attentions = self._attentions if self.wanted.attentions else None
        hidden_states = self._hidden_states if self.wanted.hidden_states else None
        encoder = inputs.encoder_outputs
        if encoder is None:
            values |= {"attentions": attentions, "hidden_states": hidden_states}
        else:
            values |= {
                "encoder_attentions": encoder.attentions if self.wanted.attentions else None,
                "encoder_hidden_states": encoder.hidden_states if self.wanted.hidden_states else None,
                "decoder_attentions": attentions,
                "cross_attentions": self._cross_attentions if self.wanted.attentions else None,
                "decoder_hidden_states": hidden_states,
            }
        if beams is None:
            return (GenerateDecoderOnlyOutput if encoder is None else GenerateEncoderDecoderOutput)(**values)
        values |= {
            "sequences_scores": None if self.scores is None else beams.scores,  # only if scores are asked for
            "beam_indices": beams.beam_indices,
        }
        return (GenerateBeamDecoderOnlyOutput if encoder is None else GenerateBeamEncoderDecoderOutput)(**values)
