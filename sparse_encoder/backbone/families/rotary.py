"""Rotary positions in a `config.json`, in the spellings of transformers 4 and 5. Knows no family.

transformers 5: ``rope_parameters`` holds everything. transformers 4: ``rope_theta`` and, when scaled, ``rope_scaling``;
that counts more, as it does there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import log
from typing import Any

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.rope_scaling import LARGEST_FACTOR, LARGEST_LENGTH, Llama3Scaling, YarnScaling

_ORIGINAL = "original_max_position_embeddings"


def read_rotation(
    reader: ConfigReader, config: TransformerConfig, *, kinds: Collection[str] = ("default", "linear")
) -> TransformerConfig:
    r"""Settle base and stretch of the angles.

    .. math:: \theta, s = \theta_0, 1 \text{ (default)};\quad \theta_0, f \text{ (linear)};\quad
        f \theta_0, f^{2/K} \text{ (ntk)}

    Linear scaling is that of transformers. NTK scaling is the fixed one: its longest wave is ``f`` times as long, its
    shortest :math:`f^{2/K}` times. Kinds ``llama3`` and ``yarn`` are
    :class:`Llama3Scaling` and :class:`YarnScaling`.
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
    if not rope.has("factor"):
        raise rope.error("factor", f"must be given for rotary positions of type {kind!r}")
    if kind in ("llama3", "yarn"):
        place = reader if reader.has(_ORIGINAL) else rope
        original = place.count(_ORIGINAL, config.max_positions, LARGEST_LENGTH)
        read = _llama3 if kind == "llama3" else _yarn
        try:
            return replace(config, rotary_scaling=read(rope, config, original))
        except ValueError as reason:
            raise rope.error("rope_scaling", f"is out of range: {reason}") from reason
    factor = rope.real("factor", 1.0)
    if not 1 <= factor <= LARGEST_FACTOR:
        raise rope.error("factor", f"must be between 1 and {LARGEST_FACTOR}, got {factor}")
    if kind == "linear":
        return replace(config, rotary_stretch=factor)
    return replace(config, rotary_theta=config.rotary_theta * factor, rotary_stretch=factor ** (2 / config.head_size))


def _llama3(rope: ConfigReader, _: TransformerConfig, original: int) -> Llama3Scaling:
    for key in ("low_freq_factor", "high_freq_factor"):
        if not rope.has(key):
            raise rope.error(key, "must be given for rotary positions of type 'llama3'")
    return Llama3Scaling(
        factor=rope.real("factor", 1.0),
        low_frequency=rope.real("low_freq_factor", 1.0),
        high_frequency=rope.real("high_freq_factor", 4.0),
        original_max_positions=original,
    )


def _yarn(rope: ConfigReader, config: TransformerConfig, original: int) -> YarnScaling:
    """Read what there is; the amplitude that is not given is that of the paper, equation 22, or of DeepSeek."""
    if config.rotary_theta <= 1:
        raise rope.error(
            "rope_theta", f"must be above 1 for rotary positions of type 'yarn', got {config.rotary_theta}"
        )
    factor = rope.real("factor", 1.0)
    given = {key: rope.real(key, 0.0) for key in ("attention_factor", "mscale", "mscale_all_dim") if rope.has(key)}
    amplitude = given.get("attention_factor")
    if amplitude is None:
        weight, weight_of_all = given.get("mscale", 0.0), given.get("mscale_all_dim", 0.0)
        amplitude = _grown(factor)
        if weight and weight_of_all:
            amplitude = _grown(factor, weight) / (_grown(factor, weight_of_all) or float("nan"))
    return YarnScaling(
        factor=factor,
        amplitude=amplitude,
        original_max_positions=original,
        fast=(rope.real("beta_fast", 32.0) if rope.has("beta_fast") else 0.0) or 32.0,
        slow=(rope.real("beta_slow", 1.0) if rope.has("beta_slow") else 0.0) or 1.0,
        whole_features=rope.flag("truncate", True),
    )


def _grown(factor: float, weight: float = 1.0) -> float:
    r"""Return :math:`1 + 0.1 w \ln s`, by which attention is sharper in longer texts."""
    return 1.0 if factor <= 1 else 0.1 * weight * log(factor) + 1.0


def rope_parameters(config: TransformerConfig) -> dict[str, Any]:
    """Return what transformers 5 calls the base and stretch of a config."""
    if config.rotary_stretch == 1:
        return {"rope_type": "default", "rope_theta": config.rotary_theta}
    return {"rope_type": "linear", "rope_theta": config.rotary_theta, "factor": config.rotary_stretch}
