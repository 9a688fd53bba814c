"""Scripts that add tokens to a tokenizer and resize the model: vectors, terms, files, indexes, what is forgotten."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from model_helpers import VOCABULARY, mixed_texts, write_encoder, write_masked_language_model
from tokenizers import AddedToken

from sparse_encoder import SparseEncoder
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.search import SparseIndex
from sparse_encoder.tokenizer import Tokenizer

TEXTS = mixed_texts(5)
V = len(VOCABULARY)


@pytest.fixture
def model(tmp_path: Path) -> SparseEncoder:
    return SparseEncoder(str(write_masked_language_model(tmp_path / "start")), device="cpu")


def grow(model: SparseEncoder, tokens: list[str]) -> None:
    """Do what scripts do."""
    model.tokenizer.add_tokens(tokens)
    model[0].auto_model.resize_token_embeddings(len(model.tokenizer))


def make_active(model: SparseEncoder, term: int) -> None:
    with torch.no_grad():
        model[0].auto_model.get_output_embeddings().bias[term] = 9.0


@pytest.mark.parametrize("encoded_before", [False, True])
def test_the_script_from_end_to_end(model: SparseEncoder, encoded_before: bool, tmp_path: Path) -> None:
    before = model.encode(TEXTS).to_dense() if encoded_before else None
    grow(model, ["covid", "monkeypox"])
    assert len(model.tokenizer) == model.get_embedding_dimension() == V + 2
    assert model.tokenizer.tokenize("rain covid monkeypox") == ["rain", "covid", "monkeypox"]
    rows = model.encode(TEXTS)
    assert rows.shape == (5, V + 2)
    if before is not None:
        torch.testing.assert_close(rows.to_dense()[:, :V], before)
    make_active(model, V + 1)
    query = model.encode("rain covid")
    assert model.decode(query, top_k=1)[0][0] == "monkeypox"
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert again.get_embedding_dimension() == len(again.tokenizer) == V + 2
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert torch.equal(again.encode("rain covid").to_dense(), query.to_dense())
    assert again.fingerprint == model.fingerprint


def test_a_resize_that_no_text_has_seen_is_saved(model: SparseEncoder, tmp_path: Path) -> None:
    model.encode(TEXTS)
    grow(model, ["covid"])
    model.save_pretrained(str(tmp_path / "saved"))
    pooling = json.loads((tmp_path / "saved" / "1_SpladePooling" / "config.json").read_text())
    assert pooling["embedding_dimension"] == V + 1
    assert SparseEncoder(str(tmp_path / "saved"), device="cpu").encode(TEXTS).shape == (5, V + 1)


def test_a_multiple_leaves_room(model: SparseEncoder, tmp_path: Path) -> None:
    model.tokenizer.add_tokens(["covid"])
    model[0].auto_model.resize_token_embeddings(len(model.tokenizer), pad_to_multiple_of=64)
    assert model.get_embedding_dimension() == model.encode(TEXTS).shape[1] == 128
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert again.get_embedding_dimension() == 128 and len(again.tokenizer) == V + 1


def test_new_tokens_without_a_resize_are_told_apart_from_a_broken_model(model: SparseEncoder, tmp_path: Path) -> None:
    model.tokenizer.add_tokens(["covid"])
    expected = rf"the tokenizer has {V + 1} tokens, the model embeddings for {V} of them; .*resize_token_embeddings\("
    with pytest.raises(ValueError, match=expected):
        model.encode("rain covid")
    with pytest.raises(ValueError, match=expected):
        model.save_pretrained(str(tmp_path / "saved"))


def test_an_index_of_before_is_refused(model: SparseEncoder) -> None:
    index = SparseIndex.build(model.encode(TEXTS))
    stamped = SparseIndex.build(model.encode(TEXTS), fingerprint=model.fingerprint)
    grow(model, ["covid"])
    with pytest.raises(ValueError, match=rf"the {V} terms of the index, got {V + 1}.*build the index again"):
        index.search(model.encode("rain"))
    with pytest.raises(ValueError, match="encode both with one model"):
        stamped.search(model.encode("rain"), fingerprint=model.fingerprint)
    assert SparseIndex.build(model.encode(TEXTS)).search(model.encode("rain"), top_k=1)[0]


def test_new_tokens_are_trained(model: SparseEncoder) -> None:
    grow(model, ["covid"])
    model.train()
    model(model.preprocess(["covid"]))["sentence_embedding"].sum().backward()
    words = model[0].auto_model.get_input_embeddings().weight
    assert words.grad is not None and words.grad.shape == (V + 1, 12) and words.grad[V].abs().sum() > 0


def test_both_routes_of_a_router_follow(tmp_path: Path) -> None:
    folder = write_masked_language_model(tmp_path / "start")
    shared = Transformer(folder, transformer_task="fill-mask")
    router = Router.for_query_document([shared, SpladePooling()], [shared, SpladePooling("sum")])
    model = SparseEncoder(modules=[router], device="cpu")
    model.encode_query(TEXTS), model.encode_document(TEXTS)
    shared.tokenizer.add_tokens(["covid"])
    shared.auto_model.resize_token_embeddings(len(shared.tokenizer))
    assert model.get_embedding_dimension() == V + 1
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert again.encode_query("covid").shape == again.encode_document("covid").shape == (V + 1,)


def inference_free(folder: Path) -> SparseEncoder:
    documents = Transformer(write_masked_language_model(folder), transformer_task="fill-mask")
    queries = SparseStaticEmbedding(documents.tokenizer, torch.arange(1.0, V + 1))
    return SparseEncoder(modules=[Router.for_query_document([queries], [documents, SpladePooling()])], device="cpu")


def test_models_without_inference_for_queries_grow(tmp_path: Path) -> None:
    model = inference_free(tmp_path / "start")
    router = model[0]
    (queries,), (documents, _) = router.sub_modules["query"], router.sub_modules["document"]
    before = model.encode_query(TEXTS).to_dense()
    model.tokenizer.add_tokens(["zork"])
    documents.auto_model.resize_token_embeddings(len(model.tokenizer))
    expected = (
        rf"route 'query': the tokenizer has {V + 1} tokens, the SparseStaticEmbedding weights for {V} of them; .*"
    )
    for call in (
        lambda: model.encode_query("zork rain"),
        lambda: model.encode_document("zork rain"),
        lambda: model.save_pretrained(str(tmp_path / "broken")),
    ):
        with pytest.raises(ValueError, match=expected + r"resize_token_embeddings\(len\(tokenizer\)\)"):
            call()
    weight = queries.weight
    assert queries.resize_token_embeddings(len(model.tokenizer), new_weight=2.5) is weight is queries.weight
    torch.testing.assert_close(model.encode_query(TEXTS).to_dense()[:, :V], before)
    query, document = model.encode_query("zork rain"), model.encode_document("zork rain")
    assert query.to_dense()[V].item() == 2.5
    assert query.shape == document.shape == (V + 1,) and model.get_embedding_dimension() == V + 1
    assert model.similarity(query, document).shape == (1, 1)
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.encode_query("zork rain").to_dense(), query.to_dense())
    assert torch.equal(again.encode_document("zork rain").to_dense(), document.to_dense())


def test_the_route_that_is_too_narrow_is_named(tmp_path: Path) -> None:
    model = inference_free(tmp_path)
    model.tokenizer.add_tokens(["zork"])
    model[0].sub_modules["query"][0].resize_token_embeddings(V + 1)
    with pytest.raises(ValueError, match=f"route 'document': the tokenizer has {V + 1} tokens, the model embeddings"):
        model.encode_document("zork")


def test_a_model_without_a_head_keeps_its_width(tmp_path: Path) -> None:
    model = SparseEncoder(str(write_encoder(tmp_path)), device="cpu")
    width = model.get_embedding_dimension()
    grow(model, ["covid"])
    assert model.get_embedding_dimension() == model.encode("covid").shape[0] == width


class TestTokenizer:
    def test_counts_and_ids(self, model: SparseEncoder) -> None:
        tokenizer = model.tokenizer
        before = tokenizer.fingerprint
        assert tokenizer.add_tokens("covid") == 1
        assert tokenizer.add_tokens(["covid", "monkeypox", "rain", ""]) == 1
        assert tokenizer.add_tokens([]) == 0
        assert tokenizer.vocab_size == len(tokenizer) == V + 2
        assert tokenizer.convert_tokens_to_ids(["covid", "monkeypox", "rain"]) == [V, V + 1, VOCABULARY.index("rain")]
        assert tokenizer.convert_ids_to_tokens(V + 1) == "monkeypox"
        assert tokenizer.get_added_vocab()["covid"] == V and "the" not in tokenizer.get_added_vocab()
        assert tokenizer.fingerprint != before
        assert tokenizer.decode(tokenizer.encode("the covid")) == "[CLS] the covid [SEP]"

    def test_added_tokens_have_options(self, model: SparseEncoder) -> None:
        model.tokenizer.add_tokens([AddedToken("qu", single_word=True), "ri"])
        assert model.tokenizer.tokenize("qu quer") == ["qu", "[UNK]"]  # the pieces have no ##u
        assert model.tokenizer.tokenize("rier") == ["ri", "e", "##r"]

    @pytest.mark.parametrize("wrong", [[3], [None], 3.5])
    def test_what_is_no_token_is_refused(self, model: SparseEncoder, wrong: object) -> None:
        with pytest.raises(TypeError):
            model.tokenizer.add_tokens(wrong)  # type: ignore[arg-type]
        assert len(model.tokenizer) == V

    def test_special_tokens(self, model: SparseEncoder, tmp_path: Path) -> None:
        tokenizer = model.tokenizer
        added = {"additional_special_tokens": ["[Q]", AddedToken("[D]", special=True)], "pad_token": "[NO]"}
        assert tokenizer.add_special_tokens(added) == 3
        assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[NO]", tokenizer.convert_tokens_to_ids("[NO]"))
        assert {"[Q]", "[D]", "[NO]"} <= set(tokenizer.all_special_tokens)
        assert tokenizer.tokenize("[Q] rain") == ["[Q]", "rain"]
        assert tokenizer.decode(tokenizer.encode("[Q] rain"), skip_special_tokens=True) == "rain"
        assert tokenizer.add_special_tokens({"extra_special_tokens": ["[E]"]}, replace_extra_special_tokens=False) == 1
        assert tokenizer.config.additional_special_tokens == ("[Q]", "[D]", "[E]")
        assert tokenizer.add_special_tokens({"extra_special_tokens": "[E]"}) == 0
        assert tokenizer.config.additional_special_tokens == ("[E]",)
        tokenizer.save_pretrained(tmp_path / "saved")
        again = Tokenizer.from_pretrained(tmp_path / "saved")
        assert again.get_vocab() == tokenizer.get_vocab()
        assert again.all_special_tokens == tokenizer.all_special_tokens
        assert again.fingerprint == tokenizer.fingerprint

    def test_special_tokens_that_cannot_be(self, model: SparseEncoder) -> None:
        with pytest.raises(ValueError, match=r"unknown special tokens \['query_token'\]; choose from"):
            model.tokenizer.add_special_tokens({"query_token": "[Q]"})
        with pytest.raises(TypeError, match="pad_token must be one token, got"):
            model.tokenizer.add_special_tokens({"pad_token": ["[A]", "[B]"]})
        assert len(model.tokenizer) == V

    def test_transformers_finds_the_same_tokens(self, model: SparseEncoder, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers = pytest.importorskip("transformers")
            theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "start"))
        texts = ["rain covid-19", "training monkeypox COVID", "[Q] covidcovid", "New York rain"]
        for tokenizer in (theirs, model.tokenizer):
            tokenizer.add_tokens(["covid", "New York", "rain"])
            tokenizer.add_special_tokens({"additional_special_tokens": ["[Q]"]})
        assert [model.tokenizer.encode(text) for text in texts] == [theirs.encode(text) for text in texts]
        model.tokenizer.save_pretrained(tmp_path / "ours")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "ours"))
        assert len(loaded) == len(theirs) == len(model.tokenizer)
        assert [loaded.encode(text) for text in texts] == [theirs.encode(text) for text in texts]
        assert "[Q]" in loaded.all_special_tokens


def test_checkpointing_is_switched_by_both_names(model: SparseEncoder) -> None:
    backbone = model[0].auto_model
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": True}, every_n_layers=2)
    assert model.is_gradient_checkpointing and model.is_activation_checkpointing
    assert backbone.backbone.checkpointing.every_n_layers == 2
    model.activation_checkpointing_disable()
    assert not backbone.is_gradient_checkpointing
    model.activation_checkpointing_enable()
    assert backbone.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing
