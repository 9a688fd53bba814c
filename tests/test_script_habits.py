"""What scripts for sentence-transformers do beside the tour: numbers out of numpy, older names, first modules."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import mixed_texts, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.modules import SparseStaticEmbedding
from sparse_encoder.tokenizer import Tokenizer

TEXTS = mixed_texts(7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("scripts"))


@pytest.fixture
def model(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


def test_numbers_may_come_out_of_numpy(model: SparseEncoder, folder: Path, tmp_path: Path) -> None:
    expected = model.encode(TEXTS, batch_size=2, max_active_dims=5)
    found = model.encode(TEXTS, batch_size=np.int64(2), max_active_dims=np.int32(5))  # type: ignore[arg-type]
    assert torch.equal(found.to_dense(), expected.to_dense())
    assert model.decode(found, top_k=np.int64(2)) == model.decode(expected, top_k=2)  # type: ignore[arg-type]
    few = SparseEncoder(str(folder), device="cpu", max_active_dims=np.int64(3))  # type: ignore[arg-type]
    few.save_pretrained(str(tmp_path / "few"))
    assert SparseEncoder(str(tmp_path / "few"), device="cpu").max_active_dims == 3


def test_the_ends_of_a_model_and_its_configuration(model: SparseEncoder) -> None:
    assert model._first_module() is model[0]
    assert model._last_module() is model[1]
    assert model.config is not None
    assert model.config.hidden_size == model.config["hidden_size"] == model[0].auto_model.config.hidden_size == 12
    assert model[0].config.model_type == "bert"
    assert not hasattr(model.config, "n_layer")


def test_a_tokenizer_of_transformers_is_taken_over(model: SparseEncoder, folder: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    weight = torch.rand(model.tokenizer.vocab_size, generator=torch.Generator().manual_seed(1))
    expected = SparseEncoder(modules=[SparseStaticEmbedding(model.tokenizer, weight)], device="cpu").encode(TEXTS)
    found = SparseEncoder(modules=[SparseStaticEmbedding(theirs, weight)], device="cpu").encode(TEXTS)
    assert torch.equal(found.to_dense(), expected.to_dense())
    (tmp_path / "idf.json").write_text('{"rain": 2.5}')
    assert SparseStaticEmbedding.from_json(tmp_path / "idf.json", theirs).weight.sum().item() == 2.5
    rows = model.encode(TEXTS).to_dense()
    model.tokenizer = theirs
    assert isinstance(model.tokenizer, Tokenizer)
    assert torch.equal(model.encode(TEXTS).to_dense(), rows)
