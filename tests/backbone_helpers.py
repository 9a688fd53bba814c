"""Tiny configs of every family, and weights that make a difference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.families import read_config, respell
from sparse_encoder.backbone.normalization import RMSNorm

B, T, D, V = 3, 9, 12, 17

_BERT = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 26,
    "type_vocab_size": 2,
}
_MODERNBERT = {
    "model_type": "modernbert",
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 26,
    "local_attention": 4,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "cls_token_id": 2,
    "eos_token_id": 3,
    "sep_token_id": 3,
}
_DEBERTA = {
    "model_type": "deberta-v2",
    **_BERT,
    "num_attention_heads": 4,  # transformers takes the root of head size times terms, 3 x 3, in float32
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 4,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **_BERT},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": V,
        "dim": D,
        "n_layers": 3,
        "n_heads": 2,
        "hidden_dim": 20,
        "max_position_embeddings": 26,
    },
    "roberta": {"model_type": "roberta", **_BERT, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "xlm-roberta": {"model_type": "xlm-roberta", **_BERT, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "camembert": {"model_type": "camembert", **_BERT, "type_vocab_size": 1, "hidden_act": "relu"},
    "albert": {"model_type": "albert", **_BERT, "num_hidden_layers": 5, "num_hidden_groups": 2, "embedding_size": 8},
    "electra": {"model_type": "electra", **_BERT, "embedding_size": 8},
    "modernbert": _MODERNBERT,
    "gte": {"model_type": "gte", **_BERT, "pad_token_id": 0},
    "new": {
        "model_type": "new",
        **_BERT,
        "type_vocab_size": 1,
        "pad_token_id": 0,
        "rope_theta": 50.0,
        "rope_scaling": {"type": "ntk", "factor": 2.0},
        "layer_norm_type": "layer_norm",
        "position_embedding_type": "rope",
        "pack_qkv": True,
        "unpad_inputs": True,
        "use_memory_efficient_attention": True,
        "logn_attention_scale": False,
        "logn_attention_clip1": False,
    },
    "nomic_bert": {"model_type": "nomic_bert", **_BERT},
    "mpnet": {"model_type": "mpnet", **{key: value for key, value in _BERT.items() if key != "type_vocab_size"}},
    "deberta-v2": _DEBERTA,
}
"""One per ``model_type``."""

VARIANTS: dict[str, dict[str, Any]] = {
    "albert of one group and one width": {
        **TINY_CONFIGS["albert"],
        "num_hidden_groups": 1,
        "embedding_size": D,
    },
    "bert with another activation": {**TINY_CONFIGS["bert"], "hidden_act": "gelu_new"},
    "gte without token types": {**TINY_CONFIGS["gte"], "type_vocab_size": 0, "hidden_act": "relu"},
    "gte with stretched positions": {
        **TINY_CONFIGS["gte"],
        "rope_parameters": {"rope_type": "linear", "rope_theta": 70.0, "factor": 1.7},
    },
    "new without scaling": {**TINY_CONFIGS["new"], "rope_scaling": None, "type_vocab_size": 0},
    "nomic_bert in the older spelling": {
        "model_type": "nomic_bert",
        "vocab_size": V,
        "n_embd": D,
        "n_layer": 3,
        "n_head": 2,
        "n_inner": 256,
        "n_positions": 26,
        "layer_norm_epsilon": 1e-12,
        "type_vocab_size": 2,
        "activation_function": "swiglu",
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "prenorm": False,
        "pad_token_id": 0,
    },
    "nomic_bert with another gate": {**TINY_CONFIGS["nomic_bert"], "hidden_act": "gelu", "rope_theta": 30.0},
    "untied gte": {**TINY_CONFIGS["gte"], "tie_word_embeddings": False},
    "untied nomic_bert": {**TINY_CONFIGS["nomic_bert"], "tie_word_embeddings": False},
    "deberta-v2 with projections of its own": {**_DEBERTA, "share_att_key": False, "type_vocab_size": 2},
    "deberta-v2 that scores keys": {
        **_DEBERTA,
        "num_attention_heads": 6,
        "share_att_key": False,
        "pos_att_type": ["c2p"],
        "norm_rel_ebd": "none",
    },
    "deberta-v2 that scores queries": {
        **_DEBERTA,
        "num_attention_heads": 6,
        "share_att_key": False,
        "pos_att_type": "p2c",
    },
    "deberta-v2 without buckets": {**_DEBERTA, "position_buckets": -1, "max_relative_positions": 4},
    "deberta-v2 with a wide table": {**_DEBERTA, "position_buckets": 64, "position_biased_input": True},
    "deberta-v2 with a convolution": {**_DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"},
    "deberta-v2 with a convolution in groups": {**_DEBERTA, "conv_kernel_size": 5, "conv_groups": 3},
    "deberta-v2 with narrow embeddings": {**_DEBERTA, "embedding_size": 8, "type_vocab_size": 2},
    "deberta-v2 with the newer head": {**_DEBERTA, "legacy": False},
    "deberta-v2 without relative positions": {
        "model_type": "deberta-v2",
        **_BERT,
        "num_attention_heads": 3,
        "position_biased_input": True,
        "pos_att_type": "None",
    },
    "untied deberta-v2": {**_DEBERTA, "tie_word_embeddings": False},
    "untied mpnet": {**TINY_CONFIGS["mpnet"], "tie_word_embeddings": False},
    "electra of one width": {**TINY_CONFIGS["electra"], "embedding_size": D},
    "modernbert in the older spelling": {
        **_MODERNBERT,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 500.0,
        "local_rope_theta": 70.0,
    },
    "modernbert in the newer spelling": {
        **_MODERNBERT,
        "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
        },
    },
    "modernbert with biases": {
        **_MODERNBERT,
        "attention_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "classifier_bias": True,
        "hidden_activation": "silu",
    },
    "untied bert": {**TINY_CONFIGS["bert"], "tie_word_embeddings": False},
}
"""What the families' options can do besides."""


def newest_spelling(hf_config: dict[str, Any]) -> dict[str, Any]:
    """Return a config as transformers knows it by itself."""
    return respell(hf_config, read_config(hf_config))


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter values far from those it starts with, so that each of them shows in the result."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            centre = 1.0 if isinstance(module, nn.LayerNorm | RMSNorm) and name == "weight" else 0.0
            parameter.copy_(centre + 0.4 * torch.randn(parameter.shape, generator=generator))


def batch(num_token_types: int = 2, pad: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Make a batch whose texts have 9, 5 and 1 tokens; ids 0 and 1 are for padding only."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(2, V, (B, T), generator=generator)
    attention_mask = torch.ones(B, T, dtype=torch.long)
    for row, length in enumerate((T, 5, 1)):
        attention_mask[row, length:] = 0
        input_ids[row, length:] = pad
    features = {"input_ids": input_ids, "attention_mask": attention_mask}
    if num_token_types:
        features["token_type_ids"] = torch.randint(0, num_token_types, (B, T), generator=generator)
    return features
