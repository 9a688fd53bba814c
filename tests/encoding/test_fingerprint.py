"""One hash per model: the same wherever and however often it is loaded, another for any other vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_helpers import write_encoder, write_masked_language_model

from sparse_encoder import SparseEncoder
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
