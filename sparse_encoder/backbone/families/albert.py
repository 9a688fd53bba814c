"""ALBERT: narrow embeddings, and layers whose weights are used again and again."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import LARGEST, TransformerConfig
from sparse_encoder.backbone.families.bert import BERT_DEFAULTS, BERT_KEYS, bert_embedding_rows, encoders_only
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader

_LAYER, _OURS = "albert.encoder.albert_layer_groups.{}.albert_layers.0.", "backbone.layers.{}."


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Spread the shared layers over the depth, each over as many neighbouring steps as the others."""
    reader.require("inner_group_num", 1, because="groups of several layers are not supported")
    depth, groups = config.num_layers, reader.count("num_hidden_groups", 1, LARGEST["num_layers"])
    order = tuple(int(step / (depth / groups)) for step in range(depth))
    return encoders_only(reader, replace(config, num_layers=groups, layer_order=order))


ALBERT = Family(
    model_type="albert",
    class_prefix="Albert",
    tagger_dropout_key="classifier_dropout_prob",
    tagger_dropout=0.1,
    defaults=replace(
        BERT_DEFAULTS,
        vocab_size=30000,
        embedding_size=128,
        project_embeddings=True,
        hidden_size=4096,
        num_heads=64,
        intermediate_size=16384,
        activation="gelu_new",
        head_activation="gelu_new",
        embedding_dropout=0.0,
        attention_dropout=0.0,
        attention_output_dropout=0.0,
        feed_forward_output_dropout=0.0,
    ),
    config_keys={
        **{field: key for field, key in BERT_KEYS.items() if field != "feed_forward_output_dropout"},
        "embedding_size": "embedding_size",
        "head_activation": "hidden_act",
    },
    adjust=_adjust,
    base_prefix="albert.",
    backbone_rows=always(
        (
            *bert_embedding_rows("albert."),
            *weights_and_biases(
                [
                    ("albert.encoder.embedding_hidden_mapping_in", "backbone.embeddings.projection"),
                    (f"{_LAYER}attention.query", f"{_OURS}attention.q"),
                    (f"{_LAYER}attention.key", f"{_OURS}attention.k"),
                    (f"{_LAYER}attention.value", f"{_OURS}attention.v"),
                    (f"{_LAYER}attention.dense", f"{_OURS}attention.output"),
                    (f"{_LAYER}attention.LayerNorm", f"{_OURS}attention_norm"),
                    (f"{_LAYER}ffn", f"{_OURS}feed_forward.up"),
                    (f"{_LAYER}ffn_output", f"{_OURS}feed_forward.down"),
                    (f"{_LAYER}full_layer_layer_norm", f"{_OURS}feed_forward_norm"),
                ]
            ),
        )
    ),
    head_rows=(
        *weights_and_biases([("predictions.dense", "head.dense"), ("predictions.LayerNorm", "head.norm")]),
        ("predictions.decoder.weight", "head.weight"),
        ("predictions.bias", "head.bias"),
    ),
    decoder_bias_copy="predictions.decoder.bias",
    ignored=(
        r"albert\.embeddings\.(position_ids|token_type_ids)",
        r"albert\.pooler\.(weight|bias)",
        r"sop_classifier\.classifier\.(weight|bias)",
    ),
    pretraining_heads=("AlbertForPreTraining",),
)
