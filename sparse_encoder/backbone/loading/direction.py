"""Whether each token of a decoder sees those behind it, where an adapter says so and its base does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.families import family_of
from sparse_encoder.backbone.loading.options import LoadOptions
from sparse_encoder.backbone.loading.origin import CAUSAL_KEY, Origin, find_config


def in_direction_of(adapter: LoraConfig, base: Origin, options: LoadOptions) -> LoadOptions:
    """Return how the base of an adapter is loaded: in the direction that the adapter was made for.

    Args:
        adapter: Of the adapter's file.
        base: Where the base is.
        options: How it would be loaded; a direction that the caller asks for stays.
    """
    if adapter.is_causal is None or CAUSAL_KEY in options.others:
        return options
    found = find_config(base, options)
    if not family_of(found.values, found.path).is_decoder:
        return options
    if isinstance(options.config, Mapping):
        return replace(options, config={CAUSAL_KEY: adapter.is_causal, **options.config})
    if found.values.get(CAUSAL_KEY) is adapter.is_causal:
        return options
    return replace(options, others={**options.others, CAUSAL_KEY: adapter.is_causal})


def as_asked(adapter: LoraConfig, options: LoadOptions) -> LoraConfig:
    """Return an adapter's config without its direction if the caller asks for one."""
    return replace(adapter, auto_mapping=None) if CAUSAL_KEY in options.others else adapter
