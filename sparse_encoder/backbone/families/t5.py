"""T5, T5 v1.1, Flan-T5 and mT5: an encoder and a decoder whose attention knows places by biases only.

T5 v1.1 differs by its gated feed-forward network and by a head of its own, which reads hidden states as they are; that
of the first T5 is the word embeddings, and reads them divided by the root of their width. mT5 is v1.1 of many
languages; its head reads hidden states as they are, tied or not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparse_encoder.backbone.config import LARGEST, FieldError, TransformerConfig
from sparse_encoder.backbone.families.family import Family, Rows
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.two_stacks import DECODER, ENCODER, both, with_decoder
from sparse_encoder.backbone.feed_forward import ACTIVATIONS
from sparse_encoder.backbone.relative_bias import RelativeBiasConfig

_DROPOUTS = (
    "embedding_dropout",
    "attention_dropout",
    "attention_output_dropout",
    "feed_forward_dropout",
    "feed_forward_output_dropout",
    "final_dropout",
)
_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "head_width": "d_kv",
    "intermediate_size": "d_ff",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "norm_eps": "layer_norm_epsilon",
    "pad_token_id": "pad_token_id",
    "initializer_range": "initializer_factor",
    "tie_word_embeddings": "tie_word_embeddings",
    **dict.fromkeys(_DROPOUTS, "dropout_rate"),
}
_BIAS_KEYS = {"num_buckets": "relative_attention_num_buckets", "max_distance": "relative_attention_max_distance"}
_ENCODER_ONLY = "EncoderModel"
"""End of the name of a class without a decoder."""


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    config = _read_feed_forward(reader, config)
    scaled = reader.flag("scale_decoder_outputs", config.tie_word_embeddings)
    config = replace(
        config,
        relative_bias=_read_bias(reader, bidirectional=True),
        head_scale=config.hidden_size**-0.5 if scaled else 1.0,
    )
    reader.require("is_decoder", False, because="a decoder without its encoder is not supported")
    if not _has_decoder(reader):
        return config
    depth = config.num_layers
    if reader.has("num_decoder_layers"):
        depth = reader.count("num_decoder_layers", depth, LARGEST["num_layers"])
    changed = {"num_layers": depth, "relative_bias": _read_bias(reader, bidirectional=False)}
    return with_decoder(reader, config, {**_KEYS, "num_layers": "num_decoder_layers"}, changed)


def _adjust_mt5(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    reader.require("scale_decoder_outputs", False, because="the head of mT5 reads hidden states as they are")
    return replace(_adjust(reader, config), head_scale=1.0)


def _has_decoder(reader: ConfigReader) -> bool:
    """Return whether there are two stacks; ``architectures`` must not say otherwise."""
    names = reader.texts("architectures") or ()
    if reader.flag("is_encoder_decoder", True):
        return True
    if other := [name for name in names if not name.endswith(_ENCODER_ONLY)]:
        raise reader.error("is_encoder_decoder", f"must be true for a {other[0]}, got False")
    return False


def _read_feed_forward(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Read ``relu``, ``gated-gelu`` and their like; the gated gelu is the one by tanh, as the first writer had it."""
    text = reader.text("feed_forward_proj", "gated-gelu" if config.gated else "relu")
    gated, name = text.startswith("gated-"), text.removeprefix("gated-")
    if name not in ACTIVATIONS:
        choices = sorted(ACTIVATIONS)
        raise reader.error("feed_forward_proj", f"must be one of {choices}, or gated- and one of them, got {text!r}")
    return replace(config, gated=gated, activation="gelu_new" if text == "gated-gelu" else name)


def _read_bias(reader: ConfigReader, *, bidirectional: bool) -> RelativeBiasConfig:
    buckets = reader.integer(_BIAS_KEYS["num_buckets"], 32, 1 << 16)
    distance = reader.integer(_BIAS_KEYS["max_distance"], 128, 1 << 24)
    try:
        return RelativeBiasConfig(num_buckets=buckets, max_distance=distance, bidirectional=bidirectional)
    except FieldError as error:
        raise reader.error(_BIAS_KEYS[error.field], error.rule) from error


def _stack_rows(theirs: str, ours: str, *, gated: bool) -> Rows:
    """Return the names of one stack."""
    layer, own = f"{theirs}block.{{}}.layer.", f"{ours}layers.{{}}."
    blocks = [("SelfAttention", "attention"), ("EncDecAttention", "cross_attention")]
    rows = [
        (f"{theirs}final_layer_norm.weight", f"{ours}final_norm.weight"),
        (
            f"{theirs}block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{ours}relative_bias.table.weight",
        ),
    ]
    blocks = blocks if ours == DECODER else blocks[:1]
    for number, (block, attention) in enumerate(blocks):
        rows += [
            (f"{layer}{number}.{block}.{each}.weight", f"{own}{attention}.{name}.weight")
            for each, name in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output"))
        ]
        rows.append((f"{layer}{number}.layer_norm.weight", f"{own}{attention}_norm.weight"))
    last = f"{layer}{len(blocks)}."
    ups = (("wi_0", "gate"), ("wi_1", "up")) if gated else (("wi", "up"),)
    rows += [
        (f"{last}DenseReluDense.{each}.weight", f"{own}feed_forward.{name}.weight")
        for each, name in (*ups, ("wo", "down"))
    ]
    rows.append((f"{last}layer_norm.weight", f"{own}feed_forward_norm.weight"))
    return tuple(rows)


def _rows(config: TransformerConfig) -> Rows:
    words = (("shared.weight", "backbone.embeddings.word.weight"),)
    encoder = words + _stack_rows("encoder.", ENCODER, gated=config.gated)
    return both(encoder, _stack_rows("decoder.", DECODER, gated=config.gated), config)


def _settled(config: TransformerConfig) -> dict[str, Any]:  # Any: JSON
    return {"scale_decoder_outputs": config.head_scale != 1}


T5 = Family(
    model_type="t5",
    class_prefix="T5",
    defaults=TransformerConfig(
        vocab_size=32128,
        hidden_size=512,
        num_layers=6,
        num_heads=8,
        head_width=64,
        intermediate_size=2048,
        max_positions=LARGEST["max_positions"],
        pad_row_is_zero=False,
        position_kind="none",
        relative_bias=RelativeBiasConfig(),
        activation="relu",
        gate_layout="split",
        attention_bias=False,
        attention_scale=1.0,
        feed_forward_bias=False,
        norm_kind="rms",
        norm_bias=False,
        norm_eps=1e-6,
        pre_norm=True,
        embedding_norm=False,
        head_kind="linear",
        decoder_bias=False,
        initializer_range=1.0,
        initializer_by_width=True,
        embedding_dropout=0.1,
        attention_dropout=0.1,
        attention_output_dropout=0.1,
        feed_forward_dropout=0.1,
        feed_forward_output_dropout=0.1,
        final_dropout=0.1,
        guards_float16=True,
    ),
    config_keys=_KEYS,
    other_keys={
        "head_dim": "d_kv",
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
    },
    older_architectures={"T5WithLMHeadModel": "T5ForConditionalGeneration"},
    adjust=_adjust,
    base_prefix="",
    backbone_rows=_rows,
    head_rows=(("lm_head.weight", "head.weight"),),
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    is_pair=True,
    token_defaults={"pad_token_id": 0, "eos_token_id": 1},
    settled=_settled,
    decoder_names=r"decoder\..*",
    word_copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
)

MT5 = replace(
    T5,
    model_type="mt5",
    class_prefix="MT5",
    older_architectures={},
    defaults=replace(
        T5.defaults,
        vocab_size=250112,
        num_layers=8,
        num_heads=6,
        intermediate_size=1024,
        activation="gelu_new",
        gated=True,
    ),
    adjust=_adjust_mt5,
    token_defaults={"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    settled=lambda _: {},
)
