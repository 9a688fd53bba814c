"""BART: an encoder and a decoder with learned places, norms behind the sums, and one table of words for all."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from sparse_encoder.backbone.config import LARGEST, TransformerConfig
from sparse_encoder.backbone.families.family import Family, Rows, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.two_stacks import DECODER, ENCODER, both, check_is_pair, with_decoder

_DECODER_KEYS = {
    "num_layers": "decoder_layers",
    "num_heads": "decoder_attention_heads",
    "intermediate_size": "decoder_ffn_dim",
}
_DECODER_DROP = {"layer_dropout": "decoder_layerdrop"}
_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_layers": "encoder_layers",
    "num_heads": "encoder_attention_heads",
    "intermediate_size": "encoder_ffn_dim",
    "max_positions": "max_position_embeddings",
    "pad_token_id": "pad_token_id",
    "activation": "activation_function",
    "embedding_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "attention_output_dropout": "dropout",
    "feed_forward_dropout": "activation_dropout",
    "feed_forward_output_dropout": "dropout",
    "layer_dropout": "encoder_layerdrop",
    "initializer_range": "init_std",
    "tie_word_embeddings": "tie_word_embeddings",
}


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Settle both stacks; ``normalize_embedding`` is not looked at: weights without that norm are refused anyway."""
    check_is_pair(reader)
    if reader.flag("scale_embedding", False):
        config = replace(config, embedding_scale=sqrt(config.hidden_size))
    reader.require("normalize_before", False, because="norms before the blocks are those of mBART")
    reader.require("add_final_layer_norm", False, because="a norm behind the layers is that of mBART")
    reader.require("static_position_embeddings", False, because="positions of sines are not supported")
    defaults = {"num_layers": 12, "num_heads": 16, "intermediate_size": 4096}
    counts = {field: reader.count(key, defaults[field], LARGEST[field]) for field, key in _DECODER_KEYS.items()}
    changed = {**counts, "layer_dropout": reader.real(_DECODER_DROP["layer_dropout"], 0.0)}
    return with_decoder(reader, config, {**_KEYS, **_DECODER_KEYS, **_DECODER_DROP}, changed)


def _stack_rows(theirs: str, ours: str) -> Rows:
    layer, own = f"{theirs}layers.{{}}.", f"{ours}layers.{{}}."
    attentions = [("self_attn", "attention"), ("encoder_attn", "cross_attention")]
    modules = [
        (f"{theirs}layernorm_embedding", f"{ours}embeddings.norm"),
        (f"{layer}fc1", f"{own}feed_forward.up"),
        (f"{layer}fc2", f"{own}feed_forward.down"),
        (f"{layer}final_layer_norm", f"{own}feed_forward_norm"),
    ]
    for attention, name in attentions if ours == DECODER else attentions[:1]:
        modules += [
            (f"{layer}{attention}.{each}_proj", f"{own}{name}.{part}")
            for each, part in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "output"))
        ]
        modules.append((f"{layer}{attention}_layer_norm", f"{own}{name}_norm"))
    positions = (f"{theirs}embed_positions.weight", f"{ours}embeddings.position.weight")
    return (positions, *weights_and_biases(modules))


_WORDS = (("model.shared.weight", "backbone.embeddings.word.weight"),)
_ENCODER = _WORDS + _stack_rows("model.encoder.", ENCODER)
_DECODER = _stack_rows("model.decoder.", DECODER)


def _rows(config: TransformerConfig) -> Rows:
    return both(_ENCODER, _DECODER, config)


BART = Family(
    model_type="bart",
    class_prefix="Bart",
    defaults=TransformerConfig(
        vocab_size=50265,
        hidden_size=1024,
        num_layers=12,
        num_heads=16,
        intermediate_size=4096,
        max_positions=1024,
        pad_token_id=1,
        position_kind="absolute",
        first_position=2,
        norm_eps=1e-5,
        head_kind="linear",
        decoder_bias=False,
        logits_bias=True,
        embedding_dropout=0.1,
        attention_output_dropout=0.1,
        feed_forward_output_dropout=0.1,
    ),
    config_keys=_KEYS,
    other_keys={
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    },
    adjust=_adjust,
    base_prefix="model.",
    backbone_rows=_rows,
    head_rows=(("lm_head.weight", "head.weight"), ("final_logits_bias", "head.logits_bias")),
    ignored=(r"model\.(encoder|decoder)\.version",),
    is_pair=True,
    copies_words_if_untied=True,
    token_defaults={
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    has_encoder_class=False,
    decoder_names=r"model\.decoder\..*",
    word_copies=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    zero_if_absent=("head.logits_bias",),
)
