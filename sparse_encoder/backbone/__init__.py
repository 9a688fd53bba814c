"""The transformer: token ids in, hidden states or logits out. Knows nothing of text, pooling and training."""

from __future__ import annotations

from sparse_encoder.backbone.adapters import LoraConfig
from sparse_encoder.backbone.casts import to_bf16, to_fp16, to_fp32
from sparse_encoder.backbone.compiled import CompileConfig
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families import FAMILIES, architecture_is_masked_language
from sparse_encoder.backbone.heads import MaskedLanguageHead
from sparse_encoder.backbone.loading.sharded import ShardedLoad, load_sharded_checkpoint
from sparse_encoder.backbone.pretrained import EncoderModel, MaskedLanguageModel, PretrainedModel
from sparse_encoder.backbone.transformer import Transformer
from sparse_encoder.backbone.weights import LoadingInfo, LoadReport

__all__ = [
    "FAMILIES",
    "CompileConfig",
    "EncoderModel",
    "LoadReport",
    "LoadingInfo",
    "LoraConfig",
    "MaskedLanguageHead",
    "MaskedLanguageModel",
    "PretrainedModel",
    "ShardedLoad",
    "Transformer",
    "TransformerConfig",
    "architecture_is_masked_language",
    "load_sharded_checkpoint",
    "to_bf16",
    "to_fp16",
    "to_fp32",
]
