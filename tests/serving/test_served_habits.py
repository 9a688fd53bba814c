"""What scripts do with a served model besides encoding."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from serving_helpers import TEXTS, exported_folder, run_without_torch

from sparse_encoder import SparseEncoder, SparseIndex
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.serving import OnnxSparseEncoder

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def served() -> OnnxSparseEncoder:
    return SparseEncoder(str(exported_folder()), backend="onnx")


@pytest.fixture(scope="module")
def model() -> SparseEncoder:
    return SparseEncoder(str(exported_folder()), device="cpu")


def test_it_is_saved_with_its_graph_and_settings(served: OnnxSparseEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(served.folder, folder)
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_b.onnx")
    (folder / "onnx" / "model_c.onnx").write_bytes(b"another")
    opened = SparseEncoder(str(folder), backend="onnx", model_kwargs={"file_name": "model_b.onnx"})
    opened.prompts["title"] = "stone "
    opened.save_pretrained(str(tmp_path / "copy"), create_model_card=False)
    assert [path.name for path in (tmp_path / "copy" / "onnx").iterdir()] == ["model_b.onnx"]
    assert not (tmp_path / "copy" / "README.md").exists() and (folder / "README.md").exists()
    again = SparseEncoder(str(tmp_path / "copy"), backend="onnx")
    assert again.encode("rain").to_dict() == served.encode("rain").to_dict()
    assert again.prompts["title"] == "stone " and again.fingerprint == served.fingerprint
    assert SparseEncoder(str(tmp_path / "copy"), device="cpu").encode("rain").nnz > 0
    opened.similarity_fn_name = "dot"
    opened.save(str(folder))
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["similarity_fn_name"] == "dot"
    assert (folder / "onnx" / "model_c.onnx").read_bytes() == b"another"


def test_settings_are_saved_as_the_torch_model_saves_them(served: OnnxSparseEncoder, tmp_path: Path) -> None:
    def saved(folder: Path) -> dict[str, object]:
        values: dict[str, object] = json.loads((folder / "config_sentence_transformers.json").read_text())
        return values

    first = {"default_prompt_name": "title", "max_active_dims": 3, "similarity_fn_name": "dot"}
    for number, changes in enumerate((first, dict.fromkeys(first))):
        source = served.folder if number == 0 else tmp_path / "onnx0"
        for backend in ("onnx", "torch"):
            model = SparseEncoder(str(source), backend=backend, device="cpu")
            for name, value in changes.items():
                setattr(model, name, value)
            model.save_pretrained(str(tmp_path / f"{backend}{number}"), create_model_card=False)
        assert saved(tmp_path / f"onnx{number}") == saved(tmp_path / f"torch{number}")
    assert saved(tmp_path / "onnx0").items() >= first.items()
    unset = saved(tmp_path / "onnx1")
    assert unset["default_prompt_name"] is unset["similarity_fn_name"] is None and "max_active_dims" not in unset


def test_a_graph_that_is_gone_is_not_saved(served: OnnxSparseEncoder, tmp_path: Path) -> None:
    shutil.copytree(served.folder, tmp_path / "own")
    opened = SparseEncoder(str(tmp_path / "own"), backend="onnx")
    (tmp_path / "own" / "onnx" / "model.onnx").unlink()
    with pytest.raises(ValueError, match=r"is gone; SparseEncoder\(.*\).export_onnx\(folder\)"):
        opened.save_pretrained(str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_it_is_pickled_and_copied_by_its_folder() -> None:
    opened = SparseEncoder(str(exported_folder()), backend="onnx", prompts={"query": "a "}, max_active_dims=5)
    opened.max_seq_length, opened.prompts["mine"] = 7, "b "
    for again in (pickle.loads(pickle.dumps(opened)), copy.deepcopy(opened)):
        assert np.array_equal(again.encode_query(TEXTS).numpy(), opened.encode_query(TEXTS).numpy())
        assert (again.prompts, again.max_seq_length, again.max_active_dims) == (opened.prompts, 7, 5)


def test_each_route_is_cut_in_copies_where_it_is_cut_in_the_model(tmp_path: Path) -> None:
    transformer = Transformer(str(exported_folder()), transformer_task="fill-mask")
    tokenizer = copy.deepcopy(transformer.tokenizer)
    tokenizer.model_max_length = 5
    queries = SparseStaticEmbedding(tokenizer, torch.ones(tokenizer.vocab_size))
    router = Router.for_query_document([queries], [transformer, SpladePooling()])
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(tmp_path))
    (tmp_path / "onnx" / "document").mkdir(parents=True)
    shutil.copy(exported_folder() / "onnx" / "model.onnx", tmp_path / "onnx" / "document")
    opened = SparseEncoder(str(tmp_path), backend="onnx")

    def lengths(model: OnnxSparseEncoder) -> dict[str | None, int]:
        return {name: route.max_seq_length for name, route in model.routes.items()}

    first, longest = lengths(opened), opened.max_seq_length
    assert len(set(first.values())) == 2
    assert lengths(pickle.loads(pickle.dumps(opened))) == first
    opened.max_seq_length = longest  # as it is already, but of one route only
    assert set(lengths(opened).values()) == {longest} and lengths(copy.deepcopy(opened)) == lengths(opened)


def test_the_files_of_a_snapshot_of_the_hubs_cache_are_saved_inside_the_copy(tmp_path: Path) -> None:
    repository = tmp_path / "models--me--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    files = [path.relative_to(exported_folder()) for path in exported_folder().rglob("*") if path.is_file()]
    for number, name in enumerate(files):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(exported_folder() / name, repository / "blobs" / str(number))
        (snapshot / name).symlink_to(os.path.relpath(repository / "blobs" / str(number), (snapshot / name).parent))
    opened = SparseEncoder(str(snapshot), backend="onnx")
    before = {*tmp_path.rglob("*")}
    opened.save_pretrained(str(tmp_path / "copy"))
    new = {path for path in {*tmp_path.rglob("*")} - before if not path.is_dir()}
    assert {path.relative_to(tmp_path / "copy") for path in new} >= {*files}
    assert not any(path.is_symlink() for path in new)
    assert SparseEncoder(str(tmp_path / "copy"), backend="onnx").fingerprint == opened.fingerprint


def test_forms_of_embeddings_that_it_compares_and_looks_into(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    rows = served.encode(TEXTS[:3])
    tensor = served.encode(TEXTS[:3], convert_to_tensor=True)
    forms = [tensor, tensor.to_dense(), rows.to_embeddings(), rows.numpy(), list(rows), [*tensor.to_dense()]]
    forms += [sparse.coo_array(rows.numpy()), rows.numpy().tolist()]
    for form in forms:
        assert np.allclose(served.similarity(form, form), served.similarity(rows, rows), atol=1e-6)
        assert [[term for term, _ in terms] for terms in served.decode(form)] == [
            [term for term, _ in terms] for terms in served.decode(rows)
        ]
        assert served.sparsity(form) == served.sparsity(rows)
    assert served.decode(rows.numpy()[1]) == served.decode(rows[1]) == served.decode(rows[1].to_embeddings())
    shared = served.intersection(rows[0], rows)
    assert np.allclose(shared.numpy(), model.intersection(rows[0].to_embeddings(), rows.to_embeddings()).numpy())
    assert served.intersection(tensor[0], rows[1]).shape == rows[1].shape
    for wrong, kind in (("text", TypeError), (np.zeros((1, 1, 1)), ValueError), ([rows[0], np.zeros(2)], ValueError)):
        with pytest.raises(kind, match="embeddings must"):
            served.similarity(wrong, wrong)
    with pytest.raises(ValueError, match="embeddings_1 must be one embedding"):
        served.intersection(rows, rows)


def test_habits_of_torch_models(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    assert served.eval() is served and served.to(torch.device("cpu")) is served and served.cpu() is served
    with pytest.raises(ValueError, match="is on 'cpu' and stays there; give device='cuda' to SparseEncoder"):
        served.to("cuda")
    for found, expected in (
        (served.tokenize(TEXTS), model.tokenize(TEXTS)),
        (served.preprocess("rain", prompt="stone "), model.preprocess("rain", prompt="stone ")),
    ):
        assert {*found} == {"input_ids", "attention_mask", "token_type_ids"}
        assert all(np.array_equal(found[name], expected[name].numpy()) for name in found)
    assert served.backend == served.get_backend() == "onnx" and model.backend == model.get_backend() == "torch"
    assert not hasattr(served, "compile") and not hasattr(served, "__something__")
    for name, told in (("parameters", "backend='torch'"), ("half", "float16")):
        with pytest.raises(AttributeError, match=f"no attribute {name!r}; .*{told}"):
            getattr(served, name)


def test_facts_and_comparisons_of_tensors(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    assert served.processor is served.tokenizer and served.modalities == model.modalities
    assert served.supports("text") and not served.supports("image")
    assert repr(served) == f"OnnxSparseEncoder({str(served.folder)!r}, providers=['CPUExecutionProvider'])"
    tensor, rows = served.encode(TEXTS, convert_to_tensor=True), served.encode(TEXTS)
    for compare, expected in (
        (served.similarity, model.similarity),
        (served.similarity_pairwise, model.similarity_pairwise),
    ):
        assert isinstance(compare(rows, rows), np.ndarray)
        for one, other in ((tensor, tensor), (list(tensor), rows), (rows, rows.to_embeddings())):
            torch.testing.assert_close(compare(one, other), expected(tensor, tensor))


@pytest.mark.parametrize("value", [2.5, True, "a"])
def test_a_length_is_an_integer(served: OnnxSparseEncoder, value: object) -> None:
    with pytest.raises(TypeError, match="max_seq_length must be an integer or None"):
        served.max_seq_length = value  # type: ignore[assignment]


def test_an_index_of_the_torch_model_is_searched_where_the_caller_vouches_for_the_graph(
    served: OnnxSparseEncoder, model: SparseEncoder
) -> None:
    index = SparseIndex.build(model.encode_document(TEXTS), fingerprint=model.fingerprint)
    queries = served.encode_query(TEXTS)
    with pytest.raises(ValueError, match="the queries were made by"):
        index.search(queries, 3, fingerprint=served.fingerprint)
    found = index.search(queries, 3, fingerprint=index.fingerprint)
    expected = index.search(model.encode_query(TEXTS), 3, fingerprint=index.fingerprint)
    assert [[hit.id for hit in hits] for hits in found] == [[hit.id for hit in hits] for hits in expected]


def test_the_older_name_of_the_texts(served: OnnxSparseEncoder, caplog: pytest.LogCaptureFixture) -> None:
    for method in (served.encode, served.encode_query, served.encode_document):
        assert np.array_equal(method(sentences=TEXTS).numpy(), method(TEXTS).numpy())
        with pytest.raises(TypeError, match="'sentences' is the older name of 'inputs'; give one of them"):
            method(inputs=TEXTS, sentences=TEXTS)
    assert "the argument 'sentences' is called 'inputs' now" in caplog.text


def test_prompts_are_a_mapping() -> None:
    with pytest.raises(TypeError, match="prompts must be a mapping of names to strings, got int"):
        SparseEncoder(str(exported_folder()), backend="onnx", prompts=3)  # type: ignore[arg-type]


PROGRAM = """
import pickle
from sparse_encoder import SparseEncoder, export_dynamic_quantized_onnx_model
model = SparseEncoder(sys.argv[1], backend="onnx")
rows = model.encode(["rain", "river"])
assert model.intersection(rows[0], rows).shape == rows.shape and model.tokenize(["rain"])["input_ids"].shape[0] == 1
model.save_pretrained(sys.argv[2])
again = pickle.loads(pickle.dumps(SparseEncoder(sys.argv[2], backend="onnx")))
assert again.encode("rain").to_dict() == rows[0].to_dict()
print("torch" in sys.modules)
"""


def test_none_of_it_needs_torch(tmp_path: Path) -> None:
    assert run_without_torch(PROGRAM, str(exported_folder()), str(tmp_path / "copy")).strip() == "False"
