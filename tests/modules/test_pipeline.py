from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from modules_helpers import transformer
from torch import nn

from sparse_encoder.checkpoint import ConfigError, read_json
from sparse_encoder.module_entries import READ_TEXTS, SPELLINGS, TRANSFORMERS, class_name_of, read_entries
from sparse_encoder.modules import (
    Dense,
    Dropout,
    InputModule,
    MLMTransformer,
    Module,
    Normalize,
    Pooling,
    Router,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
    Transformer,
)
from sparse_encoder.modules.module_types import MODULE_CLASSES, MODULE_TYPES
from sparse_encoder.modules.pipeline import check_can_be_saved, load_modules, save_modules

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
POOLING = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A SPLADE model."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_modules([transformer(), SpladePooling(embedding_dimension=17)], folder)
    return folder


def entries(folder: Path) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = read_json(folder / "modules.json")
    return values


def write(folder: Path, values: object) -> None:
    (folder / "modules.json").write_text(json.dumps(values))


def run(modules: list[nn.Module], text: str = "sparse rows a") -> torch.Tensor:
    features = modules[0].preprocess([text])  # type: ignore[operator]
    with torch.inference_mode():
        for module in modules:
            features = module.eval()(features)
    embedding: torch.Tensor = features["sentence_embedding"]
    return embedding


def test_the_files_of_a_splade_model(folder: Path) -> None:
    assert entries(folder) == [
        {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
        {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": POOLING},
    ]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1_SpladePooling/config.json",
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert torch.equal(run(load_modules(folder)), run([transformer(), SpladePooling()]))


def test_every_kind_of_module_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    modules = [
        transformer("feature-extraction"),
        Pooling(12, ("mean", "cls")),
        Dropout(0.1),
        Dense(24, 7),
        Normalize(),
        SparseAutoEncoder(7, 40, k=3),
    ]
    save_modules(modules, tmp_path)
    assert [entry["path"] for entry in entries(tmp_path)] == [
        "",
        "1_Pooling",
        "2_Dropout",
        "3_Dense",
        "4_Normalize",
        "5_SparseAutoEncoder",
    ]
    loaded = load_modules(tmp_path)
    assert [type(module) for module in loaded] == [type(module) for module in modules]
    assert torch.equal(run(loaded), run(list(modules)))


def test_an_mlm_transformer_is_saved_as_a_transformer(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    save_modules([MLMTransformer(folder), SpladePooling()], again)
    assert entries(again)[0]["type"] == TRANSFORMER
    assert type(load_modules(again)[0]) is Transformer


def test_a_static_embedding_may_come_later(tmp_path: Path) -> None:
    module = transformer()
    static = SparseStaticEmbedding(module.tokenizer, torch.ones(17))
    save_modules([module, SpladePooling(), static], tmp_path)
    weights = run(load_modules(tmp_path))
    assert 0 < weights.count_nonzero() <= 5


def test_modules_of_others_are_not_saved(tmp_path: Path) -> None:
    class Own(SpladePooling):
        pass

    for module in (nn.ReLU(), Own()):
        with pytest.raises(TypeError, match="cannot be saved"):
            save_modules([transformer(), module], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_modules_of_others_on_a_route_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    router = Router.for_query_document([transformer(), SpladePooling()], [transformer(), nn.ReLU()])
    with pytest.raises(TypeError, match="a ReLU cannot be saved"):
        check_can_be_saved([router])
    with pytest.raises(TypeError, match="a ReLU cannot be saved"):
        save_modules([router], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(MODULE_TYPES))
def test_every_spelling_of_a_type_is_understood(name: str) -> None:
    kinds = {kind.__name__: kind for kind in (*Module.__subclasses__(), Transformer, MLMTransformer, Router)}
    kinds |= {"Asym": Router, "IDF": SparseStaticEmbedding, "CSRSparsity": SparseAutoEncoder}
    kinds["SparseStaticEmbedding"] = SparseStaticEmbedding
    assert MODULE_TYPES[name] is kinds[name.rsplit(".", 1)[1]]


def test_the_first_generation(folder: Path) -> None:
    home = "sentence_transformers.sparse_encoder.models"
    expected = run(load_modules(folder))
    values = entries(folder)
    values[0]["type"], values[1]["type"] = f"{home}.MLMTransformer", f"{home}.SpladePooling"
    write(folder, values)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 9, "do_lower_case": false}')
    (folder / "1_SpladePooling" / "config.json").write_text(
        '{"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": 17}'
    )
    loaded = load_modules(folder)
    assert torch.equal(run(loaded), expected)
    assert loaded[0].max_seq_length == 9


def test_settings_reach_the_transformer(folder: Path) -> None:
    loaded = load_modules(
        folder, model_kwargs={"torch_dtype": torch.float64}, processor_kwargs={"model_max_length": 7}, config_kwargs={}
    )
    assert loaded[0].model.dtype == torch.float64  # type: ignore[union-attr]
    assert loaded[0].max_seq_length == 7


@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "modeling.Custom", "", None, 3, "torch.nn.ReLU"])
def test_row_27_other_types_are_refused_and_not_imported(folder: Path, kind: object) -> None:
    (folder / "modeling.py").write_text("raise SystemExit('imported')")
    values = entries(folder)
    values[1]["type"] = kind
    write(folder, values)
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="unknown module type"):
        load_modules(folder)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "path", ["../../", "..", "/etc", "1_SpladePooling/../..", "C:\\x", "a\\..\\b", "a\0b", 3, None]
)
def test_row_28_paths_outside_are_refused(folder: Path, path: object) -> None:
    values = entries(folder)
    values[1]["path"] = path
    write(folder, values)
    with pytest.raises(ConfigError, match=r"modules\.json|path in a model's files"):
        load_modules(folder)


def test_row_28_links_that_lead_outside_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "1_SpladePooling" / "config.json").rename(tmp_path / "elsewhere" / "config.json")
    (folder / "1_SpladePooling").rmdir()
    (folder / "1_SpladePooling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="link that leads out"):
        load_modules(folder)


FIRST = {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}
SECOND = {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": POOLING}


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        ["Transformer"],
        [SECOND, FIRST],
        [FIRST, {**SECOND, "idx": 0}],
        [FIRST, {**SECOND, "idx": 2}],
        [FIRST, {**SECOND, "idx": True}],
        [FIRST, {**SECOND, "idx": "1"}],
        [{**SECOND, "idx": 0}, {**FIRST, "idx": 1}],
        [{**SECOND, "idx": 0}],
        [FIRST, {**FIRST, "idx": 1}],
        [FIRST, {**SECOND, "kwargs": "task"}],
        [FIRST, {**SECOND, "module": 1}],
        [FIRST, *({**SECOND, "idx": number} for number in range(1, 5000))],
    ],
)
def test_row_29_wrong_order_count_or_numbers_are_refused(folder: Path, values: object) -> None:
    write(folder, values)
    with pytest.raises(ConfigError, match="modules.json"):
        load_modules(folder)


def test_keywords_of_modules_and_absent_folders_of_modules_without_files(folder: Path) -> None:
    normalize = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
    write(folder, [FIRST, {**SECOND, "kwargs": ["task"]}, normalize])
    loaded = load_modules(folder)
    torch.testing.assert_close(run(loaded).norm(dim=1), torch.ones(1))


def test_an_absent_folder_of_a_module_with_files_is_an_error(folder: Path) -> None:
    (folder / "1_SpladePooling" / "config.json").unlink()
    with pytest.raises(ConfigError, match="configuration of a SpladePooling is missing"):
        load_modules(folder)


def test_models_of_the_older_package_name() -> None:
    import sparse_encoder.models
    import sparse_encoder.modules

    for name in sparse_encoder.models.__all__:
        assert getattr(sparse_encoder.models, name) is getattr(sparse_encoder.modules, name)


def test_names_of_classes_are_those_of_the_classes(folder: Path) -> None:
    assert {*MODULE_CLASSES} == {*SPELLINGS}
    assert {name for name, kind in MODULE_CLASSES.items() if issubclass(kind, InputModule)} == READ_TEXTS
    assert {name for name, kind in MODULE_CLASSES.items() if issubclass(kind, Transformer)} == TRANSFORMERS
    assert class_name_of("sentence_transformers.models.Asym", path=folder) == "Router"
    assert [(entry.kind, entry.folder) for entry in read_entries(folder)] == [
        ("Transformer", folder),
        ("SpladePooling", folder / "1_SpladePooling"),
    ]
