"""Models saved by sentence-transformers here, and ours there: the same vectors, terms and scores."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import VOCABULARY, mixed_texts, write_encoder, write_masked_language_model

from sparse_encoder import SparseEmbeddings, SparseEncoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sparse_encoder import modules as peer_modules

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

PeerModel = Any
TEXTS = [*mixed_texts(11), "", "rain"]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def peer_splade(folder: Path, pooling_strategy: str = "max", activation_function: str = "relu") -> PeerModel:
    write_masked_language_model(folder / "plain")
    transformer = peer_modules.Transformer(str(folder / "plain"), transformer_task="fill-mask")
    return peer.SparseEncoder(
        modules=[transformer, peer_modules.SpladePooling(pooling_strategy, activation_function)], device="cpu"
    )


def peer_sum(folder: Path) -> PeerModel:
    return peer_splade(folder, pooling_strategy="sum", activation_function="log1p_relu")


def peer_router(folder: Path) -> PeerModel:
    splade = peer_splade(folder)
    weight = torch.rand(len(VOCABULARY), generator=torch.Generator().manual_seed(9))
    static = peer_modules.SparseStaticEmbedding(tokenizer=splade.tokenizer, weight=weight, frozen=True)
    router = peer_modules.Router.for_query_document(query_modules=[static], document_modules=list(splade))
    return peer.SparseEncoder(modules=[router], device="cpu", similarity_fn_name="dot")


def peer_auto_encoder(folder: Path) -> PeerModel:
    write_encoder(folder / "plain")
    transformer = peer_modules.Transformer(str(folder / "plain"))
    torch.manual_seed(8)
    parts = [
        transformer,
        peer.sentence_transformer.modules.Pooling(12, pooling_mode="mean"),
        peer_modules.SparseAutoEncoder(input_dim=12, hidden_dim=60, k=7, k_aux=20),
    ]
    return peer.SparseEncoder(modules=parts, device="cpu", similarity_fn_name="cosine")


PEERS: dict[str, Callable[[Path], PeerModel]] = {
    "splade": peer_splade,
    "splade sum": peer_sum,
    "router": peer_router,
    "auto-encoder": peer_auto_encoder,
}


@pytest.fixture(scope="module", params=PEERS)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PeerModel, Path]:
    """A peer's model and the folder that it saved."""
    folder = tmp_path_factory.mktemp("peer")
    model = PEERS[request.param](folder)
    model.encode_query(["rain"])  # the pooling learns its dimension from the first forward
    model.save_pretrained(str(folder / "saved"))
    return model, folder / "saved"


def dense(embeddings: SparseEmbeddings | torch.Tensor) -> torch.Tensor:
    return embeddings.to_dense()


def check_equal(ours: SparseEncoder, model: PeerModel) -> None:
    """Compare everything that a user sees of two models."""
    pairs = []
    for name in ("encode_query", "encode_document"):
        left, right = getattr(ours, name)(TEXTS), getattr(model, name)(TEXTS)
        torch.testing.assert_close(dense(left), dense(right), **TOLERANCE)
        pairs.append((left, right))
    (our_queries, their_queries), (our_documents, their_documents) = pairs
    assert ours.sparsity(our_documents) == pytest.approx(model.sparsity(their_documents))
    for theirs_decoded, ours_decoded in zip(
        model.decode(their_documents, top_k=5), ours.decode(our_documents, top_k=5), strict=True
    ):
        assert [term for term, _ in ours_decoded] == [term for term, _ in theirs_decoded]
        assert [weight for _, weight in ours_decoded] == pytest.approx([w for _, w in theirs_decoded], abs=1e-5)
    assert len(ours.decode(our_queries[3])) == len(model.decode(their_queries[3]))
    torch.testing.assert_close(
        dense(ours.intersection(our_queries[2], our_documents)),
        dense(model.intersection(their_queries[2], their_documents)),
        **TOLERANCE,
    )
    assert ours.similarity_fn_name == model.similarity_fn_name
    for function in ("dot", "cosine", "euclidean", "manhattan"):
        ours.similarity_fn_name = model.similarity_fn_name = function
        for method in ("similarity", "similarity_pairwise"):
            mine = getattr(ours, method)(our_queries, our_documents)
            other = getattr(model, method)(their_queries, their_documents)
            if function == "euclidean":  # the peer's squares are float32 differences of large numbers: compare those
                largest = float(dense(our_documents).square().sum(dim=1).max())
                torch.testing.assert_close(mine.square(), other.square(), atol=1e-6 * largest, rtol=1e-5)
            else:
                torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_a_peers_model_works_the_same_here(theirs: tuple[PeerModel, Path]) -> None:
    model, folder = theirs
    check_equal(SparseEncoder(str(folder), device="cpu"), model)


def test_ours_works_the_same_there(theirs: tuple[PeerModel, Path], tmp_path: Path) -> None:
    ours = SparseEncoder(str(theirs[1]), device="cpu")
    ours.save_pretrained(str(tmp_path / "ours"))
    check_equal(ours, peer.SparseEncoder(str(tmp_path / "ours"), device="cpu"))


def test_saving_changes_no_file_of_settings(theirs: tuple[PeerModel, Path], tmp_path: Path) -> None:
    SparseEncoder(str(theirs[1]), device="cpu").save_pretrained(str(tmp_path / "ours"))
    for path in theirs[1].rglob("*.json"):
        again = tmp_path / "ours" / path.relative_to(theirs[1])
        if path.name in ("tokenizer.json", "tokenizer_config.json"):
            assert again.exists()
            continue
        values = [json.loads(each.read_text()) for each in (path, again)]
        if path.name == "config_sentence_transformers.json":
            assert [value.pop("__version__").get("pytorch") for value in values] == [torch.__version__] * 2
        if path.name == "config.json" and "transformers_version" in values[0]:
            continue  # the backbone's own: its keys are the subject of its own tests
        assert again.exists()
        assert values[0] == values[1], path


def test_state_dicts_have_the_peers_shape(theirs: tuple[PeerModel, Path]) -> None:
    ours = SparseEncoder(str(theirs[1]), device="cpu")
    prefixes = {name.split(".")[0] for name in ours.state_dict()}
    assert prefixes == {name.split(".")[0] for name in theirs[0].state_dict()}
    kept = [p for name, p in theirs[0].named_parameters() if ".pooler." not in name]  # the peer's, never used
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in kept)


def test_plain_checkpoints_become_the_same_model(tmp_path: Path) -> None:
    folder = write_masked_language_model(tmp_path / "plain")
    ours, theirs = SparseEncoder(str(folder), device="cpu"), peer.SparseEncoder(str(folder), device="cpu")
    check_equal(ours, theirs)


def test_the_first_generation_of_folders(tmp_path: Path) -> None:
    model = peer_splade(tmp_path)
    model.encode(["rain"])
    folder = tmp_path / "saved"
    model.save_pretrained(str(folder))
    home = "sentence_transformers.sparse_encoder.models"
    entries = [
        {"idx": 0, "name": "0", "path": "", "type": f"{home}.MLMTransformer"},
        {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": f"{home}.SpladePooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": len(VOCABULARY)}
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(pooling))
    ours, theirs = SparseEncoder(str(folder), device="cpu"), peer.SparseEncoder(str(folder), device="cpu")
    assert ours.max_seq_length == theirs.max_seq_length == 20
    check_equal(ours, theirs)
    ours.save_pretrained(str(tmp_path / "again"))
    again = peer.SparseEncoder(str(tmp_path / "again"), device="cpu")
    assert again.max_seq_length == 20
    check_equal(ours, again)


def test_lengths_and_prompts_travel(tmp_path: Path) -> None:
    model = peer_splade(tmp_path)
    model.prompts = {"query": "sun ", "document": "", "passage": "stone "}
    model.max_seq_length = 9
    model.max_active_dims = 6
    model.save_pretrained(str(tmp_path / "saved"))
    ours = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert (ours.prompts, ours.max_seq_length, ours.max_active_dims) == (model.prompts, 9, 6)
    torch.testing.assert_close(dense(ours.encode_query(TEXTS)), dense(model.encode_query(TEXTS)), **TOLERANCE)
    # Documents: the peer forgets a saved passage prompt; here it is used.
    expected = model.encode(TEXTS, prompt_name="passage", task="document")
    torch.testing.assert_close(dense(ours.encode_document(TEXTS)), dense(expected), **TOLERANCE)
    assert not torch.allclose(dense(ours.encode_document(TEXTS)), dense(model.encode_document(TEXTS)))


def test_a_dense_model_gets_an_auto_encoder(tmp_path: Path) -> None:
    write_encoder(tmp_path / "plain")
    dense_model = peer.SentenceTransformer(str(tmp_path / "plain"), device="cpu", prompts={"query": "sun "})
    dense_model.save_pretrained(str(tmp_path / "dense"))
    torch.manual_seed(5)
    theirs = peer.SparseEncoder(str(tmp_path / "dense"), device="cpu")
    ours = SparseEncoder(str(tmp_path / "dense"), device="cpu")
    assert [type(part).__name__ for part in ours] == [type(part).__name__ for part in theirs]
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 48
    assert ours.max_active_dims == theirs.max_active_dims == 3
    assert ours.prompts == theirs.prompts
    tensors = theirs[2].state_dict()
    del tensors["decoder.linear.weight"]  # the encoder's matrix under a second name
    ours[2].load_state_dict(tensors)
    ours.similarity_fn_name = theirs.similarity_fn_name
    check_equal(ours, theirs)
