"""One hash per model: the same wherever and however often it is loaded, another for any other vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from model_helpers import write_encoder, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.encoding.fingerprint import _settings
from sparse_encoder.modules import Router, SparseStaticEmbedding


@pytest.fixture
def model(tmp_path: Path) -> SparseEncoder:
    return SparseEncoder(str(write_masked_language_model(tmp_path / "plain")), device="cpu")


def routed(model: SparseEncoder) -> SparseEncoder:
    weight = torch.rand(len(model.tokenizer), generator=torch.Generator().manual_seed(9))
    static = SparseStaticEmbedding(tokenizer=model.tokenizer, weight=weight)
    router = Router.for_query_document(query_modules=[static], document_modules=list(model))
    return SparseEncoder(modules=[router], device="cpu")


def test_the_fingerprint_survives_saving(model: SparseEncoder, tmp_path: Path) -> None:
    write_encoder(tmp_path / "dense")
    auto_encoder = SparseEncoder(str(tmp_path / "dense"), device="cpu")
    seen = set()
    for number, each in enumerate((model, auto_encoder, routed(model))):
        each.encode_query(["rain"])
        folder = str(tmp_path / str(number))
        each.save_pretrained(folder)
        assert SparseEncoder(folder, device="cpu").fingerprint == each.fingerprint
        assert each.train().fingerprint == each.eval().fingerprint
        assert len(each.fingerprint) == 64
        seen.add(each.fingerprint)
    assert len(seen) == 3


def test_any_weight_counts(model: SparseEncoder) -> None:
    for each in (model, routed(model)):
        for name, parameter in each.named_parameters():
            before = each.fingerprint
            with torch.no_grad():
                parameter.view(-1)[-1] += 0.5
            assert each.fingerprint != before, name
    before = model.fingerprint
    assert model.to(torch.bfloat16).fingerprint != before


def test_settings_that_change_vectors_count_and_others_do_not(model: SparseEncoder, tmp_path: Path) -> None:
    before = model.fingerprint
    model.splade_pooling_chunk_size = 3
    model.max_seq_length = 9
    model.prompts = {"query": "sun "}
    assert model.fingerprint == before
    model[1].pooling_strategy = "sum"
    assert model.fingerprint != before
    folder = str(tmp_path / "plain")
    upper = SparseEncoder(folder, device="cpu", config_kwargs={"layer_norm_eps": 1e-6})
    assert upper.fingerprint != before


FIRST_FIELDS = """
vocab_size hidden_size num_layers num_heads intermediate_size max_positions embedding_size project_embeddings
projection_bias norm_after_projection num_token_types pad_token_id position_kind relative_bias disentangled convolution
rotary_theta local_rotary_theta rotary_stretch layer_types local_window layer_order pruned_heads activation gated
gate_layout fused_qkv attention_bias feed_forward_bias down_bias norm_bias norm_eps pre_norm first_attention_norm
embedding_dropout attention_dropout attention_output_dropout feed_forward_dropout feed_forward_output_dropout
head_activation head_bias decoder_bias tie_word_embeddings initializer_range sinusoidal_positions initializer_cutoff
"""


@pytest.mark.parametrize("name", sorted(TINY_CONFIGS))
def test_options_that_came_later_change_no_fingerprint_of_an_encoder(name: str) -> None:
    """An index keeps the fingerprint of the model of its vectors; see ``_LATER``."""
    hashed = _settings(MaskedLanguageModel.from_config(TINY_CONFIGS[name]))
    assert list(hashed) == FIRST_FIELDS.split()
    if isinstance(bias := hashed["relative_bias"], dict):
        assert list(bias) == ["num_buckets", "max_distance"]
