"""What a family of checkpoints is: a config reader, a table of names, and what may be left aside. Never a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.reader import ConfigReader

Rows = tuple[tuple[str, str], ...]
"""Pairs of names (theirs, ours); ``{}`` stands for a layer's number."""

HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
WORD_EMBEDDINGS = "backbone.embeddings.word.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Describe one ``model_type``."""

    model_type: str
    class_prefix: str
    """Beginning of every class name in ``architectures``, as ``Bert`` in ``BertForMaskedLM``."""
    base_prefix: str
    """What stands before the backbone's names in a checkpoint that has a head, with its dot."""
    read_config: Callable[[ConfigReader], TransformerConfig]
    config_names: Mapping[str, str]
    """Our fields to the keys of the family's ``config.json``, where they differ; errors name the latter."""
    backbone_rows: Callable[[TransformerConfig], Rows]
    """Names with the base prefix."""
    head_rows: Rows
    """Names of the masked-language head, decoder included."""
    decoder_bias_copy: str | None = None
    """A second name under which older files store the decoder's bias."""
    ignored: tuple[str, ...] = ()
    """Patterns of names that a load may leave aside: buffers, and heads that are not ours. With the base prefix."""
    pretraining_heads: tuple[str, ...] = ()
    """Architectures beside ``...ForMaskedLM`` that hold a masked-language head."""

    @property
    def masked_language_architecture(self) -> str:
        """Name that transformers gives a model with the masked-language head."""
        return f"{self.class_prefix}ForMaskedLM"

    @property
    def encoder_architecture(self) -> str:
        """Name that transformers gives the backbone alone."""
        return f"{self.class_prefix}Model"


def weights_and_biases(modules: Sequence[tuple[str, str]]) -> Rows:
    """Make rows for the weight and the bias of every pair of module names."""
    return tuple((f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in modules for kind in ("weight", "bias"))


def always(rows: Rows) -> Callable[[TransformerConfig], Rows]:
    """Return a function for families whose names do not depend on the config."""

    def same(_: TransformerConfig) -> Rows:
        return rows

    return same
