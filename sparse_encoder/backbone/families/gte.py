"""GTE: BERT with rotary positions and a gated feed-forward network, under two names.

``gte`` is what transformers 5 calls it. ``new`` is the older one, whose files ask for code of their own to be run: they
are read without it, and written as ``gte``. The tensors have the same names but for the prefix.
"""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.bert import BERT_DEFAULTS, BERT_KEYS, refuse_decoders
from sparse_encoder.backbone.families.family import Family, Rows, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.rotary import read_rotation


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    refuse_decoders(reader)
    reader.require("head_dim", config.head_size, because="heads of another width are not supported")
    return read_rotation(reader, config)


def _adjust_new(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Refuse what no published checkpoint uses; how attention is computed and padding left out changes no number."""
    refuse_decoders(reader)
    reader.require("hidden_act", "gelu", because="the head's activation is gelu in gte")
    reader.require("layer_norm_type", "layer_norm", because="other norms are not supported")
    reader.require("position_embedding_type", "rope", because="other positions than rotary are not supported")
    reader.require("pack_qkv", True, because="projections in three matrices are not supported")
    reader.require("logn_attention_scale", False, because="attention scaled by the text's length is not supported")
    return read_rotation(reader, config, kinds=("default", "ntk"))


def _rows(prefix: str) -> Rows:
    layer, ours = f"{prefix}encoder.layer.{{}}.", "backbone.layers.{}."
    return (
        (f"{prefix}embeddings.word_embeddings.weight", "backbone.embeddings.word.weight"),
        (f"{prefix}embeddings.token_type_embeddings.weight", "backbone.embeddings.token_type.weight"),
        (f"{layer}mlp.up_gate_proj.weight", f"{ours}feed_forward.up.weight"),
        *weights_and_biases(
            [
                (f"{prefix}embeddings.LayerNorm", "backbone.embeddings.norm"),
                (f"{layer}attention.qkv_proj", f"{ours}attention.qkv"),
                (f"{layer}attention.o_proj", f"{ours}attention.output"),
                (f"{layer}attn_ln", f"{ours}attention_norm"),
                (f"{layer}mlp.down_proj", f"{ours}feed_forward.down"),
                (f"{layer}mlp_ln", f"{ours}feed_forward_norm"),
            ]
        ),
    )


def _ignored(prefix: str) -> tuple[str, ...]:
    return (
        rf"{prefix}\.(embeddings\.)?rotary_emb\.(original_)?inv_freq",
        rf"{prefix}\.embeddings\.position_ids",
        rf"{prefix}\.pooler\.dense\.(weight|bias)",
        r"classifier\.(weight|bias)",
    )


GTE = Family(
    model_type="gte",
    class_prefix="Gte",
    defaults=replace(
        BERT_DEFAULTS,
        vocab_size=250048,
        max_positions=8192,
        num_token_types=1,
        pad_token_id=1,
        position_kind="rotary",
        rotary_theta=160_000.0,
        gated=True,
        gate_layout="up_gate",
        fused_qkv=True,
        feed_forward_bias=False,
        down_bias=True,
        attention_dropout=0.0,
        feed_forward_dropout=0.1,
    ),
    config_keys={**BERT_KEYS, "feed_forward_dropout": "hidden_dropout_prob", "rotary_theta": "rope_theta"},
    adjust=_adjust,
    base_prefix="gte.",
    other_prefixes=("new.",),
    backbone_rows=always(_rows("gte.")),
    head_rows=weights_and_biases(
        [("lm_head.dense", "head.dense"), ("lm_head.norm", "head.norm"), ("lm_head.decoder", "head")]
    ),
    ignored=_ignored("gte"),
)
NEW = replace(
    GTE,
    model_type="new",
    class_prefix="New",
    defaults=replace(GTE.defaults, vocab_size=30528, max_positions=2048, pad_token_id=None, rotary_theta=10_000.0),
    adjust=_adjust_new,
    base_prefix="new.",
    other_prefixes=("gte.",),
    backbone_rows=always(_rows("new.")),
    ignored=_ignored("new"),
    written_as="gte",
    obsolete_keys=(
        "layer_norm_type",
        "logn_attention_clip1",
        "logn_attention_scale",
        "pack_qkv",
        "position_embedding_type",
        "rope_scaling",
        "unpad_inputs",
        "use_memory_efficient_attention",
    ),
)
