from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from modules_helpers import transformer
from text_helpers import CLS, SEP, SPARSE, A, bert_tokenizer
from torch import nn

from sparse_encoder.checkpoint import ConfigError, read_json
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.modules import (
    Asym,
    Dense,
    Normalize,
    Pooling,
    Router,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
)
from sparse_encoder.modules.pipeline import load_modules, save_modules


def splade_router(default_route: str | None = "document", allow_empty_key: bool = True) -> Router:
    module = transformer()
    static = SparseStaticEmbedding(bert_tokenizer(), torch.arange(17.0))
    return Router.for_query_document([static], [module, SpladePooling()], default_route, allow_empty_key).eval()


def change(folder: Path, **values: object) -> None:
    path = folder / "router_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_each_task_takes_its_route() -> None:
    router = splade_router()
    features = router.preprocess(["sparse a"], task="query")
    assert features["input_ids"].tolist() == [[SPARSE, A]]
    assert features["task"] == "query"
    weights = router(features)["sentence_embedding"]
    assert weights[0].nonzero().flatten().tolist() == [SPARSE, A]
    for task in ("document", None):
        features = router.preprocess(["sparse a"], task=task)
        assert features["input_ids"].tolist() == [[CLS, SPARSE, A, SEP]]
        direct = router.sub_modules["document"](dict(features))["sentence_embedding"]
        assert torch.equal(router(features)["sentence_embedding"], direct)
        assert router.tokenize_batch(["sparse a"], task=task).input_ids == [[CLS, SPARSE, A, SEP]]
    assert router.tokenize_batch(["a"], task="query", prompt="sparse ").input_ids == [[SPARSE, A]]


def test_the_argument_wins_over_the_feature() -> None:
    router = splade_router()
    features = router.preprocess(["sparse a"], task="document")
    weights = router(features, task="query")["sentence_embedding"]
    assert weights[0].nonzero().flatten().tolist() == [CLS, SEP, SPARSE, A]


def test_inputs_may_name_their_task() -> None:
    router = splade_router()
    assert router.preprocess([{"query": "a"}, {"query": "b"}])["task"] == "query"
    with pytest.raises(ValueError, match="the same task"):
        router.preprocess([{"query": "a"}, {"document": "b"}])
    with pytest.raises(ValueError, match="no route for task 'passage'"):
        router.preprocess(["a"], task="passage")


def test_the_order_in_which_routes_are_tried() -> None:
    module = transformer()
    routes = {name: [module] for name in ("one", "two", "three", "four", "task", "text", "default")}
    mappings: dict[Any, str] = {
        ("task", "text"): "one",
        ("task", None): "two",
        (None, "text"): "three",
        (None, None): "four",
    }
    for expected in ("one", "two", "three", "four"):
        assert Router(routes, "default", route_mappings=mappings).resolve_route("task") == expected
        del mappings[next(iter(mappings))]
    assert Router(routes, "default").resolve_route("task") == "task"
    assert Router(routes, "default").resolve_route("other") == "text"
    del routes["text"]
    assert Router(routes, "default").resolve_route(None) == "default"
    with pytest.raises(ValueError, match="no route for task 'other'"):
        Router(routes, "default").resolve_route("other")
    assert Router(routes).resolve_route(None) == "one"
    assert Router(routes).default_route == "one"
    with pytest.raises(ValueError, match="router_mapping"):
        Router(routes, allow_empty_key=False).resolve_route(None)


def test_several_modalities_are_one_key_in_any_order() -> None:
    router = Router({"a": [transformer()], "b": [transformer()]}, route_mappings={(None, ("text", "image")): "b"})
    assert router.resolve_route("x", ("image", "text")) == "b"
    assert list(router.route_mappings) == [(None, ("image", "text"))]


@pytest.mark.parametrize(
    ("routes", "options", "message"),
    [
        ({}, {}, "at least one route"),
        ({"query": []}, {}, "must have at least one module"),
        ({"../query": [1]}, {}, "name of a route"),
        ({"": [1]}, {}, "name of a route"),
        (None, {"default_route": "other"}, "default_route must be one of the routes"),
        (None, {"route_mappings": {("query", None): "other"}}, "must be one of the routes"),
        (None, {"route_mappings": {"query": "query"}}, "must be \\(task, modality\\)"),
        (None, {"route_mappings": {("query", 3): "query"}}, "must be names or None"),
    ],
)
def test_routes_that_lead_nowhere_are_refused(
    routes: dict[str, list[Any]] | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Router({"query": [transformer()]} if routes is None else routes, **options)


def test_options_reach_the_modules_that_declare_them() -> None:
    module = transformer("feature-extraction")
    auto_encoder = SparseAutoEncoder(12, 20, k=3)
    auto_encoder.latent_bias.data += 100
    router = Router({"document": [module, Pooling(12), auto_encoder]})
    features = router.preprocess(["sparse a"])
    assert router(features)["sentence_embedding"].count_nonzero() == 3
    assert router(features, max_active_dims=5, unknown=1)["sentence_embedding"].count_nonzero() == 5


def test_tokenizer_length_and_dimension() -> None:
    router = splade_router()
    static, module = router.sub_modules["query"][0], router.sub_modules["document"][0]
    assert router.tokenizer is static.tokenizer
    assert router.max_seq_length == 24
    router.max_seq_length = 9
    assert (static.max_seq_length, module.max_seq_length) == (9, 9)
    static.max_seq_length = 7
    assert router.max_seq_length == 9
    other = bert_tokenizer()
    router.tokenizer = other
    assert module.tokenizer is other
    assert router.get_embedding_dimension() == 17
    assert router.modalities == ["text"]
    assert Router({"a": [module, SpladePooling()]}).get_embedding_dimension() == 17


@pytest.mark.parametrize("default", [None, "query"])
def test_files(tmp_path: Path, default: str | None) -> None:
    router = splade_router(default_route=default, allow_empty_key=False)
    router.route_mappings = {("search", ("image", "text")): "query", (None, "text"): "document"}
    router.save(tmp_path)
    assert read_json(tmp_path / "router_config.json") == {
        "types": {
            "query_0_SparseStaticEmbedding": "sentence_transformers.sparse_encoder.modules.sparse_static_embedding."
            "SparseStaticEmbedding",
            "document_0_Transformer": "sentence_transformers.base.modules.transformer.Transformer",
            "document_1_SpladePooling": "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
        },
        "structure": {
            "query": ["query_0_SparseStaticEmbedding"],
            "document": ["document_0_Transformer", "document_1_SpladePooling"],
        },
        "parameters": {
            "default_route": default,
            "allow_empty_key": False,
            "route_mappings": {"('search', ('image', 'text'))": "query", "(None, 'text')": "document"},
        },
    }
    loaded = Router.load(tmp_path)
    assert loaded.get_config_dict() == router.get_config_dict()
    for task in ("search", None):
        features = router.preprocess(["sparse a"], task=task)
        torch.testing.assert_close(loaded(features)["sentence_embedding"], router(features)["sentence_embedding"])


def test_a_module_on_two_routes_is_written_and_loaded_once(tmp_path: Path) -> None:
    module = transformer()
    Router({"query": [module, SpladePooling()], "document": [module, SpladePooling("sum")]}).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "document_1_SpladePooling",
        "query_0_Transformer",
        "query_1_SpladePooling",
        "router_config.json",
    ]
    loaded = Router.load(tmp_path)
    assert loaded.sub_modules["query"][0] is loaded.sub_modules["document"][0]
    assert len(loaded.input_modules) == 1


def test_older_files_have_the_routes_in_config_json(tmp_path: Path) -> None:
    splade_router().save(tmp_path)
    (tmp_path / "router_config.json").rename(tmp_path / "config.json")
    values = read_json(tmp_path / "config.json")
    values["parameters"] = {"allow_empty_key": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert Asym.load(tmp_path).default_route == "query"


def test_flat_copies_share_the_routers_folder(tmp_path: Path) -> None:
    splade_router().save(tmp_path)
    document = tmp_path / "document_0_Transformer"
    for path in document.iterdir():
        path.rename(tmp_path / path.name)
    document.rmdir()
    static = tmp_path / "query_0_SparseStaticEmbedding"
    for path in static.iterdir():
        path.unlink()
    static.rmdir()
    (tmp_path / "idf.json").write_text('{"a": 2, "sparse": 3}')
    loaded = Router.load(tmp_path)
    weights = loaded(loaded.preprocess(["a a"], task="query"))["sentence_embedding"]
    assert weights[0].tolist() == [2.0 if place == A else 0.0 for place in range(15)]
    assert loaded.preprocess(["a"])["input_ids"].tolist() == [[CLS, A, SEP]]


def test_a_module_without_files_needs_no_folder(tmp_path: Path) -> None:
    Router({"query": [transformer(), SpladePooling(), Normalize()]}).save(tmp_path)
    folder = tmp_path / "query_2_Normalize"
    (folder / "config.json").unlink()
    folder.rmdir()
    assert isinstance(Router.load(tmp_path).route("query")[2], Normalize)


@pytest.mark.parametrize(
    "values",
    [
        {"types": {}},
        {"types": []},
        {"structure": {}},
        {"structure": {"query": "query_0_SparseStaticEmbedding"}},
        {"structure": {"query": []}},
        {"structure": {"query": ["absent"]}},
        {"structure": {"query": ["query_0_SparseStaticEmbedding"]}},  # leaves the others without a route
        {"structure": {f"route{number}": ["document_0_Transformer"] for number in range(100)}},
        {"parameters": None},
        {"parameters": {"default_route": "other"}},
        {"parameters": {"unknown": 1}},
        {"parameters": {"route_mappings": ["query"]}},
        {"parameters": {"route_mappings": {"('query', None)": "other"}}},
        {"parameters": {"route_mappings": {"query": "query"}}},
        {"parameters": {"route_mappings": {"__import__('os').getcwd()": "query"}}},
        {"parameters": {"route_mappings": {"(" * 400: "query"}}},
        {"parameters": {"route_mappings": {"(None, " + "'a', " * 200 + ")": "query"}}},
    ],
)
def test_bad_files_are_refused(tmp_path: Path, values: dict[str, object]) -> None:
    splade_router().save(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ConfigError, match="router_config.json"):
        Router.load(tmp_path)


@pytest.mark.parametrize("name", ["../escape", "/etc", "a\\b", "", "C:x"])
def test_folders_outside_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    splade_router().save(folder)
    kind = "sentence_transformers.models.Normalize"
    change(folder, types={name: kind}, structure={"query": [name]})
    with pytest.raises(ConfigError, match="relative"):
        Router.load(folder)


def test_routes_behind_other_modules_may_hold_any_modules() -> None:
    module = transformer("feature-extraction")
    torch.manual_seed(1)
    router = Router({"query": [Dense(12, 5)], "document": [nn.Identity()], "both": [Dense(12, 5), Normalize()]})
    model = ModuleSequence([module, Pooling(12), router]).eval()
    assert router.reads_texts is False
    assert router.tokenizer is None
    features = model.preprocess("sparse a")
    pooled = ModuleSequence([module, Pooling(12)])(dict(features))["sentence_embedding"]
    query = model(dict(features), task="query")["sentence_embedding"]
    torch.testing.assert_close(
        query, router.sub_modules["query"][0]({"sentence_embedding": pooled})["sentence_embedding"]
    )
    assert torch.equal(model(dict(features), task="document")["sentence_embedding"], pooled)
    assert torch.equal(model({**features, "task": "document"})["sentence_embedding"], pooled)  # as in training
    assert model(dict(features), task="both")["sentence_embedding"].norm().item() == pytest.approx(1.0)
    with pytest.raises(TypeError, match="a Router does not; each of its routes must begin with one that does"):
        ModuleSequence([router])


def test_routes_behind_other_modules_are_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    routes = {"query": [Dense(12, 5)], "document": [Dense(12, 5), Normalize()]}
    modules = [transformer("feature-extraction"), Pooling(12), Router(routes)]
    save_modules(modules, tmp_path)
    model, loaded = ModuleSequence(modules).eval(), ModuleSequence(load_modules(tmp_path)).eval()
    features = model.preprocess(["sparse a", "a"])
    for task in routes:
        first, second = (each(dict(features), task=task)["sentence_embedding"] for each in (model, loaded))
        assert torch.equal(first, second)
    entries = [{**entry, "idx": 0, "path": "2_Router"} for entry in json.loads((tmp_path / "modules.json").read_text())]
    (tmp_path / "modules.json").write_text(json.dumps(entries[2:]))
    with pytest.raises(ConfigError, match="must begin with modules that read texts"):
        load_modules(tmp_path)


def test_a_single_input_needs_no_list() -> None:
    router = splade_router()
    for inputs, task in (("sparse a", "query"), ({"query": "sparse a"}, None)):
        assert router.preprocess(inputs, task=task)["input_ids"].tolist() == [[SPARSE, A]]
    assert router.tokenize("sparse a", task="document")["input_ids"].tolist() == [[CLS, SPARSE, A, SEP]]
