"""Export and comparison under the name of the module that scripts for transformers import them from."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from sparse_encoder.export.documented import export, matching_inputs, validate_model_outputs

__all__ = ["ensure_model_and_config_inputs_match", "export", "validate_model_outputs"]


def ensure_model_and_config_inputs_match(model: nn.Module, model_inputs: Iterable[str]) -> tuple[bool, list[str]]:
    """Say whether a model takes arguments of these names, and which of them in the order of its ``forward``.

    Args:
        model: The model.
        model_inputs: The names.
    """
    names = list(model_inputs)
    found = matching_inputs(model, names)
    return len(found) == len(set(names)), found
