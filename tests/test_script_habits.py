"""What scripts for sentence-transformers do beside the tour, and where they find something else on purpose."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import mixed_texts, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.embeddings import SparseEmbeddings
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


class TestDifferencesOnPurpose:
    """Each is in a docstring."""

    def test_embeddings_are_tensors_when_they_are_asked_to_be(self, model: SparseEncoder) -> None:
        rows = model.encode(TEXTS)
        assert isinstance(rows, SparseEmbeddings)
        assert not isinstance(rows, torch.Tensor)
        assert isinstance(model.encode(TEXTS[0]), SparseEmbeddings)
        assert all(isinstance(row, SparseEmbeddings) for row in model.encode(TEXTS, convert_to_tensor=False))
        tensor = model.encode(TEXTS, convert_to_tensor=True)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.layout is torch.sparse_coo
        assert tensor.is_coalesced()
        assert torch.equal(rows.to_torch().to_dense(), tensor.to_dense())
        assert isinstance(model.intersection(rows[0], rows), SparseEmbeddings)
        assert isinstance(model.intersection(tensor[0], tensor), torch.Tensor)

    @pytest.mark.parametrize("sparse", [True, False])
    def test_no_texts_give_no_rows_of_the_usual_width(self, model: SparseEncoder, sparse: bool) -> None:
        found = model.encode([], convert_to_tensor=True, convert_to_sparse_tensor=sparse)
        assert isinstance(found, torch.Tensor)
        assert (found.shape, found.is_sparse) == ((0, model.get_embedding_dimension()), sparse)
        assert model.encode([], convert_to_tensor=False) == []

    def test_a_model_in_training_stays_in_training(self, model: SparseEncoder) -> None:
        model.train()
        model.encode(TEXTS)
        assert all(module.training for module in model.modules())

    def test_features_name_no_modality(self, model: SparseEncoder) -> None:
        assert set(model.preprocess(TEXTS)) == {"input_ids", "attention_mask", "token_type_ids"}
        assert model.modalities == ["text"]

    def test_texts_longer_than_the_positions_cannot_be_asked_for(self, model: SparseEncoder) -> None:
        with pytest.raises(ValueError, match="max_seq_length must be at most 64, the positions of the model, got 65"):
            model.max_seq_length = 65
        assert model.max_seq_length == 64

    def test_pairs_of_texts_and_what_is_no_text_are_refused(self, model: SparseEncoder) -> None:
        for inputs in ([["rain", "sun"]], [("rain", "sun")], [3], [None]):
            with pytest.raises(TypeError, match=r"inputs\[0\] must be a string"):
                model.encode(inputs)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda model: model.encode("rain", normalize_embeddings=True), ValueError),
            (lambda model: model.encode("rain", prompt_name="passage"), ValueError),
            (lambda model: model.decode([1, 2, 3]), TypeError),
            (lambda model: model.decode(torch.zeros(2, 3, 4)), ValueError),
            (lambda model: model.decode(model.encode("rain"), top_k=0), ValueError),
            (lambda model: model.sparsity([1.0]), TypeError),
            (lambda model: setattr(model, "similarity_fn_name", "angle"), ValueError),
            (lambda model: SparseEncoder(modules=list(model), default_prompt_name="passage"), ValueError),
            (lambda model: SparseEncoder("no/such/folder"), FileNotFoundError),
        ],
    )
    def test_errors_have_the_usual_types(
        self, model: SparseEncoder, call: Callable[[SparseEncoder], object], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            call(model)

    def test_parameters_have_one_name_in_all_families(self, model: SparseEncoder) -> None:
        names = [name for name, _ in model.named_parameters()]
        assert names[0] == "0.model.backbone.embeddings.word.weight"
        assert "0.model.backbone.layers.0.attention.q.weight" in names
