"""Layers that see only tokens nearby, in the configs of Llama's relatives, and how files name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparse_encoder.backbone.config import LARGEST, LayerType, TransformerConfig
from sparse_encoder.backbone.families.llama import read_llama
from sparse_encoder.backbone.families.reader import ConfigReader

LAYER_TYPES: dict[str, LayerType] = {"full_attention": "global", "sliding_attention": "local"}


def read_mistral(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Read ``sliding_window``, which holds for every layer; null for none."""
    config = read_llama(reader, config)
    window = _window(reader, causal=config.causal)
    if window is None:
        return config
    types: tuple[LayerType, ...] = ("local",)
    return replace(config, local_window=window, layer_types=types * config.num_layers)


def read_qwen(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Read ``layer_types``, or, where they are left out, from which layer on the window holds."""
    config = read_llama(reader, config)
    window = _window(reader, causal=config.causal) if reader.flag("use_sliding_window", False) else None
    names = reader.texts("layer_types")
    types: tuple[LayerType, ...]
    if names is None:
        first = reader.integer("max_window_layers", 28, 1 << 20)
        if window is None:
            return config
        types = tuple("local" if at >= first else "global" for at in range(config.num_layers))
        return replace(config, local_window=window, layer_types=types)
    types = named_layer_types(reader, names)
    if window is None and "sliding_attention" in names:
        raise reader.error("layer_types", "must not name sliding_attention while use_sliding_window is false")
    return replace(config, local_window=window or 0, layer_types=types)


def named_layer_types(reader: ConfigReader, names: Sequence[str]) -> tuple[LayerType, ...]:
    """Return the types of layers that a file names one by one.

    Raises:
        ConfigError: If one is unknown.
    """
    if unknown := sorted(set(names) - set(LAYER_TYPES)):
        raise reader.error("layer_types", f"unknown layer types {unknown}; choose from {sorted(LAYER_TYPES)}")
    return tuple(LAYER_TYPES[name] for name in names)


def _window(reader: ConfigReader, *, causal: bool) -> int | None:
    """Return the largest distance that is seen; of a causal model, files count the token that looks as well."""
    given = "sliding_window" in reader.values and not reader.has("sliding_window")
    return None if given else reader.count("sliding_window", 4096, LARGEST["local_window"]) - causal
