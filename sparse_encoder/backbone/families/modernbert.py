"""ModernBERT: rotary positions, layers that look far and layers that look near, gated feed-forward, norms in front.

Its configs come in two spellings. transformers 4: ``global_rope_theta``, ``local_rope_theta`` and
``global_attn_every_n_layers``; transformers 5: ``rope_parameters`` and ``layer_types``. Where both are there, the
newer counts.
"""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import LayerType, TransformerConfig
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.windows import named_layer_types

_LAYER, _OURS = "model.layers.{}.", "backbone.layers.{}."
_GLOBAL_THETA, _LOCAL_THETA = 160_000.0, 10_000.0
_LARGEST_WINDOW = 1 << 25


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    rope = reader.section("rope_parameters")
    old_theta = reader.real("global_rope_theta", _GLOBAL_THETA)
    return replace(
        config,
        layer_types=_layer_types(reader, config.num_layers),
        local_window=reader.count("local_attention", 128, _LARGEST_WINDOW) // 2,
        rotary_theta=_theta(reader, rope.section("full_attention"), old_theta),
        local_rotary_theta=_theta(reader, rope.section("sliding_attention"), _old_local_theta(reader, old_theta)),
        initializer_cutoff=_initializer_cutoff(reader),
    )


def _layer_types(reader: ConfigReader, num_layers: int) -> tuple[LayerType, ...]:
    names = reader.texts("layer_types")
    if names is None:
        period = reader.count("global_attn_every_n_layers", 3, 1 << 20)
        return tuple("local" if layer % period else "global" for layer in range(num_layers))
    return named_layer_types(reader, names)


def _old_local_theta(reader: ConfigReader, global_theta: float) -> float:
    """Read the older spelling: null means that local layers turn as the global ones do."""
    if "local_rope_theta" in reader.values and reader.values["local_rope_theta"] is None:
        return global_theta
    return reader.real("local_rope_theta", _LOCAL_THETA)


def _initializer_cutoff(reader: ConfigReader) -> float:
    name = "initializer_cutoff_factor"
    return reader.real(name, 2.0) if reader.has(name) or name not in reader.values else 3.0


def _theta(reader: ConfigReader, rope: ConfigReader, old: float) -> float:
    for section in (reader.section("rope_scaling"), rope):
        for key in ("rope_type", "type"):
            section.require(key, "default", because="scaled rotary positions are not supported")
    return rope.real("rope_theta", old)


MODERNBERT = Family(
    model_type="modernbert",
    class_prefix="ModernBert",
    defaults=TransformerConfig(
        vocab_size=50368,
        hidden_size=768,
        num_layers=22,
        num_heads=12,
        intermediate_size=1152,
        max_positions=8192,
        pad_token_id=50283,
        position_kind="rotary",
        gated=True,
        fused_qkv=True,
        attention_bias=False,
        feed_forward_bias=False,
        norm_bias=False,
        norm_eps=1e-5,
        pre_norm=True,
        first_attention_norm=False,
        head_bias=False,
    ),
    config_keys={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "max_positions": "max_position_embeddings",
        "pad_token_id": "pad_token_id",
        "activation": "hidden_activation",
        "attention_bias": "attention_bias",
        "feed_forward_bias": "mlp_bias",
        "norm_bias": "norm_bias",
        "norm_eps": "norm_eps",
        "embedding_dropout": "embedding_dropout",
        "attention_dropout": "attention_dropout",
        "attention_output_dropout": "attention_dropout",
        "feed_forward_dropout": "mlp_dropout",
        "head_activation": "classifier_activation",
        "head_bias": "classifier_bias",
        "decoder_bias": "decoder_bias",
        "tie_word_embeddings": "tie_word_embeddings",
        "initializer_range": "initializer_range",
    },
    adjust=_adjust,
    base_prefix="model.",
    backbone_rows=always(
        (
            ("model.embeddings.tok_embeddings.weight", "backbone.embeddings.word.weight"),
            *weights_and_biases(
                [
                    ("model.embeddings.norm", "backbone.embeddings.norm"),
                    (f"{_LAYER}attn_norm", f"{_OURS}attention_norm"),
                    (f"{_LAYER}attn.Wqkv", f"{_OURS}attention.qkv"),
                    (f"{_LAYER}attn.Wo", f"{_OURS}attention.output"),
                    (f"{_LAYER}mlp_norm", f"{_OURS}feed_forward_norm"),
                    (f"{_LAYER}mlp.Wi", f"{_OURS}feed_forward.up"),
                    (f"{_LAYER}mlp.Wo", f"{_OURS}feed_forward.down"),
                    ("model.final_norm", "backbone.final_norm"),
                ]
            ),
        )
    ),
    head_rows=weights_and_biases([("head.dense", "head.dense"), ("head.norm", "head.norm"), ("decoder", "head")]),
    tagger_rows=weights_and_biases(
        [("head.dense", "head.dense"), ("head.norm", "head.norm"), ("classifier", "head.classifier")]
    ),
    tagger_dropout=0.0,
)
