"""DeBERTa v2 and v3: attention that scores contents and places apart.

The two share a ``model_type``; the third version is another pretraining. Of its masked-language head there are two
namings: ``legacy`` ones as BERT's, and those of Microsoft's own files, which are read under either setting.
"""

from __future__ import annotations

import re
from dataclasses import replace

from sparse_encoder.backbone.config import LARGEST, TransformerConfig
from sparse_encoder.backbone.convolution import LARGEST_WINDOW, ConvolutionConfig
from sparse_encoder.backbone.disentangled import LARGEST_DISTANCE, DisentangledConfig
from sparse_encoder.backbone.families.bert import BERT, BERT_DEFAULTS, BERT_KEYS, bert_rows
from sparse_encoder.backbone.families.family import Family, Rows, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.feed_forward import ACTIVATIONS

_TERMS = ("c2p", "p2c")
_POSITIONS = re.compile(r"deberta\.embeddings\.position_embeddings\.weight")


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    reader.require("attention_head_size", config.head_size, because="heads are as wide as the hidden size allows")
    if not reader.flag("legacy", True):
        reader.require("embedding_size", config.hidden_size, because="the head reads the hidden size")
        config = replace(config, tie_word_embeddings=True)  # whatever the config says, this head has no decoder
    return replace(
        config,
        position_kind="absolute" if reader.flag("position_biased_input", True) else "none",
        disentangled=_disentangled(reader, config),
        convolution=_convolution(reader, config),
    )


def _disentangled(reader: ConfigReader, config: TransformerConfig) -> DisentangledConfig | None:
    terms, normed = _terms(reader), _norms_table(reader)
    if not reader.flag("relative_attention", False):
        if terms or normed:
            raise reader.error("relative_attention", "must be true for pos_att_type and norm_rel_ebd to mean something")
        return None
    if not terms:
        raise reader.error("pos_att_type", f"must name any of {list(_TERMS)} where relative_attention is true")
    buckets = reader.integer("position_buckets", -1, LARGEST_DISTANCE)
    if buckets > 0 and buckets % 2:
        raise reader.error("position_buckets", f"must be even, got {buckets}")
    distance = reader.integer("max_relative_positions", -1, LARGEST_DISTANCE)
    return DisentangledConfig(
        content_to_position="c2p" in terms,
        position_to_content="p2c" in terms,
        max_distance=distance if distance > 0 else min(config.max_positions, LARGEST_DISTANCE),
        num_buckets=max(buckets, 0),
        norm=normed,
        shared_projections=reader.flag("share_att_key", False),
        dropout=config.embedding_dropout,
    )


def _terms(reader: ConfigReader) -> set[str]:
    """Read ``pos_att_type``: a list, or one string with bars between."""
    return _listed(reader, "pos_att_type", _TERMS)


def _norms_table(reader: ConfigReader) -> bool:
    return bool(_listed(reader, "norm_rel_ebd", ("layer_norm",)))


def _listed(reader: ConfigReader, name: str, known: tuple[str, ...]) -> set[str]:
    value = reader.values.get(name)
    names = value.split("|") if isinstance(value, str) else reader.texts(name) or ()
    found = {item.strip().lower() for item in names} - {"", "none"}
    if not found <= set(known):
        raise reader.error(name, f"unknown {sorted(found - set(known))}; choose from {list(known)}")
    return found


def _convolution(reader: ConfigReader, config: TransformerConfig) -> ConvolutionConfig | None:
    window = reader.integer("conv_kernel_size", 0, LARGEST_WINDOW)
    if window <= 0:
        return None
    if window % 2 == 0:
        raise reader.error("conv_kernel_size", f"must be odd, got {window}")
    groups = reader.count("conv_groups", 1, LARGEST["hidden_size"])
    if config.hidden_size % groups:
        raise reader.error("conv_groups", f"must divide the hidden size {config.hidden_size}, got {groups}")
    activation = reader.text("conv_act", "tanh")
    if activation not in ACTIVATIONS:
        raise reader.error("conv_act", f"must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
    return ConvolutionConfig(window=window, groups=groups, activation=activation, dropout=config.embedding_dropout)


def _backbone_rows(config: TransformerConfig) -> Rows:
    """Return the names; without a position table files may hold one, which is then left aside."""
    attention, ours = "deberta.encoder.layer.{}.attention.self", "backbone.layers.{}.attention.positions"
    rows = (
        *bert_rows("deberta.", suffix="_proj"),
        ("deberta.embeddings.embed_proj.weight", "backbone.embeddings.projection.weight"),
        ("deberta.encoder.rel_embeddings.weight", "backbone.relative_positions.table.weight"),
        *weights_and_biases(
            [
                ("deberta.encoder.LayerNorm", "backbone.relative_positions.norm"),
                (f"{attention}.pos_key_proj", f"{ours}.k"),
                (f"{attention}.pos_query_proj", f"{ours}.q"),
                ("deberta.encoder.conv.conv", "backbone.convolution.convolution"),
                ("deberta.encoder.conv.LayerNorm", "backbone.convolution.norm"),
            ]
        ),
    )
    return tuple(row for row in rows if config.position_kind == "absolute" or not _POSITIONS.fullmatch(row[0]))


def _by_head(reader: ConfigReader) -> Family:
    return DEBERTA_V2 if reader.flag("legacy", True) else _NEWER


_NEWER_HEAD: Rows = (
    *weights_and_biases(
        [("lm_predictions.lm_head.dense", "head.dense"), ("lm_predictions.lm_head.LayerNorm", "head.norm")]
    ),
    ("lm_predictions.lm_head.decoder.weight", "head.weight"),  # no file has it: it is the word embeddings
    ("lm_predictions.lm_head.bias", "head.bias"),
)
_TO_NEWER = {theirs: newer for theirs, ours in BERT.head_rows for newer, same in _NEWER_HEAD if same == ours}
DEBERTA_V2 = Family(
    model_type="deberta-v2",
    class_prefix="DebertaV2",
    tagger_dropout_key=None,
    defaults=replace(
        BERT_DEFAULTS,
        vocab_size=128100,
        hidden_size=1536,
        num_layers=24,
        num_heads=24,
        intermediate_size=6144,
        num_token_types=0,
        norm_eps=1e-7,
        norm_after_projection=True,
        projection_bias=False,
    ),
    config_keys={**BERT_KEYS, "head_activation": "hidden_act", "embedding_size": "embedding_size"},
    adjust=_adjust,
    base_prefix="deberta.",
    backbone_rows=_backbone_rows,
    head_rows=BERT.head_rows,
    renamed={newer: theirs for theirs, newer in _TO_NEWER.items()},
    by_config=_by_head,
    decoder_bias_copy=BERT.decoder_bias_copy,
    ignored=(
        r"deberta\.embeddings\.(position_ids|position_embeddings\.weight)",
        r"(deberta\.)?pooler\.dense\.(weight|bias)",
        r"mask_predictions\.(dense|LayerNorm|classifier)\.(weight|bias)",
    ),
)
_NEWER = replace(DEBERTA_V2, head_rows=_NEWER_HEAD, renamed=_TO_NEWER, by_config=None, decoder_bias_copy=None)
