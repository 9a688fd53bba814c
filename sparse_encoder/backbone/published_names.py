"""Answers of a configuration to the names that files use for it, which scripts written for transformers read.

Knows names, and nothing of what they mean.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from sparse_encoder.backbone.config import TransformerConfig

ALIASES = {
    "head_dim": "head_size",
    "max_position_embeddings": "max_positions",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "num_key_value_heads": "kv_heads",
}
"""Names that every configuration of transformers answers to, and ours, for files that use yet others."""

UNSET = ("bos_token_id", "decoder_start_token_id", "eos_token_id")
"""What is None where a file does not say it."""

GENERATION_TOKENS = (*UNSET, "pad_token_id")
"""Tokens that generation takes from its own config."""

_TRANSFORMED = TypeVar("_TRANSFORMED", bound="TransformerConfig")


def published_value(config: TransformerConfig, name: str) -> Any:  # noqa: ANN401 - what a file holds
    """Return what a configuration is asked for by a name that is none of its own.

    Args:
        config: Whose file says more than its fields.
        name: As in a ``config.json``, or as transformers' classes have it for every model.

    Raises:
        AttributeError: If neither the file nor the configuration has it.
    """
    if name.startswith("_") or name == "published":  # a copy asks before it has any field
        raise AttributeError(f"{type(config).__name__} has no attribute {name!r}")
    if name in config.published:
        return config.published[name]
    if name in ALIASES:
        return getattr(config, ALIASES[name])
    if name == "is_encoder_decoder":
        return config.decoder is not None
    if name in UNSET:
        return None
    raise AttributeError(f"the configuration has no {name!r}, and neither had its file: {sorted(config.published)}")


def published_values(config: TransformerConfig) -> dict[str, Any]:  # Any: JSON
    """Return a copy of what the ``config.json`` of a model says."""
    return deepcopy(dict(config.published))


def told_when_changed(kind: type[_TRANSFORMED]) -> type[_TRANSFORMED]:
    """Let a frozen configuration say what to change in its place; for a class behind its ``dataclass``."""

    def refuse(self: _TRANSFORMED, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(
            f"a configuration is not changed once its model is there, got {name}={value!r:.100}: {_repair(name, value)}"
        )

    kind.__setattr__ = refuse  # type: ignore[method-assign, assignment]
    return kind


def _repair(name: str, value: object) -> str:
    if name == "use_cache" or name in GENERATION_TOKENS:
        return f"set it for generation, model.generation_config.{name} = {value!r:.100}, or in the call of generate"
    fields = "set fields of generation on model.generation_config or in the call of generate"
    return f"{fields}, and all others when the model is loaded, from_pretrained(..., {name}=...)"
