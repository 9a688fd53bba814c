"""Nomic BERT: BERT with rotary positions, a gated feed-forward network and no biases in its layers.

Its configs come in two spellings: that of transformers 5, and the older one with the names of GPT-2 (``n_embd``,
``n_layer``, ``rotary_emb_base`` ...), whose files ask for code of their own to be run. They are read without it, and
written in the newer spelling. The tensors have the same names but for the prefix.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.bert import BERT_DEFAULTS, BERT_KEYS, refuse_decoders
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.rotary import read_rotation

_LAYER, _OURS = "nomic_bert.encoder.layers.{}.", "backbone.layers.{}."
_GATES = {"swiglu": "silu", "geglu": "gelu"}
_INNER_MULTIPLE = 256
"""The older code rounds the width of the feed-forward network up to a multiple of this."""
_FIXED = {
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "moe_every_n_layers": 0,
    "norm_mlp": False,
    "num_experts": 0,
    "num_heads_kv": None,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
}
"""What the older spelling could ask for, and the one value that published checkpoints of this shape have."""
_NEEDED = ("mlp_fc1_bias", "mlp_fc2_bias", "n_inner", "qkv_proj_bias", "rotary_emb_fraction")
"""Keys of the older spelling whose absence would mean something else than :data:`_FIXED`."""


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    refuse_decoders(reader)
    reader.require("head_dim", config.head_size, because="heads of another width are not supported")
    return read_rotation(reader, replace(config, head_activation=config.activation))


def _adjust_older(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    for name in _NEEDED:
        if not reader.has(name):
            raise reader.error(name, "must be given")
    for name, allowed in _FIXED.items():
        reader.require(name, allowed, because="this variant of nomic_bert is not supported")
    gate = reader.text("activation_function", "gelu_new")
    if gate not in _GATES:
        raise reader.error("activation_function", f"must be one of {sorted(_GATES)}, got {gate!r}")
    multiple = reader.count("pad_vocab_size_multiple", 1, 1 << 20)
    rounded = replace(
        config,
        activation=_GATES[gate],
        vocab_size=_round_up(config.vocab_size, multiple),
        intermediate_size=_round_up(config.intermediate_size, _INNER_MULTIPLE),
    )
    newer: dict[str, Any] = {  # transformers looks at these where both are there; Any: as in Family.read
        field: reader.like(key, getattr(rounded, field))
        for field, key in NOMIC_BERT.config_keys.items()
        if reader.has(key) and key not in _OLDER_KEYS.values()
    }
    return _adjust(reader, replace(rounded, **newer))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


_OLDER_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "n_embd",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_positions": "n_positions",
    "num_token_types": "type_vocab_size",
    "pad_token_id": "pad_token_id",
    "norm_eps": "layer_norm_epsilon",
    "rotary_theta": "rotary_emb_base",
    "embedding_dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop",
    "attention_output_dropout": "resid_pdrop",
    "feed_forward_output_dropout": "resid_pdrop",
    "tie_word_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
_DEFAULTS = replace(
    BERT_DEFAULTS,
    vocab_size=30528,
    max_positions=2048,
    position_kind="rotary",
    rotary_theta=1000.0,
    activation="silu",
    gated=True,
    gate_layout="split",
    fused_qkv=True,
    attention_bias=False,
    feed_forward_bias=False,
    embedding_dropout=0.0,
    attention_dropout=0.0,
    attention_output_dropout=0.0,
    feed_forward_output_dropout=0.0,
)
_IN_FRONT = Family(
    model_type="nomic_bert",
    class_prefix="NomicBert",
    defaults=_DEFAULTS,
    config_keys={**BERT_KEYS, "rotary_theta": "rope_theta"},
    adjust=_adjust,
    base_prefix="nomic_bert.",
    other_prefixes=("bert.",),
    backbone_rows=always(
        (
            ("nomic_bert.embeddings.word_embeddings.weight", "backbone.embeddings.word.weight"),
            ("nomic_bert.embeddings.token_type_embeddings.weight", "backbone.embeddings.token_type.weight"),
            (f"{_LAYER}attn.Wqkv.weight", f"{_OURS}attention.qkv.weight"),
            (f"{_LAYER}attn.out_proj.weight", f"{_OURS}attention.output.weight"),
            (f"{_LAYER}mlp.fc11.weight", f"{_OURS}feed_forward.up.weight"),
            (f"{_LAYER}mlp.fc12.weight", f"{_OURS}feed_forward.gate.weight"),
            (f"{_LAYER}mlp.fc2.weight", f"{_OURS}feed_forward.down.weight"),
            *weights_and_biases(
                [
                    ("nomic_bert.emb_ln", "backbone.embeddings.norm"),
                    (f"{_LAYER}norm1", f"{_OURS}attention_norm"),
                    (f"{_LAYER}norm2", f"{_OURS}feed_forward_norm"),
                ]
            ),
        )
    ),
    head_rows=(
        *weights_and_biases(
            [
                ("cls.predictions.transform.dense", "head.dense"),
                ("cls.predictions.transform.layer_norm", "head.norm"),
            ]
        ),
        ("cls.predictions.decoder.weight", "head.weight"),
        ("cls.predictions.bias", "head.bias"),
    ),
    decoder_bias_copy="cls.predictions.decoder.bias",
    ignored=(
        r"nomic_bert\.embeddings\.(position_ids|token_type_ids)",
        r"nomic_bert\.(rotary_emb|encoder\.layers\.\d+\.attn\.rotary_emb)\.(original_)?inv_freq",
        r"nomic_bert\.pooler\.dense\.(weight|bias)",
    ),
    pretraining_heads=("NomicBertForPreTraining",),
)
NOMIC_BERT = replace(
    _IN_FRONT,
    older_spelling=replace(
        _IN_FRONT,
        defaults=replace(
            _DEFAULTS,
            norm_eps=1e-5,
            embedding_dropout=0.1,
            attention_dropout=0.1,
            attention_output_dropout=0.1,
            feed_forward_output_dropout=0.1,
        ),
        config_keys=_OLDER_KEYS,
        adjust=_adjust_older,
        zero_if_absent=("head.dense.bias", "head.bias"),
        written_as="nomic_bert",
        obsolete_keys=("activation_function", "max_trained_positions", "pad_vocab_size_multiple", *_FIXED),
        marker="n_embd",
    ),
)
