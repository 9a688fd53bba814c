"""BERT, and what its relatives share with it."""

from __future__ import annotations

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import Family, Rows, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader

BERT_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_token_types": "type_vocab_size",
    "pad_token_id": "pad_token_id",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
    "embedding_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "attention_output_dropout": "hidden_dropout_prob",
    "feed_forward_output_dropout": "hidden_dropout_prob",
    "tie_word_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}

BERT_DEFAULTS = TransformerConfig(
    vocab_size=30522,
    hidden_size=768,
    num_layers=12,
    num_heads=12,
    intermediate_size=3072,
    max_positions=512,
    num_token_types=2,
    embedding_dropout=0.1,
    attention_dropout=0.1,
    attention_output_dropout=0.1,
    feed_forward_output_dropout=0.1,
)


def refuse_decoders(reader: ConfigReader) -> None:
    """Refuse what would hide later tokens, or look at another model's."""
    reader.require("is_decoder", False, because="only encoders are supported")
    reader.require("add_cross_attention", False, because="only encoders are supported")


def encoders_only(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Refuse decoders and relative positions, which these families also have."""
    refuse_decoders(reader)
    reader.require("position_embedding_type", "absolute", because="relative positions are not supported")
    return config


def bert_embedding_rows(prefix: str) -> Rows:
    """Return the names of BERT's embeddings behind a prefix."""
    return (
        (f"{prefix}embeddings.word_embeddings.weight", "backbone.embeddings.word.weight"),
        (f"{prefix}embeddings.position_embeddings.weight", "backbone.embeddings.position.weight"),
        (f"{prefix}embeddings.token_type_embeddings.weight", "backbone.embeddings.token_type.weight"),
        *weights_and_biases([(f"{prefix}embeddings.LayerNorm", "backbone.embeddings.norm")]),
    )


def bert_rows(prefix: str, *, suffix: str = "") -> Rows:
    """Return the names of a BERT backbone behind a prefix; the suffix ends those of queries, keys and values."""
    layer, ours = f"{prefix}encoder.layer.{{}}.", "backbone.layers.{}."
    return (
        *bert_embedding_rows(prefix),
        *weights_and_biases(
            [
                (f"{layer}attention.self.query{suffix}", f"{ours}attention.q"),
                (f"{layer}attention.self.key{suffix}", f"{ours}attention.k"),
                (f"{layer}attention.self.value{suffix}", f"{ours}attention.v"),
                (f"{layer}attention.output.dense", f"{ours}attention.output"),
                (f"{layer}attention.output.LayerNorm", f"{ours}attention_norm"),
                (f"{layer}intermediate.dense", f"{ours}feed_forward.up"),
                (f"{layer}output.dense", f"{ours}feed_forward.down"),
                (f"{layer}output.LayerNorm", f"{ours}feed_forward_norm"),
            ]
        ),
    )


BERT = Family(
    model_type="bert",
    class_prefix="Bert",
    defaults=BERT_DEFAULTS,
    config_keys={**BERT_KEYS, "head_activation": "hidden_act"},
    adjust=encoders_only,
    base_prefix="bert.",
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
