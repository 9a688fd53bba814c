"""Scripts as users of sentence-transformers write them, run on both libraries: only the imports differ."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_helpers import mixed_texts, write_encoder, write_masked_language_model

import sparse_encoder
from sparse_encoder import modules, util

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    import sentence_transformers.util as peer_util
    from sentence_transformers.sparse_encoder import modules as peer_modules

pytestmark = pytest.mark.filterwarnings("ignore")

DOCUMENTS, QUERIES = mixed_texts(12), mixed_texts(3, seed=9)
Library = SimpleNamespace
Found = dict[str, Any]

OURS = Library(
    SparseEncoder=sparse_encoder.SparseEncoder,
    SimilarityFunction=sparse_encoder.SimilarityFunction,
    Pooling=modules.Pooling,
    modules=modules,
    util=util,
)
THEIRS = Library(
    SparseEncoder=peer.SparseEncoder,
    SimilarityFunction=peer.SimilarityFunction,
    Pooling=peer.sentence_transformer.modules.Pooling,
    modules=peer_modules,
    util=peer_util,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_masked_language_model(tmp_path_factory.mktemp("model")))


def first_steps(library: Library, checkpoint: str) -> Found:
    model = library.SparseEncoder(checkpoint)
    embeddings = model.encode(DOCUMENTS)
    statistics = library.SparseEncoder.sparsity(embeddings)
    return {
        "shape": tuple(embeddings.shape),
        "similarities": model.similarity(embeddings, embeddings),
        "line": f"{statistics['active_dims']:.1f} dims, {statistics['sparsity_ratio']:.2%} sparse",
        "one": tuple(model.encode("rain").shape),
        "nothing": model.encode([]).numel(),
        "length": model.max_seq_length,
        "modules": [type(model[0]).__name__, type(model[1]).__name__],
        "tokens": model.tokenizer.convert_ids_to_tokens([5, 6]),
        "ids": model.tokenizer(["rain sun", "rain"], padding=True, return_tensors="pt")["input_ids"],
    }


def semantic_search(library: Library, checkpoint: str) -> Found:
    model = library.SparseEncoder(checkpoint)
    queries, corpus = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    found: Found = {}
    for query, scores in zip(queries, model.similarity(queries, corpus), strict=True):
        values, rows = torch.topk(scores, k=5)
        terms = model.decode(query, top_k=4)
        found[f"query {len(found)}"] = (rows.tolist(), values, ", ".join(f'("{t.strip()}", {v:.2f})' for t, v in terms))
    for function in (library.util.dot_score, library.util.cos_sim, model.similarity):
        hits = library.util.semantic_search(queries, corpus, top_k=3, score_function=function)
        found[f"hits {len(found)}"] = [[hit["corpus_id"] for hit in row] for row in hits]
    return found


def shared_terms(library: Library, checkpoint: str) -> Found:
    model = library.SparseEncoder(checkpoint)
    query, documents = model.encode_query(QUERIES[0]), model.encode_document(DOCUMENTS)
    return {
        "one": model.decode(model.intersection(query, documents[0]), top_k=3),
        "many": [[term for term, _ in row] for row in model.decode(model.intersection(query, documents), top_k=3)],
        "decoded": [[term for term, _ in model.decode(row, top_k=4)] for row in documents],
    }


def limits(library: Library, checkpoint: str) -> Found:
    model = library.SparseEncoder(checkpoint)
    found: Found = {}
    for limit in (4, 16, 64):
        rows = model.encode(DOCUMENTS, max_active_dims=limit, convert_to_tensor=True)
        found[str(limit)] = (model.sparsity(rows)["active_dims"], model.similarity(rows, rows))
    return found


def tensors(library: Library, checkpoint: str) -> Found:
    model = library.SparseEncoder(checkpoint)
    queries, rows = model.encode(QUERIES), model.encode(DOCUMENTS)
    first = rows[0].coalesce()
    return {
        "places": first.indices()[0].tolist(),
        "weights": first.values(),
        "sparse": (rows.is_sparse, str(rows.device), rows.dtype, len(rows), rows.size(1), rows.dim()),
        "selected": torch.index_select(rows, 0, torch.tensor([1, 3])).to_dense(),
        "product": torch.mm(queries, rows.t()).to_dense(),
        "joined": torch.cat([queries, rows]).to_dense(),
        "stacked": torch.stack(model.encode(DOCUMENTS, convert_to_tensor=False)).to_dense(),
        "coordinates": rows.coalesce().indices(),
        "array": torch.from_numpy(rows.cpu().to_dense().numpy()),
    }


def similarities(library: Library, checkpoint: str) -> Found:
    model = library.SparseEncoder(checkpoint)
    queries, rows = model.encode(QUERIES), model.encode(DOCUMENTS)
    found: Found = {}
    for name in (library.SimilarityFunction.COSINE, "manhattan", "dot", library.SimilarityFunction.EUCLIDEAN):
        model.similarity_fn_name = name
        pairs = torch.index_select(rows, 0, torch.arange(3))
        found[model.similarity_fn_name] = (model.similarity(queries, rows), model.similarity_pairwise(queries, pairs))
    return found


def inference_free(library: Library, checkpoint: str) -> Found:
    documents = library.modules.MLMTransformer(checkpoint)
    router = library.modules.Router.for_query_document(
        query_modules=[library.modules.SparseStaticEmbedding(tokenizer=documents.tokenizer, frozen=False)],
        document_modules=[documents, library.modules.SpladePooling("max")],
    )
    model = library.SparseEncoder(modules=[router], similarity_fn_name="dot")
    return {
        "terms": sorted(model.decode(model.encode_query("rain on the river"))),
        "scores": model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS)),
        "sizes": (model.get_embedding_dimension(), model.max_seq_length),
    }


def auto_encoder(library: Library, checkpoint: str) -> Found:
    write_encoder(Path(checkpoint) / "encoder")
    transformer = library.modules.Transformer(str(Path(checkpoint) / "encoder"))
    dim = transformer.get_embedding_dimension()
    pooling = library.Pooling(dim, pooling_mode="mean")
    code = library.modules.SparseAutoEncoder(input_dim=dim, hidden_dim=4 * dim, k=8, k_aux=16)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        code.encoder.weight.copy_(torch.randn(code.encoder.weight.shape, generator=generator))
    model = library.SparseEncoder(modules=[transformer, pooling, code])
    rows = model.encode(DOCUMENTS)
    return {"limit": model.max_active_dims, "rows": rows.to_dense(), "sparsity": model.sparsity(rows)["active_dims"]}


SCRIPTS: list[Callable[[Library, str], Found]] = [
    first_steps,
    semantic_search,
    shared_terms,
    limits,
    tensors,
    similarities,
    inference_free,
    auto_encoder,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_gives_the_same_on_both(script: Callable[[Library, str], Found], checkpoint: str) -> None:
    ours, theirs = script(OURS, checkpoint), script(THEIRS, checkpoint)
    assert ours.keys() == theirs.keys()
    for name, mine in ours.items():
        check_same(mine, theirs[name])


def check_same(mine: object, other: object) -> None:
    """Compare results: tensors nearly, everything else exactly."""
    if isinstance(other, torch.Tensor):
        torch.testing.assert_close(mine, other, atol=5e-4, rtol=1e-4, check_dtype=False)
    elif isinstance(other, float):
        assert mine == pytest.approx(other, abs=1e-5)
    elif isinstance(other, (list, tuple)):
        assert isinstance(mine, (list, tuple))
        assert len(mine) == len(other)
        for each, its in zip(mine, other, strict=True):
            check_same(each, its)
    else:
        assert mine == other
