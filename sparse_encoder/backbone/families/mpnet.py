"""MPNet: RoBERTa's embeddings and head, no token types, and attention biases by distance."""

from __future__ import annotations

from dataclasses import replace

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.bert import BERT_KEYS
from sparse_encoder.backbone.families.family import Family, always, weights_and_biases
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.families.roberta import ROBERTA, count_behind_padding
from sparse_encoder.backbone.relative_bias import RelativeBiasConfig

_LAYER, _OURS = "mpnet.encoder.layer.{}.", "backbone.layers.{}."
_BIAS = RelativeBiasConfig(num_buckets=32, max_distance=128)


def _adjust(reader: ConfigReader, config: TransformerConfig) -> TransformerConfig:
    """Refuse what transformers reads and does not follow: it always counts from id 1, and always in 32 buckets."""
    reader.require("pad_token_id", 1, because="positions count from it")
    reader.require("relative_attention_num_buckets", _BIAS.num_buckets, because="distances are sorted into so many")
    return count_behind_padding(reader, config)


MPNET = Family(
    model_type="mpnet",
    class_prefix="MPNet",
    tagger_dropout_key=None,
    defaults=replace(ROBERTA.defaults, vocab_size=30527, num_token_types=0, relative_bias=_BIAS),
    config_keys={field: key for field, key in BERT_KEYS.items() if field not in ("num_token_types", "pad_token_id")},
    adjust=_adjust,
    base_prefix="mpnet.",
    backbone_rows=always(
        (
            ("mpnet.embeddings.word_embeddings.weight", "backbone.embeddings.word.weight"),
            ("mpnet.embeddings.position_embeddings.weight", "backbone.embeddings.position.weight"),
            ("mpnet.encoder.relative_attention_bias.weight", "backbone.relative_bias.table.weight"),
            *weights_and_biases(
                [
                    ("mpnet.embeddings.LayerNorm", "backbone.embeddings.norm"),
                    (f"{_LAYER}attention.attn.q", f"{_OURS}attention.q"),
                    (f"{_LAYER}attention.attn.k", f"{_OURS}attention.k"),
                    (f"{_LAYER}attention.attn.v", f"{_OURS}attention.v"),
                    (f"{_LAYER}attention.attn.o", f"{_OURS}attention.output"),
                    (f"{_LAYER}attention.LayerNorm", f"{_OURS}attention_norm"),
                    (f"{_LAYER}intermediate.dense", f"{_OURS}feed_forward.up"),
                    (f"{_LAYER}output.dense", f"{_OURS}feed_forward.down"),
                    (f"{_LAYER}output.LayerNorm", f"{_OURS}feed_forward_norm"),
                ]
            ),
        )
    ),
    head_rows=ROBERTA.head_rows,
    decoder_bias_copy=ROBERTA.decoder_bias_copy,
    ignored=(r"mpnet\.embeddings\.position_ids", r"mpnet\.pooler\.dense\.(weight|bias)"),
)
