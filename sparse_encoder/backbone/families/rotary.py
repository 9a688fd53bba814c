"""Rotary positions in a `config.json`, in the spellings of transformers 4 and 5. Knows no family.

transformers 5: ``rope_parameters`` holds everything. transformers 4: ``rope_theta`` and, when scaled, ``rope_scaling``;
that counts more, as it does there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.rope import Llama3Scaling


def read_rotation(
    reader: ConfigReader, config: TransformerConfig, *, kinds: Collection[str] = ("default", "linear")
) -> TransformerConfig:
    r"""Settle base and stretch of the angles.

    .. math:: \theta, s = \theta_0, 1 \text{ (default)};\quad \theta_0, f \text{ (linear)};\quad
        f \theta_0, f^{2/K} \text{ (ntk)}

    Linear scaling is that of transformers. NTK scaling is the fixed one: its longest wave is ``f`` times as long, its
    shortest :math:`f^{2/K}` times. Kind ``llama3`` is :class:`Llama3Scaling`.
    Source: Su, 2023, https://kexue.fm/archives/9706, equation 6.

    Args:
        reader: The file.
        config: What was read so far; its ``rotary_theta`` is the base when the sections name none.
        kinds: Which ways of scaling the family may ask for.

    Raises:
        ConfigError: If a value is of the wrong type or out of range, or asks for scaling of another kind, or for
            rotation of a part of each head.
    """
    rope = reader.section("rope_scaling" if reader.values.get("rope_scaling") else "rope_parameters")
    key = "rope_type" if rope.has("rope_type") else "type"
    kind = rope.text(key, "default")
    if kind not in kinds:
        raise rope.error(key, f"unknown scaling of rotary positions {kind!r}; choose from {sorted(kinds)}")
    for place in (reader, rope):
        place.require("partial_rotary_factor", 1.0, because="heads are rotated in full")
        place.require("mixed_b", None, because="mixed NTK scaling is not supported")
    config = replace(config, rotary_theta=rope.real("rope_theta", config.rotary_theta))
    if kind == "default":
        return config
    if kind == "llama3":
        return replace(config, rotary_scaling=_llama3(rope, config))
    if not rope.has("factor"):
        raise rope.error("factor", f"must be given for rotary positions of type {kind!r}")
    factor = rope.real("factor", 1.0)
    if not 1 <= factor <= 1 << 20:
        raise rope.error("factor", f"must be between 1 and {1 << 20}, got {factor}")
    if kind == "linear":
        return replace(config, rotary_stretch=factor)
    return replace(config, rotary_theta=config.rotary_theta * factor, rotary_stretch=factor ** (2 / config.head_size))


def _llama3(rope: ConfigReader, config: TransformerConfig) -> Llama3Scaling:
    for key in ("factor", "low_freq_factor", "high_freq_factor"):
        if not rope.has(key):
            raise rope.error(key, "must be given for rotary positions of type 'llama3'")
    try:
        return Llama3Scaling(
            factor=rope.real("factor", 1.0),
            low_frequency=rope.real("low_freq_factor", 1.0),
            high_frequency=rope.real("high_freq_factor", 4.0),
            original_max_positions=rope.count("original_max_position_embeddings", config.max_positions, 1 << 24),
        )
    except ValueError as reason:
        raise rope.error("rope_scaling", f"is out of range: {reason}") from reason


def rope_parameters(config: TransformerConfig) -> dict[str, Any]:
    """Return what transformers 5 calls the base and stretch of a config."""
    if config.rotary_stretch == 1:
        return {"rope_type": "default", "rope_theta": config.rotary_theta}
    return {"rope_type": "linear", "rope_theta": config.rotary_theta, "factor": config.rotary_stretch}
