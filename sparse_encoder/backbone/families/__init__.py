"""The families of checkpoints that can be read and written: one small file per ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.albert import ALBERT
from sparse_encoder.backbone.families.bart import BART
from sparse_encoder.backbone.families.bert import BERT
from sparse_encoder.backbone.families.deberta import DEBERTA_V2
from sparse_encoder.backbone.families.distilbert import DISTILBERT
from sparse_encoder.backbone.families.electra import ELECTRA
from sparse_encoder.backbone.families.family import Family
from sparse_encoder.backbone.families.gpt2 import GPT2
from sparse_encoder.backbone.families.gte import GTE, NEW
from sparse_encoder.backbone.families.llama import EUROBERT, LLAMA
from sparse_encoder.backbone.families.mistral import MISTRAL
from sparse_encoder.backbone.families.modernbert import MODERNBERT
from sparse_encoder.backbone.families.mpnet import MPNET
from sparse_encoder.backbone.families.nomic_bert import NOMIC_BERT
from sparse_encoder.backbone.families.qwen import QWEN2, QWEN3
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from sparse_encoder.backbone.families.rotary import rope_parameters
from sparse_encoder.backbone.families.t5 import MT5, T5

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        ALBERT,
        BERT,
        CAMEMBERT,
        DEBERTA_V2,
        DISTILBERT,
        ELECTRA,
        GTE,
        MODERNBERT,
        MPNET,
        NEW,
        NOMIC_BERT,
        ROBERTA,
        XLM_ROBERTA,
    )
}
"""Encoders."""

DECODER_FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (EUROBERT, GPT2, LLAMA, MISTRAL, QWEN2, QWEN3)
}
"""Stacks that write by themselves, and encoders that are made of their parts."""

SEQ2SEQ_FAMILIES: dict[str, Family] = {family.model_type: family for family in (BART, MT5, T5)}
"""An encoder, and a decoder that looks at it."""

ALL_FAMILIES: dict[str, Family] = {**FAMILIES, **DECODER_FAMILIES, **SEQ2SEQ_FAMILIES}
ENCODING_FAMILIES: dict[str, Family] = {
    name: family for name, family in ALL_FAMILIES.items() if family.has_encoder_class
}
"""Those whose encoder, or only stack, can be saved by itself."""


def family_of(hf_config: Mapping[str, Any], path: Path | None = None) -> Family:  # Any: parsed JSON
    """Return the family that a ``config.json`` names.

    Args:
        hf_config: The parsed file.
        path: Where it came from, for errors.

    Raises:
        ConfigError: If ``model_type`` is none of ours, or one of ``architectures`` none of the family's.
    """
    reader = ConfigReader(hf_config, path)
    model_type = reader.text("model_type", "")
    if model_type not in ALL_FAMILIES:
        raise reader.error("model_type", f"unknown model type {model_type!r}; choose from {sorted(ALL_FAMILIES)}")
    ALL_FAMILIES[model_type].check_architectures(reader)
    return ALL_FAMILIES[model_type].spelled_as(reader)


def read_config(hf_config: Mapping[str, Any], path: Path | None = None) -> TransformerConfig:
    """Read a ``config.json`` by the rules of its family; keys that would load code are named in one warning.

    Args:
        hf_config: The parsed file.
        path: Where it came from, for errors.

    Raises:
        ConfigError: If the family is unknown, or a value is of the wrong type, out of range or not supported.
    """
    family, reader = family_of(hf_config, path), ConfigReader(hf_config, path)
    reader.warn_of_dangerous_keys()
    return family.read(reader)


def respell(hf_config: Mapping[str, Any], config: TransformerConfig) -> dict[str, Any]:
    """Return a ``config.json`` as it is written again: in the family's newest name and spelling.

    Args:
        hf_config: The parsed file.
        config: What was read from it.

    Raises:
        ConfigError: As :func:`family_of`.
    """
    family = family_of(hf_config)
    if family.written_as is None:
        return {**hf_config, "pad_token_id": None} if family.says_no_padding(hf_config) else dict(hf_config)
    newest = FAMILIES[family.written_as]
    left_out = {"rope_theta", *family.config_keys.values(), *family.obsolete_keys}
    written = {key: value for key, value in hf_config.items() if key not in left_out}
    written |= {key: getattr(config, field) for field, key in newest.config_keys.items() if field != "rotary_theta"}
    names = ConfigReader(hf_config).texts("architectures")
    if names is not None:
        written["architectures"] = [newest.class_prefix + name.removeprefix(family.class_prefix) for name in names]
    return {**written, "model_type": newest.model_type, "rope_parameters": rope_parameters(config)}


def architecture_is_masked_language(hf_config: Mapping[str, Any], path: Path | None = None) -> bool:
    """Return whether a ``config.json`` promises a head that scores the vocabulary at every token, a decoder's too.

    Args:
        hf_config: The parsed file.
        path: Where it came from, for errors.

    Raises:
        ConfigError: As :func:`family_of`.
    """
    family = family_of(hf_config, path)
    with_head = {family.masked_language_architecture, *family.pretraining_heads}
    return not with_head.isdisjoint(family.architectures(ConfigReader(hf_config, path)))


__all__ = [
    "ALL_FAMILIES",
    "DECODER_FAMILIES",
    "ENCODING_FAMILIES",
    "FAMILIES",
    "SEQ2SEQ_FAMILIES",
    "Family",
    "architecture_is_masked_language",
    "family_of",
    "read_config",
    "respell",
]
