"""Llama, and what its relatives share with it: decoders of rotary positions, shared heads and gated feed-forward.

``is_causal: false`` in a config makes an encoder of a decoder, as transformers 5 does.
"""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.rotary import read_rotation

ROTATIONS = ("default", "linear", "llama3", "yarn")
LLAMA_DEFAULTS = TransformerConfig(
    vocab_size=32000,
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    intermediate_size=11008,
    max_positions=2048,
    embedding_norm=False,
    pad_token_id=None,
    position_kind="rotary",
    causal=True,
    activation="silu",
    gated=True,
    gate_layout="split",
    attention_bias=False,
    feed_forward_bias=False,
    norm_kind="rms",
    norm_eps=1e-6,
    pre_norm=True,
    head_kind="linear",
    decoder_bias=False,
    tie_word_embeddings=False,
)
LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "pad_token_id": "pad_token_id",
    "activation": "hidden_act",
    "norm_eps": "rms_norm_eps",
    "attention_dropout": "attention_dropout",
    "rotary_theta": "rope_theta",
    "tie_word_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
_LAYER, _OURS = "model.layers.{}.", "backbone.layers.{}."


def read_llama(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Settle the angles of the places, and whether later tokens are seen."""
    config = replace(config, causal=reader.flag("is_causal", config.causal))
    config = read_rotation(reader, config, kinds=ROTATIONS)
    return replace(config, local_rotary_theta=config.rotary_theta)


LLAMA = Family(
    model_type="llama",
    class_prefix="Llama",
    head_class="ForCausalLM",
    defaults=LLAMA_DEFAULTS,
    config_keys={
        **LLAMA_KEYS,
        "head_width": "head_dim",
        "attention_bias": "attention_bias",
        "feed_forward_bias": "mlp_bias",
    },
    adjust=read_llama,
    base_prefix="model.",
    backbone_rows=always(
        (
            ("model.embed_tokens.weight", "backbone.embeddings.word.weight"),
            ("model.norm.weight", "backbone.final_norm.weight"),
            (f"{_LAYER}input_layernorm.weight", f"{_OURS}attention_norm.weight"),
            (f"{_LAYER}post_attention_layernorm.weight", f"{_OURS}feed_forward_norm.weight"),
            (f"{_LAYER}self_attn.q_norm.weight", f"{_OURS}attention.q_norm.weight"),
            (f"{_LAYER}self_attn.k_norm.weight", f"{_OURS}attention.k_norm.weight"),
            *weights_and_biases(
                [
                    (f"{_LAYER}self_attn.q_proj", f"{_OURS}attention.q"),
                    (f"{_LAYER}self_attn.k_proj", f"{_OURS}attention.k"),
                    (f"{_LAYER}self_attn.v_proj", f"{_OURS}attention.v"),
                    (f"{_LAYER}self_attn.o_proj", f"{_OURS}attention.output"),
                    (f"{_LAYER}mlp.gate_proj", f"{_OURS}feed_forward.gate"),
                    (f"{_LAYER}mlp.up_proj", f"{_OURS}feed_forward.up"),
                    (f"{_LAYER}mlp.down_proj", f"{_OURS}feed_forward.down"),
                ]
            ),
        )
    ),
    head_rows=(("lm_head.weight", "head.weight"),),
    tagger_rows=(("score.weight", "head.classifier.weight"), ("score.bias", "head.classifier.bias")),
    tagger_dropout=0.1,
    older_architectures={"LLaMAForCausalLM": "LlamaForCausalLM"},
    ignored=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
)

EUROBERT = replace(
    LLAMA,
    model_type="eurobert",
    class_prefix="EuroBert",
    older_architectures={},
    head_class="ForMaskedLM",
    defaults=replace(
        LLAMA_DEFAULTS,
        vocab_size=128256,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        max_positions=8192,
        pad_token_id=128001,
        norm_eps=1e-5,
        causal=False,
    ),
    adjust=lambda reader, config: replace(read_rotation(reader, config, kinds=ROTATIONS), causal=False),
    tagger_rows=(("classifier.weight", "head.classifier.weight"), ("classifier.bias", "head.classifier.bias")),
)
"""The same layers as an encoder with a masked-language head."""
