"""What export configurations ask of a model's configuration, of whichever kind that is. Knows nothing of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparse_encoder.backbone import TransformerConfig
from sparse_encoder.backbone.families import read_config


class Overriding(AttributeError):
    """A configuration lacks what a graph needs.

    Args:
        what: In words.
        name: Of the property to override.
    """

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"the model's configuration does not say {what}; override the property {name!r}")


class SettableConfig:
    """A frozen configuration as graphs see it: a value that is set shows here, and the model's stays as it is.

    Configurations of graphs set ``pad_token_id`` in this way where a model has none.

    Args:
        config: The configuration.
    """

    def __init__(self, config: TransformerConfig) -> None:
        self._frozen = config

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what the configuration holds
        """Return what was not set, as the configuration has it."""
        if name.startswith("_"):  # a copy asks before it has anything
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._frozen, name)


def plain_config(config: Any) -> Any:  # noqa: ANN401 - TransformerConfig, or any object with such attributes
    """Return a configuration whose values are attributes, which can be set.

    Args:
        config: A :class:`TransformerConfig`, the content of a ``config.json``, or any object with attributes.

    Raises:
        ConfigError: If the content of a file is that of no known family.
    """
    found = read_config(config) if isinstance(config, Mapping) else config
    return SettableConfig(found) if isinstance(found, TransformerConfig) else found


def first_of(config: Any, *names: str) -> Any:  # noqa: ANN401 - as above
    """Return the first value that is there and not None, else None."""
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def layers_of(config: Any) -> int:  # noqa: ANN401 - as above
    """Return how many layers keep keys and values.

    Raises:
        AttributeError: If it is not known.
    """
    if (steps := first_of(config, "steps")) is not None:  # of the library's own
        return len(steps)
    count = first_of(config, "num_layers", "num_hidden_layers", "n_layer")
    if count is None:
        raise Overriding("how many layers there are", "num_layers")
    return int(count)


def heads_of(config: Any) -> int:  # noqa: ANN401 - as above
    """Return how many heads of keys and values a layer has: those that several heads of queries share, once.

    Raises:
        AttributeError: If it is not known.
    """
    count = first_of(config, "num_kv_heads", "num_key_value_heads", "num_heads", "num_attention_heads", "n_head")
    if count is None:
        raise Overriding("how many attention heads there are", "num_attention_heads")
    return int(count)


def head_width_of(config: Any) -> int:  # noqa: ANN401 - as above
    """Return the width of a head, which may be another than hidden size by heads.

    Raises:
        AttributeError: If it is not known.
    """
    width = first_of(config, "head_size", "head_dim", "d_kv")
    if width is not None:
        return int(width)
    hidden = first_of(config, "hidden_size", "d_model", "n_embd")
    heads = first_of(config, "num_heads", "num_attention_heads", "n_head", "decoder_attention_heads")
    if hidden is None or heads is None:
        raise Overriding("how wide an attention head is", "head_width")
    return int(hidden) // int(heads)
