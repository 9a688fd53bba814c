"""ELECTRA: BERT with narrow embeddings, and a head on the generator that narrows again."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.families.bert import BERT_DEFAULTS, BERT_KEYS, bert_rows, encoders_only
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases

ELECTRA = Family(
    model_type="electra",
    class_prefix="Electra",
    defaults=replace(BERT_DEFAULTS, embedding_size=128, hidden_size=256, num_heads=4, intermediate_size=1024),
    config_keys={**BERT_KEYS, "embedding_size": "embedding_size"},
    adjust=encoders_only,
    base_prefix="electra.",
    backbone_rows=always(
        (
            *bert_rows("electra."),
            *weights_and_biases([("electra.embeddings_project", "backbone.embeddings.projection")]),
        )
    ),
    head_rows=(
        *weights_and_biases(
            [("generator_predictions.dense", "head.dense"), ("generator_predictions.LayerNorm", "head.norm")]
        ),
        ("generator_lm_head.weight", "head.weight"),
        ("generator_lm_head.bias", "head.bias"),
    ),
    ignored=(
        r"electra\.embeddings\.(position_ids|token_type_ids)",
        r"discriminator_predictions\.(dense|dense_prediction)\.(weight|bias)",
    ),
)
