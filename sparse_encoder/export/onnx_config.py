"""``OnnxConfig``: inputs, outputs and their axes of a graph, and batches to trace it with.

Neither onnx nor onnxruntime is needed here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET
from sparse_encoder.export.config_facts import first_of, plain_config
from sparse_encoder.export.dummy_inputs import DummyShape, dummy_batch, fixed_size
from sparse_encoder.export.patching import PatchingSpec, found, put
from sparse_encoder.export.tasks import outputs_of
from sparse_encoder.export.utils import (
    EXTERNAL_DATA_FORMAT_SIZE_LIMIT,
    ParameterFormat,
    compute_serialized_parameters_size,
)

if TYPE_CHECKING:
    from packaging.version import Version
    from typing_extensions import Self

OLDEST_TORCH = "2.6"
"""That the library works with, as its package says."""
UNUSED_BY_TEXT = {
    "num_channels": 3,
    "image_width": 40,
    "image_height": 40,
    "sampling_rate": 22050,
    "time_duration": 5.0,
    "frequency": 220,
}
"""Arguments for pictures and sound, and their defaults."""


class OnnxConfig(ABC):
    """Describe the graph of a model for a task.

    Args:
        config: Of the model: a ``TransformerConfig``, the content of a ``config.json``, or any object with attributes.
        task: A name in ``TASKS``.
        patching_specs: What is replaced while the model is exported.

    Raises:
        ValueError: If the task is unknown.
    """

    default_fixed_batch: ClassVar[int] = 2
    default_fixed_sequence: ClassVar[int] = 8
    default_fixed_num_choices: ClassVar[int] = 4
    default_batch_size: ClassVar[int] = default_fixed_batch
    """Texts of a batch to trace with."""
    default_sequence_length: ClassVar[int] = default_fixed_sequence
    """Tokens of each, special ones included."""
    default_num_choices: ClassVar[int] = default_fixed_num_choices
    """Choices of each, for tasks with choices."""
    default_onnx_opset: ClassVar[int] = DEFAULT_OPSET
    """Version of the operators; elsewhere it is 11, which torch does not write any more."""

    def __init__(
        self,
        config: Any,  # noqa: ANN401 - see above
        task: str = "default",
        patching_specs: Sequence[PatchingSpec] | None = None,
    ) -> None:
        outputs_of(task)
        self._config = plain_config(config)
        self._dtype = first_of(config, "dtype", "torch_dtype")
        if isinstance(config, Mapping):
            self._dtype = config.get("dtype", config.get("torch_dtype"))
        self.task = task
        self._patching_specs = found(patching_specs)

    @classmethod
    def from_model_config(cls, config: Any, task: str = "default") -> Self:  # noqa: ANN401 - as the constructor
        """Describe the graph of a model; arguments as the constructor."""
        return cls(config, task=task)

    @property
    @abstractmethod
    def inputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by input, in the order of the model's ``forward``."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by output; a copy of what the task has."""
        return outputs_of(self.task)

    @property
    def torch_onnx_minimum_version(self) -> Version:
        """The oldest torch that can export; needs the package ``packaging``."""
        from packaging.version import Version

        return Version(OLDEST_TORCH)

    @property
    def is_torch_support_available(self) -> bool:
        """Whether the torch that is installed can export."""
        return torch.torch_version.TorchVersion(torch.__version__) >= OLDEST_TORCH

    @property
    def values_override(self) -> dict[str, Any] | None:
        """What the model's configuration holds while it is exported, where it has it; it is put back."""
        return {"use_cache": False} if hasattr(self._config, "use_cache") else None

    @property
    def atol_for_validation(self) -> float:
        """Largest difference that is allowed: 1e-5, and 1e-2 in float16."""
        return 1e-2 if str(self._dtype).removeprefix("torch.") == "float16" else 1e-5

    @staticmethod
    def use_external_data_format(num_parameters: int) -> bool:
        """Say whether float32 weights are too large for one file.

        Args:
            num_parameters: How many numbers there are.
        """
        size = compute_serialized_parameters_size(num_parameters, ParameterFormat.Float)
        return size >= EXTERNAL_DATA_FORMAT_SIZE_LIMIT

    def generate_dummy_inputs(  # house: peer signature
        self,
        preprocessor: Any = None,  # noqa: ANN401 - a tokenizer, ours or of transformers
        batch_size: int = -1,
        seq_length: int = -1,
        num_choices: int = -1,
        is_pair: bool = False,
        framework: str | None = None,
        num_channels: int = 3,
        image_width: int = 40,
        image_height: int = 40,
        sampling_rate: int = 22050,
        time_duration: float = 5.0,
        frequency: int = 220,
        tokenizer: Any = None,  # noqa: ANN401 - the older name of preprocessor
    ) -> dict[str, Any]:
        """Make a batch to trace with: rows of the unknown token between special ones.

        Args:
            preprocessor: The tokenizer; ``tokenizer`` is its older name.
            batch_size: Texts; -1 for :attr:`default_batch_size`.
            seq_length: Tokens, special ones included; -1 for :attr:`default_sequence_length`.
            num_choices: For tasks with choices; -1 for :attr:`default_num_choices`.
            is_pair: Whether each row is two texts.
            framework: ``"pt"`` or None.
            num_channels: For pictures; must be left as it is, and so those that follow.
            image_width: Likewise.
            image_height: Likewise.
            sampling_rate: Likewise, for sound.
            time_duration: Likewise.
            frequency: Likewise.
            tokenizer: The older name of ``preprocessor``.

        Returns:
            Tensors by input, (B, T) int64; for tasks with choices (B, C, T).

        Raises:
            TypeError: If a size is no integer.
            ValueError: If another framework is asked for, an argument is for pictures or sound, a size is too small, or
                there is not one tokenizer.
        """
        values = (num_channels, image_width, image_height, sampling_rate, time_duration, frequency)
        given = dict(zip(UNUSED_BY_TEXT, values, strict=True))
        if changed := [name for name, default in UNUSED_BY_TEXT.items() if given[name] != default]:
            raise ValueError(f"{changed[0]} is for pictures or sound, and this model reads texts; leave it out")
        check_framework(framework)
        choices = fixed_size(num_choices, self.default_num_choices) if self.task == "multiple-choice" else None
        shape = DummyShape(
            batch_size=fixed_size(batch_size, self.default_batch_size),
            num_tokens=fixed_size(seq_length, self.default_sequence_length),
            num_choices=choices,
            is_pair=is_pair,
        )
        batch = dummy_batch(one_preprocessor(preprocessor, tokenizer), shape)
        return {name: tensor for name, tensor in batch.items() if name in self._text_inputs()}

    def _text_inputs(self) -> Iterable[str]:
        """Return which inputs a tokenizer makes."""
        return self.inputs

    def generate_dummy_inputs_onnxruntime(self, reference_model_inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn inputs of the model into those of the graph, where they differ; to be overridden."""
        return reference_model_inputs

    @classmethod
    def flatten_output_collection_property(cls, name: str, field: Iterable[Any]) -> dict[str, Any]:
        """Give each item of nested outputs a name.

        Args:
            name: Of the output.
            field: Collections of items.

        Returns:
            ``{"name.0": first, "name.1": second, ...}``.
        """
        return {f"{name}.{number}": item for number, item in enumerate(chain.from_iterable(field))}

    def patch_ops(self) -> None:
        """Put in what ``patching_specs`` says."""
        for spec in self._patching_specs:
            put(spec, spec.custom_op)

    def restore_ops(self) -> None:
        """Put back what was there."""
        for spec in self._patching_specs:
            put(spec, spec.orig_op)


def check_framework(framework: object) -> None:
    """Refuse what is not torch.

    Raises:
        ValueError: If it is neither None nor ``"pt"``.
    """
    if framework not in (None, "pt"):
        raise ValueError(f"framework must be 'pt', as models of the library are torch's, got {framework!r:.80}")


def one_preprocessor(preprocessor: Any, tokenizer: Any) -> Any:  # noqa: ANN401 - of any kind
    """Return the tokenizer under its name or the older one.

    Raises:
        ValueError: If both are given, or none.
    """
    if (preprocessor is None) == (tokenizer is None):
        raise ValueError("give preprocessor; tokenizer is its older name, and only one of them can be given")
    return tokenizer if preprocessor is None else preprocessor
