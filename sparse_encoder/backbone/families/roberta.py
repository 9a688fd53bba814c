"""RoBERTa and the two that differ from it by name alone: XLM-RoBERTa and CamemBERT."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import FieldError, TransformerConfig
from sparse_encoder.backbone.families.bert import BERT_DEFAULTS, BERT_KEYS, bert_rows, encoders_only
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader


def count_behind_padding(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Take off the rows of the position table that no token uses: those up to the padding id."""
    rows, unused = config.max_positions, config.position_offset
    if rows <= unused:
        raise FieldError(f"must be greater than pad_token_id + 1 = {unused}, got {rows}", "max_positions")
    return encoders_only(reader, replace(config, max_positions=rows - unused))


ROBERTA = Family(
    model_type="roberta",
    class_prefix="Roberta",
    defaults=replace(BERT_DEFAULTS, vocab_size=50265, pad_token_id=1, position_kind="after_padding"),
    config_keys=BERT_KEYS,
    adjust=count_behind_padding,
    base_prefix="roberta.",
    backbone_rows=always(bert_rows("roberta.")),
    head_rows=(
        *weights_and_biases([("lm_head.dense", "head.dense"), ("lm_head.layer_norm", "head.norm")]),
        ("lm_head.decoder.weight", "head.weight"),
        ("lm_head.bias", "head.bias"),
    ),
    decoder_bias_copy="lm_head.decoder.bias",
    ignored=(r"roberta\.embeddings\.(position_ids|token_type_ids)", r"roberta\.pooler\.dense\.(weight|bias)"),
)
_SMALL = replace(ROBERTA.defaults, vocab_size=30522)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", class_prefix="XLMRoberta", defaults=_SMALL)
CAMEMBERT = replace(ROBERTA, model_type="camembert", class_prefix="Camembert", defaults=_SMALL)
