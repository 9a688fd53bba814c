"""Sizes of axes and of weights, under the name of the module that scripts for transformers import them from."""

from __future__ import annotations

from enum import Enum

from sparse_encoder.checkpoint.graph_names import LARGEST_BYTES

EXTERNAL_DATA_FORMAT_SIZE_LIMIT = LARGEST_BYTES
"""Bytes of weights from which on they lie in a file beside the graph."""


class ParameterFormat(Enum):
    """In what weights are written; the value is the bytes of a number."""

    Float = 4

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return self.value


def compute_effective_axis_dimension(dimension: int, fixed_dimension: int, num_token_to_add: int = 0) -> int:
    """Return how many tokens of its own an example has on an axis.

    Args:
        dimension: What is asked for; zero and below for an axis of any length.
        fixed_dimension: What such an axis has in an example.
        num_token_to_add: Special tokens, which are counted in both.
    """
    return (fixed_dimension if dimension <= 0 else dimension) - num_token_to_add


def compute_serialized_parameters_size(num_parameters: int, dtype: ParameterFormat) -> int:
    """Return how many bytes weights take.

    Args:
        num_parameters: How many numbers there are.
        dtype: In what they are written.
    """
    return num_parameters * dtype.size
