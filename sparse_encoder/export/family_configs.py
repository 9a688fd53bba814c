"""The graphs of the library's families: three kinds of inputs, whatever the family is called."""

from __future__ import annotations

from sparse_encoder.export.onnx_config import OnnxConfig
from sparse_encoder.export.onnx_config_seq2seq import (
    DECODER_SEQUENCE,
    ENCODER_SEQUENCE,
    PAST_DECODER,
    PAST_ENCODER,
    OnnxSeq2SeqConfigWithPast,
)
from sparse_encoder.export.onnx_config_with_past import OnnxConfigWithPast
from sparse_encoder.export.tasks import BATCH, PAST_SEQUENCE, SEQUENCE


class EncoderOnnxConfig(OnnxConfig):
    """Describe the graph of an encoder, with token types where the model has them."""

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by input; for tasks with choices a row is several texts."""
        axes = {0: BATCH, 1: SEQUENCE}
        if self.task == "multiple-choice":
            axes = {0: BATCH, 1: "choice", 2: SEQUENCE}
        names = ["input_ids", "attention_mask"]
        if getattr(self._config, "num_token_types", 0):
            names.append("token_type_ids")
        return {name: dict(axes) for name in names}


class DecoderOnnxConfig(OnnxConfigWithPast):
    """Describe the graph of a decoder; with a past of any length, also none, it reads prompts and goes on."""

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by input."""
        seen = f"{PAST_SEQUENCE} + {SEQUENCE}" if self.use_past else SEQUENCE
        inputs = {"input_ids": {0: BATCH, 1: SEQUENCE}, "attention_mask": {0: BATCH, 1: seen}}
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs


class EncoderDecoderOnnxConfig(OnnxSeq2SeqConfigWithPast):
    """Describe the graph of an encoder and a decoder; with a past that of the decoder, the encoder being another."""

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by input."""
        if not self.use_past:
            return {
                "input_ids": {0: BATCH, 1: ENCODER_SEQUENCE},
                "attention_mask": {0: BATCH, 1: ENCODER_SEQUENCE},
                "decoder_input_ids": {0: BATCH, 1: DECODER_SEQUENCE},
                "decoder_attention_mask": {0: BATCH, 1: DECODER_SEQUENCE},
            }
        inputs = {
            "attention_mask": {0: BATCH, 1: PAST_ENCODER},
            "decoder_input_ids": {0: BATCH, 1: DECODER_SEQUENCE},
            "decoder_attention_mask": {0: BATCH, 1: f"{PAST_DECODER} + {SEQUENCE}"},
        }
        self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs
