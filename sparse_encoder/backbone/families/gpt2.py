"""GPT-2: learned positions, norms in front, and weights that files hold with their columns first."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader

_LAYER, _OURS = "transformer.h.{}.", "backbone.layers.{}."


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    reader.require("add_cross_attention", False, because="only decoders that stand alone are supported")
    reader.require("scale_attn_by_inverse_layer_idx", False, because="layers score alike")
    reader.require("reorder_and_upcast_attn", False, because="other orders of the same products are not supported")
    inner = reader.like("n_inner", None, nullable=True)
    assert inner is None or isinstance(inner, int)
    return replace(
        config,
        intermediate_size=4 * config.hidden_size if inner is None else inner,
        attention_scale=None if reader.flag("scale_attn_weights", True) else 1.0,
        causal=reader.flag("is_causal", True),
    )


GPT2 = Family(
    model_type="gpt2",
    class_prefix="GPT2",
    head_class="LMHeadModel",
    defaults=TransformerConfig(
        vocab_size=50257,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        max_positions=1024,
        embedding_norm=False,
        pad_token_id=None,
        pad_row_is_zero=False,
        causal=True,
        activation="gelu_new",
        fused_qkv=True,
        norm_eps=1e-5,
        pre_norm=True,
        embedding_dropout=0.1,
        attention_dropout=0.1,
        attention_output_dropout=0.1,
        feed_forward_output_dropout=0.1,
        head_kind="linear",
        decoder_bias=False,
    ),
    config_keys={
        "vocab_size": "vocab_size",
        "hidden_size": "n_embd",
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "max_positions": "n_positions",
        "pad_token_id": "pad_token_id",
        "activation": "activation_function",
        "norm_eps": "layer_norm_epsilon",
        "embedding_dropout": "embd_pdrop",
        "attention_dropout": "attn_pdrop",
        "attention_output_dropout": "resid_pdrop",
        "feed_forward_output_dropout": "resid_pdrop",
        "tie_word_embeddings": "tie_word_embeddings",
        "initializer_range": "initializer_range",
    },
    other_keys={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    adjust=_adjust,
    base_prefix="transformer.",
    backbone_rows=always(
        (
            ("transformer.wte.weight", "backbone.embeddings.word.weight"),
            ("transformer.wpe.weight", "backbone.embeddings.position.weight"),
            *weights_and_biases(
                [
                    (f"{_LAYER}ln_1", f"{_OURS}attention_norm"),
                    (f"{_LAYER}attn.c_attn", f"{_OURS}attention.qkv"),
                    (f"{_LAYER}attn.c_proj", f"{_OURS}attention.output"),
                    (f"{_LAYER}ln_2", f"{_OURS}feed_forward_norm"),
                    (f"{_LAYER}mlp.c_fc", f"{_OURS}feed_forward.up"),
                    (f"{_LAYER}mlp.c_proj", f"{_OURS}feed_forward.down"),
                    ("transformer.ln_f", "backbone.final_norm"),
                ]
            ),
        )
    ),
    transposed=(
        f"{_OURS}attention.qkv.weight",
        f"{_OURS}attention.output.weight",
        f"{_OURS}feed_forward.up.weight",
        f"{_OURS}feed_forward.down.weight",
    ),
    head_rows=(("lm_head.weight", "head.weight"),),
    tagger_dropout=0.1,
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
    pretraining_heads=("GPT2DoubleHeadsModel",),
)
