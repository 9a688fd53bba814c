"""``OnnxConfigWithPast``: graphs that take and give keys and values of the tokens so far.

Axes: B texts, H heads of keys and values, T new tokens, P tokens of the past, K head size.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_encoder.export.config_facts import head_width_of, heads_of, layers_of
from sparse_encoder.export.onnx_config import OnnxConfig, one_preprocessor
from sparse_encoder.export.patching import PatchingSpec
from sparse_encoder.export.tasks import BATCH, PAST_SEQUENCE, SEQUENCE

if TYPE_CHECKING:
    from typing_extensions import Self

PAST, PRESENT = "past_key_values", "present"
NAMES = {"inputs": PAST, "outputs": PRESENT}
EXTRA_PAST = 2
"""So much longer than the new tokens is the past of an example, so that the two axes are told apart."""


def is_past(name: str) -> bool:
    """Say whether an input holds keys or values of the tokens so far."""
    return name.startswith(f"{PAST}.")


class OnnxConfigWithPast(OnnxConfig, ABC):
    """Describe the graph of a decoder; with ``use_past`` one that takes and gives keys and values.

    Args:
        config: As for :class:`OnnxConfig`.
        task: As for :class:`OnnxConfig`.
        patching_specs: As for :class:`OnnxConfig`.
        use_past: Whether there is a past.
    """

    def __init__(
        self,
        config: Any,  # noqa: ANN401 - as for OnnxConfig
        task: str = "default",
        patching_specs: Sequence[PatchingSpec] | None = None,
        use_past: bool = False,
    ) -> None:
        super().__init__(config, task=task, patching_specs=patching_specs)
        self.use_past = use_past

    @classmethod
    def with_past(cls, config: Any, task: str = "default") -> Self:  # noqa: ANN401 - as for OnnxConfig
        """Describe the graph that has a past; arguments as the constructor."""
        return cls(config, task=task, use_past=True)

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by output; with a past also ``present.{i}.key`` and ``.value``."""
        outputs = super().outputs
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def values_override(self) -> dict[str, Any] | None:
        """What the model's configuration holds while it is exported, where it has it; it is put back."""
        return {"use_cache": self.use_past} if hasattr(self._config, "use_cache") else None

    @property
    def num_layers(self) -> Any:  # noqa: ANN401 - an integer, of pairs of stacks two
        """How many layers keep keys and values.

        Raises:
            AttributeError: If the configuration does not say it; then override this.
        """
        return layers_of(self._config)

    @property
    def num_attention_heads(self) -> Any:  # noqa: ANN401 - as num_layers
        """How many heads of keys and values a layer has.

        Raises:
            AttributeError: If the configuration does not say it; then override this.
        """
        return heads_of(self._config)

    @property
    def head_width(self) -> int:
        """How wide each of them is.

        Raises:
            AttributeError: If the configuration does not say it; then override this.
        """
        return head_width_of(self._config)

    def generate_dummy_inputs(  # type: ignore[override]  # house: peer signature
        self,
        preprocessor: Any = None,  # noqa: ANN401 - as for OnnxConfig
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: str | None = None,
        tokenizer: Any = None,  # noqa: ANN401 - the older name of preprocessor
    ) -> dict[str, Any]:
        """Make a batch to trace with; with a past, one of zeros that is 2 tokens longer than what is new.

        Args:
            preprocessor: As :meth:`OnnxConfig.generate_dummy_inputs`, and so are the others.
            batch_size: Likewise.
            seq_length: Likewise.
            is_pair: Likewise.
            framework: Likewise.
            tokenizer: The older name of ``preprocessor``.

        Returns:
            Tensors by input; ``past_key_values`` is a list of (key, value), (B, H, P, K) each, one for each layer.
        """
        inputs = super().generate_dummy_inputs(
            one_preprocessor(preprocessor, tokenizer), batch_size, seq_length, is_pair=is_pair, framework=framework
        )
        if not self.use_past:
            return inputs
        texts, tokens = inputs["input_ids"].shape
        past = tokens + EXTRA_PAST
        inputs["attention_mask"] = longer_mask(inputs["attention_mask"], past)
        shape = (texts, self.num_attention_heads, past, self.head_width)
        return {**inputs, PAST: [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self.num_layers)]}

    def _own_inputs(self) -> list[str]:
        """Return the inputs that are no past."""
        return [name for name in self.inputs if not is_past(name)]

    def _text_inputs(self) -> Iterable[str]:
        return self._own_inputs()

    def fill_with_past_key_values_(
        self, inputs_or_outputs: dict[str, dict[int, str]], direction: str, inverted_values_shape: bool = False
    ) -> None:
        """Add the axes of keys and values to those of other inputs or outputs, in place.

        Elsewhere the past of the inputs is called ``past_sequence + sequence`` too, as that of the outputs.

        Args:
            inputs_or_outputs: Axes by name.
            direction: ``"inputs"`` or ``"outputs"``.
            inverted_values_shape: Whether values are (B, P, H, K).

        Raises:
            ValueError: If it is another direction.
        """
        name = name_in(direction)
        place = PAST_SEQUENCE if direction == "inputs" else f"{PAST_SEQUENCE} + {SEQUENCE}"
        for layer in range(self.num_layers):
            inputs_or_outputs[f"{name}.{layer}.key"] = {0: BATCH, 2: place}
            inputs_or_outputs[f"{name}.{layer}.value"] = {0: BATCH, 1 if inverted_values_shape else 2: place}

    @classmethod
    def flatten_output_collection_property(cls, name: str, field: Iterable[Any]) -> dict[str, Any]:
        """Give keys and values names, ``present.{i}.key`` and ``.value``; other outputs as :class:`OnnxConfig`."""
        if name not in NAMES.values():
            return super().flatten_output_collection_property(name, field)
        return flat_by_layer(name, field, cls._parts_of_a_layer())

    @classmethod
    def _parts_of_a_layer(cls) -> Sequence[str]:
        """Return the names of what a layer keeps, in order."""
        return ("key", "value")


def name_in(direction: str) -> str:
    """Return what keys and values are called among inputs or outputs.

    Raises:
        ValueError: If the direction is neither.
    """
    if direction not in NAMES:
        raise ValueError(f"direction must be 'inputs' or 'outputs', got {direction!r:.80}")
    return NAMES[direction]


def flat_by_layer(name: str, field: Iterable[Any], parts: Sequence[str]) -> dict[str, Any]:
    """Name what layers keep.

    Args:
        name: Of the input or output.
        field: For each layer, its parts in order.
        parts: Their names.
    """
    return {
        f"{name}.{layer}.{part}": value
        for layer, values in enumerate(field)
        for part, value in zip(parts, values, strict=True)
    }


def longer_mask(mask: Tensor, past: int) -> Tensor:
    """Put ones for tokens of the past before a mask, (B, T) to (B, P + T)."""
    return torch.cat([torch.ones(mask.shape[0], past, dtype=mask.dtype), mask], dim=1)


def flat_inputs(config: OnnxConfig, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Give nested inputs the names that a graph has, in its order.

    Args:
        config: Of the graph.
        inputs: Of :meth:`OnnxConfig.generate_dummy_inputs`.
    """
    flat: dict[str, Tensor] = {}
    for name, value in inputs.items():
        if isinstance(value, (list, tuple)):
            flat |= config.flatten_output_collection_property(name, value)
        else:
            flat[name] = value
    return {name: flat[name] for name in config.inputs}
