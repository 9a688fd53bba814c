"""DistilBERT: BERT without token types, under keys and names of its own."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.families.bert import BERT_DEFAULTS
from sparse_encoder.backbone.families.family import Family, always, as_read, weights_and_biases

_LAYER, _OURS = "distilbert.transformer.layer.{}.", "backbone.layers.{}."


DISTILBERT = Family(
    model_type="distilbert",
    class_prefix="DistilBert",
    tagger_dropout_key="dropout",
    tagger_dropout=0.1,
    defaults=replace(BERT_DEFAULTS, num_layers=6, num_token_types=0, attention_output_dropout=0.0),
    config_keys={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "max_positions": "max_position_embeddings",
        "pad_token_id": "pad_token_id",
        "activation": "activation",
        "head_activation": "activation",
        "embedding_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "feed_forward_output_dropout": "dropout",
        "tie_word_embeddings": "tie_word_embeddings",
        "initializer_range": "initializer_range",
        "sinusoidal_positions": "sinusoidal_pos_embds",
    },
    other_keys={"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    adjust=as_read,
    base_prefix="distilbert.",
    backbone_rows=always(
        (
            ("distilbert.embeddings.word_embeddings.weight", "backbone.embeddings.word.weight"),
            ("distilbert.embeddings.position_embeddings.weight", "backbone.embeddings.position.weight"),
            *weights_and_biases(
                [
                    ("distilbert.embeddings.LayerNorm", "backbone.embeddings.norm"),
                    (f"{_LAYER}attention.q_lin", f"{_OURS}attention.q"),
                    (f"{_LAYER}attention.k_lin", f"{_OURS}attention.k"),
                    (f"{_LAYER}attention.v_lin", f"{_OURS}attention.v"),
                    (f"{_LAYER}attention.out_lin", f"{_OURS}attention.output"),
                    (f"{_LAYER}sa_layer_norm", f"{_OURS}attention_norm"),
                    (f"{_LAYER}ffn.lin1", f"{_OURS}feed_forward.up"),
                    (f"{_LAYER}ffn.lin2", f"{_OURS}feed_forward.down"),
                    (f"{_LAYER}output_layer_norm", f"{_OURS}feed_forward_norm"),
                ]
            ),
        )
    ),
    head_rows=(
        *weights_and_biases([("vocab_transform", "head.dense"), ("vocab_layer_norm", "head.norm")]),
        ("vocab_projector.weight", "head.weight"),
        ("vocab_projector.bias", "head.bias"),
    ),
    ignored=(r"distilbert\.embeddings\.position_ids",),
)
