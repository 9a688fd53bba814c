"""What a family of checkpoints is: keys and defaults of its config, a table of names, what may be left aside.

Data and small functions, never a module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sparse_encoder.backbone.config import FieldError, TransformerConfig
from sparse_encoder.backbone.families.pruned import read_pruned_heads
from sparse_encoder.backbone.families.reader import ConfigReader

Rows = tuple[tuple[str, str], ...]
"""Pairs of names (theirs, ours); ``{}`` stands for a layer's number."""

NULLABLE = frozenset({"head_width", "num_kv_heads", "pad_token_id"})
"""Fields that a config may leave open with null."""

HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
WORD_EMBEDDINGS = "backbone.embeddings.word.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Describe one ``model_type``."""

    model_type: str
    class_prefix: str
    """Beginning of every class name in ``architectures``, as ``Bert`` in ``BertForMaskedLM``."""
    head_class: str = "ForMaskedLM"
    """End of the class name of a model with the head."""
    defaults: TransformerConfig
    """What keys stand for when a ``config.json`` leaves them out, and what the family fixes."""
    config_keys: Mapping[str, str]
    """Our fields to the keys of the family's ``config.json``."""
    adjust: Callable[[ConfigReader, TransformerConfig], TransformerConfig]
    """Settle what is not one key for one field, and refuse what is not supported."""
    base_prefix: str
    """What stands before the backbone's names in a checkpoint that has a head, with its dot."""
    backbone_rows: Callable[[TransformerConfig], Rows]
    """Names with the base prefix."""
    head_rows: Rows
    """Names of the head that scores the vocabulary."""
    tagger_rows: Rows = (("classifier.weight", "head.classifier.weight"), ("classifier.bias", "head.classifier.bias"))
    """Names of the head that labels tokens."""
    tagger_dropout_key: str | None = "classifier_dropout"
    """Key of the dropout before its classifier; without it, or where it is null, the dropout behind attention is."""
    tagger_dropout: float | None = None
    """What the key stands for when it is left out; None: the dropout behind attention."""
    transposed: tuple[str, ...] = ()
    """Weights, by our names with ``{}`` for a number, that files hold with rows and columns changed about."""
    decoder_bias_copy: str | None = None
    """A second name under which older files store the decoder's bias."""
    ignored: tuple[str, ...] = ()
    """Patterns of names that a load may leave aside: buffers, and heads that are not ours. With the base prefix."""
    other_keys: Mapping[str, str] = field(default_factory=dict)
    """Names that transformers takes for keys of the family as well, to the keys that its files have."""
    older_architectures: Mapping[str, str] = field(default_factory=dict)
    """Names in ``architectures`` that early files have, and what the same class is called now."""
    pretraining_heads: tuple[str, ...] = ()
    """Architectures beside ``...ForMaskedLM`` that hold a masked-language head."""
    other_prefixes: tuple[str, ...] = ()
    """What may stand in a checkpoint in place of :attr:`base_prefix`."""
    zero_if_absent: tuple[str, ...] = ()
    """Biases of the head, by our names, that files leave out because they are nothing."""
    written_as: str | None = None
    """The ``model_type`` a model is saved as, when transformers knows this one or its spelling not by itself."""
    obsolete_keys: tuple[str, ...] = ()
    """Keys of a config that are not written again beside those of :attr:`config_keys`."""
    older_spelling: Family | None = None
    """The same ``model_type`` in configs of another spelling."""
    marker: str | None = None
    """A key that only the older spelling has."""
    by_config: Callable[[ConfigReader], Family] | None = None
    """Chooses among several namings of one ``model_type`` by another key of the config."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names that other writers use for tensors of the head, and what they are called in the table."""
    is_pair: bool = False
    """Whether there is a decoder that looks at the encoder; their models generate."""
    decoder_names: str | None = None
    """Pattern of the names of the decoder's tensors, which a model of the encoder alone leaves aside."""
    has_encoder_class: bool = True
    """Whether transformers has a class for the encoder of a pair alone."""
    word_copies: tuple[str, ...] = ()
    """Names under which files may hold the word embeddings again, for each stack. With the base prefix."""
    copies_words_if_untied: bool = False
    """Whether transformers has a table for each stack where the head has its own; then each gets the same one."""
    token_defaults: Mapping[str, int] = field(default_factory=dict)
    """Special tokens that generation needs, where a ``config.json`` leaves them out."""
    settled: Callable[[TransformerConfig], Mapping[str, Any]] = lambda _: {}
    """Keys that a pair's ``config.json`` is written with, so that another key's change cannot change their meaning."""

    @property
    def masked_language_architecture(self) -> str:
        """Name that transformers gives a model with the head that scores the vocabulary."""
        return f"{self.class_prefix}{self.head_class}"

    @property
    def is_decoder(self) -> bool:
        """Whether it is a stack that writes by itself, if its config does not make an encoder of it."""
        return self.defaults.causal

    @property
    def tagger_architecture(self) -> str:
        """Name that transformers gives a model that labels tokens."""
        return f"{self.class_prefix}ForTokenClassification"

    @property
    def encoder_architecture(self) -> str:
        """Name that transformers gives the backbone alone."""
        return f"{self.class_prefix}EncoderModel" if self.is_pair else f"{self.class_prefix}Model"

    @property
    def pair_architecture(self) -> str:
        """Name that transformers gives an encoder and a decoder with a head."""
        return f"{self.class_prefix}ForConditionalGeneration"

    def spelled_as(self, reader: ConfigReader) -> Family:
        """Return the family whose keys a config has: this one, or its older spelling."""
        if self.by_config is not None:
            return self.by_config(reader)
        older = self.older_spelling
        if older is None or older.marker is None or not reader.has(older.marker):
            return self
        return self if reader.has(self.config_keys["hidden_size"]) else older

    def spellings(self, name: str) -> tuple[str, ...]:
        """Return what a tensor of a file may be called in the table: as it is, or with the base prefix before it."""
        bare = (name, *(name.removeprefix(prefix) for prefix in self.other_prefixes if name.startswith(prefix)))
        return (self.renamed.get(name, name), *(self.base_prefix + rest for rest in bare))

    def read(self, reader: ConfigReader) -> TransformerConfig:
        """Read a config.

        Raises:
            ConfigError: If a value is of the wrong type, out of range or not supported.
        """
        reader = self._own_keys(reader)
        values: dict[str, Any] = {  # Any: each has the type of its field's default
            field: reader.like(key, getattr(self.defaults, field), nullable=field in NULLABLE)
            for field, key in self.config_keys.items()
        }
        try:
            config = self.adjust(reader, replace(self.defaults, **values))
            return replace(config, pruned_heads=read_pruned_heads(reader, config.num_layers))
        except FieldError as error:
            raise reader.error(self.config_keys.get(error.field, error.field), error.rule) from error

    def _own_keys(self, reader: ConfigReader) -> ConfigReader:
        """Return a reader that finds under the family's own keys what a config says under other names of theirs."""
        found = {other: own for other, own in self.other_keys.items() if reader.has(other)}
        for other, own in found.items():
            if reader.has(own) and reader.values[own] != reader.values[other]:
                both = f"{own} is {reader.values[own]!r:.100}, and {other} {reader.values[other]!r:.100}"
                raise reader.error(other, f"is another name of {own}, and they differ: {both}; leave one of them out")
        own_values = {own: reader.values[other] for other, own in found.items()}
        if self.says_no_padding(reader.values):
            own_values["pad_token_id"] = None
        return ConfigReader({**reader.values, **own_values}, reader.path) if own_values else reader

    def says_no_padding(self, values: Mapping[str, Any]) -> bool:  # Any: parsed JSON
        """Return whether a decoder's config has -1 for the padding, as early conversions of Llama do for none."""
        return self.is_decoder and values.get("pad_token_id") == -1

    def architectures(self, reader: ConfigReader) -> tuple[str, ...]:
        """Return the names in ``architectures`` as they are today."""
        return tuple(self.older_architectures.get(name, name) for name in reader.texts("architectures") or ())

    def check_architectures(self, reader: ConfigReader) -> None:
        """Look at the names in ``architectures``.

        Raises:
            ConfigError: If one is not of this family: code of its own may compute something else with these weights.
        """
        bare = {f"{self.class_prefix}Model", *((self.encoder_architecture,) if self.has_encoder_class else ())}
        headed = self.pair_architecture if self.is_pair else self.masked_language_architecture
        for name in self.architectures(reader):
            known = sorted((*bare, headed, *self.pretraining_heads))
            if name not in known and not name.startswith(f"{self.class_prefix}For"):
                raise reader.error("architectures", f"unknown architecture {name!r}; choose from {known}")


def weights_and_biases(modules: Sequence[tuple[str, str]]) -> Rows:
    """Make rows for the weight and the bias of every pair of module names."""
    return tuple((f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in modules for kind in ("weight", "bias"))


def as_read(_: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Return the config, for families where one key stands for one field and nothing has to be refused."""
    return config


def always(rows: Rows) -> Callable[[TransformerConfig], Rows]:
    """Return a function for families whose names do not depend on the config."""

    def same(_: TransformerConfig) -> Rows:
        return rows

    return same
