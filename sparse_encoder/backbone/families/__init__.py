"""The families of checkpoints that can be read and written: one small file per ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_encoder.backbone.config import FieldError, TransformerConfig
from sparse_encoder.backbone.families.bert import BERT
from sparse_encoder.backbone.families.family import Family
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.checkpoint.errors import ConfigError

FAMILIES: dict[str, Family] = {family.model_type: family for family in (BERT,)}


def family_of(hf_config: Mapping[str, Any], path: Path | None = None) -> Family:  # Any: parsed JSON
    """Return the family that a ``config.json`` names.

    Args:
        hf_config: The parsed file.
        path: Where it came from, for errors.

    Raises:
        ConfigError: If ``model_type`` or one of ``architectures`` is none of ours.
    """
    reader = ConfigReader(hf_config, path)
    model_type = reader.text("model_type", "")
    if model_type not in FAMILIES:
        raise reader.error("model_type", f"unknown model type {model_type!r}; choose from {sorted(FAMILIES)}")
    family = FAMILIES[model_type]
    known = (family.encoder_architecture, f"{family.class_prefix}For")
    for name in reader.texts("architectures") or ():
        if name != known[0] and not name.startswith(known[1]):
            raise reader.error(
                "architectures",
                f"unknown architecture {name!r} of model type {model_type!r}; choose from "
                f"{sorted((family.encoder_architecture, family.masked_language_architecture))}",
            )
    return family


def read_config(hf_config: Mapping[str, Any], path: Path | None = None) -> TransformerConfig:
    """Read a ``config.json`` by the rules of its family.

    Args:
        hf_config: The parsed file.
        path: Where it came from, for errors.

    Raises:
        ConfigError: If the family is unknown, or a value is of the wrong type or out of range.
    """
    family, reader = family_of(hf_config, path), ConfigReader(hf_config, path)
    reader.warn_of_dangerous_keys()
    try:
        return family.read_config(reader)
    except FieldError as error:
        raise ConfigError(error.rule, path=path, field=family.config_names.get(error.field, error.field)) from error


def architecture_is_masked_language(hf_config: Mapping[str, Any], path: Path | None = None) -> bool:
    """Return whether a ``config.json`` promises a masked-language head.

    Raises:
        ConfigError: As :func:`family_of`.
    """
    family = family_of(hf_config, path)
    with_head = {family.masked_language_architecture, *family.pretraining_heads}
    return not with_head.isdisjoint(ConfigReader(hf_config, path).texts("architectures") or ())


__all__ = ["FAMILIES", "Family", "architecture_is_masked_language", "family_of", "read_config"]
