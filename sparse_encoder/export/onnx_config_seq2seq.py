"""``OnnxSeq2SeqConfigWithPast``: graphs of an encoder and a decoder.

Axes: B texts, H heads of keys and values, S tokens of the encoder, T new and P past tokens of the decoder, K head size.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from sparse_encoder.export.config_facts import Overriding, first_of, head_width_of, heads_of, layers_of
from sparse_encoder.export.onnx_config import OnnxConfig, one_preprocessor
from sparse_encoder.export.onnx_config_with_past import (
    PAST,
    OnnxConfigWithPast,
    longer_mask,
    name_in,
)
from sparse_encoder.export.tasks import BATCH, SEQUENCE

ENCODER_SEQUENCE, DECODER_SEQUENCE = "encoder_sequence", "decoder_sequence"
PAST_ENCODER, PAST_DECODER = "past_encoder_sequence", "past_decoder_sequence"
EXTRA_PAST = 3
"""So much longer than the new tokens is the decoder's past of an example."""


class OnnxSeq2SeqConfigWithPast(OnnxConfigWithPast, ABC):
    """Describe the graph of an encoder and a decoder; with ``use_past`` that of the decoder, which has a past.

    Args:
        config: As for :class:`OnnxConfig`; of two stacks, the encoder's with the other as ``decoder``.
        task: As for :class:`OnnxConfig`.
        patching_specs: As for :class:`OnnxConfig`.
        use_past: Whether there is a past.
    """

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by output; tokens are of the encoder or of the decoder."""
        outputs = OnnxConfig.outputs.fget(self)  # type: ignore[attr-defined]
        for name, axes in outputs.items():
            own = ENCODER_SEQUENCE if "encoder" in name else DECODER_SEQUENCE
            outputs[name] = {place: own if SEQUENCE in axis else axis for place, axis in axes.items()}
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        result: dict[str, dict[int, str]] = outputs
        return result

    @property
    def num_layers(self) -> tuple[int, int]:
        """How many layers the encoder has, and the decoder, whose layers all keep keys and values.

        Raises:
            AttributeError: If the configuration does not say it; then override this.
        """
        config = self._config
        if (decoder := getattr(config, "decoder", None)) is not None:
            return layers_of(config), layers_of(decoder)
        encoder = first_of(config, "encoder_layers", "num_layers")
        layers = first_of(config, "decoder_layers", "num_decoder_layers", "num_layers")
        if encoder is None or layers is None:
            raise Overriding("how many layers encoder and decoder have", "num_layers")
        return int(encoder), int(layers)

    @property
    def num_attention_heads(self) -> tuple[int, int]:
        """How many heads of keys and values the layers of the encoder have, and those of the decoder.

        Raises:
            AttributeError: If the configuration does not say it; then override this.
        """
        config = self._config
        if (decoder := getattr(config, "decoder", None)) is not None:
            return heads_of(config), heads_of(decoder)
        pair = first_of(config, "encoder_attention_heads"), first_of(config, "decoder_attention_heads")
        if None in pair:
            return heads_of(config), heads_of(config)
        return int(pair[0]), int(pair[1])

    @property
    def head_width(self) -> int:
        """How wide a head of the decoder is, also one that looks at the encoder."""
        return head_width_of(first_of(self._config, "decoder") or self._config)

    def generate_dummy_inputs(  # type: ignore[override]  # house: peer signature
        self,
        preprocessor: Any = None,  # noqa: ANN401 - as for OnnxConfig
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: str | None = None,
        tokenizer: Any = None,  # noqa: ANN401 - the older name of preprocessor
    ) -> dict[str, Any]:
        """Make a batch to trace with.

        With a past there is one new token, and the decoder's past is of zeros and 3 tokens longer; what the decoder
        keeps of the encoder is as long as the encoder's text.

        Args:
            preprocessor: As :meth:`OnnxConfig.generate_dummy_inputs`, and so are the others.
            batch_size: Likewise.
            seq_length: Likewise.
            is_pair: Likewise.
            framework: Likewise.
            tokenizer: The older name of ``preprocessor``.

        Returns:
            Tensors by input; ``past_key_values`` is a list of (decoder key, decoder value, encoder key, encoder value),
            one for each layer of the decoder.
        """
        batch = OnnxConfig.generate_dummy_inputs(
            self,
            one_preprocessor(preprocessor, tokenizer),
            batch_size,
            seq_length,
            is_pair=is_pair,
            framework=framework,
        )
        tokens = 1 if self.use_past else batch["input_ids"].shape[1]
        own = {f"decoder_{name}": tensor[:, :tokens] for name, tensor in batch.items()}
        if not self.use_past:
            return {name: {**batch, **own}[name] for name in self.inputs}
        texts, length = batch["input_ids"].shape
        past = tokens + EXTRA_PAST
        own["decoder_attention_mask"] = longer_mask(own["decoder_attention_mask"], past)
        heads, width = self.num_attention_heads[1], self.head_width
        shapes = [(texts, heads, past, width)] * 2 + [(texts, heads, length, width)] * 2
        layers = [tuple(torch.zeros(shape) for shape in shapes) for _ in range(self.num_layers[1])]
        named = {**batch, **own}
        return {**{name: named[name] for name in self._own_inputs()}, PAST: layers}

    def _text_inputs(self) -> Iterable[str]:
        return ("input_ids", "attention_mask")

    def fill_with_past_key_values_(
        self, inputs_or_outputs: dict[str, dict[int, str]], direction: str, inverted_values_shape: bool = False
    ) -> None:
        """Add the axes of keys and values to those of other inputs or outputs, in place, for every decoder layer.

        Elsewhere layers are left out where the two stacks are not of one depth.

        Args:
            inputs_or_outputs: Axes by name.
            direction: ``"inputs"`` or ``"outputs"``.
            inverted_values_shape: Whether values are (B, P, H, K).

        Raises:
            ValueError: If it is another direction.
        """
        name = name_in(direction)
        own = PAST_DECODER if direction == "inputs" else f"{PAST_DECODER} + {SEQUENCE}"
        values = 1 if inverted_values_shape else 2
        for layer in range(self.num_layers[1]):
            for stack, place in (("decoder", own), ("encoder", PAST_ENCODER)):
                inputs_or_outputs[f"{name}.{layer}.{stack}.key"] = {0: BATCH, 2: place}
                inputs_or_outputs[f"{name}.{layer}.{stack}.value"] = {0: BATCH, values: place}

    @classmethod
    def _parts_of_a_layer(cls) -> Sequence[str]:
        return ("decoder.key", "decoder.value", "encoder.key", "encoder.value")
