"""BERT, and the names that its relatives share with it."""

from __future__ import annotations

from sparse_encoder.backbone.config import PositionKind, TransformerConfig
from sparse_encoder.backbone.families.family import Family, Rows, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader


def bert_rows(prefix: str) -> Rows:
    """Return the names of a BERT backbone behind a prefix."""
    layer, ours = f"{prefix}encoder.layer.{{}}.", "backbone.layers.{}."
    return (
        (f"{prefix}embeddings.word_embeddings.weight", "backbone.embeddings.word.weight"),
        (f"{prefix}embeddings.position_embeddings.weight", "backbone.embeddings.position.weight"),
        (f"{prefix}embeddings.token_type_embeddings.weight", "backbone.embeddings.token_type.weight"),
        *weights_and_biases(
            [
                (f"{prefix}embeddings.LayerNorm", "backbone.embeddings.norm"),
                (f"{layer}attention.self.query", f"{ours}attention.q"),
                (f"{layer}attention.self.key", f"{ours}attention.k"),
                (f"{layer}attention.self.value", f"{ours}attention.v"),
                (f"{layer}attention.output.dense", f"{ours}attention.output"),
                (f"{layer}attention.output.LayerNorm", f"{ours}attention_norm"),
                (f"{layer}intermediate.dense", f"{ours}feed_forward.up"),
                (f"{layer}output.dense", f"{ours}feed_forward.down"),
                (f"{layer}output.LayerNorm", f"{ours}feed_forward_norm"),
            ]
        ),
    )


BERT_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "num_token_types": "type_vocab_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
    "embedding_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}


def read_bert_like(  # noqa: D417
    reader: ConfigReader,
    *,
    vocab_size: int = 30522,
    hidden_size: int = 768,
    num_heads: int = 12,
    intermediate_size: int = 3072,
    pad_token_id: int | None = 0,
    embedding_size: int | None = None,
    position_kind: PositionKind = "absolute",
    head_activation: str | None = None,
) -> TransformerConfig:
    """Read a config with BERT's keys.

    Args:
        reader: The config; the other arguments are what the family takes for missing keys, or fixes.
    """
    reader.require("is_decoder", False, because="only encoders are supported")
    reader.require("add_cross_attention", False, because="only encoders are supported")
    reader.require("position_embedding_type", "absolute", because="relative positions are not supported")
    dropout = reader.real("hidden_dropout_prob", 0.1)
    activation = reader.text("hidden_act", "gelu")
    pad = reader.optional_integer("pad_token_id", pad_token_id)
    positions = reader.integer("max_position_embeddings", 512)
    if position_kind == "after_padding" and pad is not None:
        positions -= pad + 1
    return TransformerConfig(
        vocab_size=reader.integer("vocab_size", vocab_size),
        hidden_size=reader.integer("hidden_size", hidden_size),
        num_layers=reader.integer("num_hidden_layers", 12),
        num_heads=reader.integer("num_attention_heads", num_heads),
        intermediate_size=reader.integer("intermediate_size", intermediate_size),
        max_positions=positions,
        embedding_size=embedding_size,
        num_token_types=reader.integer("type_vocab_size", 2),
        pad_token_id=pad,
        position_kind=position_kind,
        activation=activation,
        norm_eps=reader.real("layer_norm_eps", 1e-12),
        embedding_dropout=dropout,
        attention_dropout=reader.real("attention_probs_dropout_prob", 0.1),
        attention_output_dropout=dropout,
        feed_forward_output_dropout=dropout,
        head_activation=head_activation or activation,
        tie_word_embeddings=reader.flag("tie_word_embeddings", True),
        initializer_range=reader.real("initializer_range", 0.02),
    )


BERT = Family(
    model_type="bert",
    class_prefix="Bert",
    base_prefix="bert.",
    read_config=read_bert_like,
    config_names=BERT_NAMES,
    backbone_rows=always(bert_rows("bert.")),
    head_rows=(
        *weights_and_biases(
            [
                ("cls.predictions.transform.dense", "head.dense"),
                ("cls.predictions.transform.LayerNorm", "head.norm"),
            ]
        ),
        ("cls.predictions.decoder.weight", "head.weight"),
        ("cls.predictions.bias", "head.bias"),
    ),
    decoder_bias_copy="cls.predictions.decoder.bias",
    ignored=(
        r"bert\.embeddings\.(position_ids|token_type_ids)",
        r"bert\.pooler\.dense\.(weight|bias)",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
    pretraining_heads=("BertForPreTraining",),
)
