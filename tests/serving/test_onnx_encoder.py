"""A model on onnxruntime gives what the torch model gives, and needs no torch for it."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import write_masked_language_model
from numpy.typing import NDArray
from serving_helpers import TEXTS, copy_of, exported_folder, run_without_torch, traced_before

from sparse_encoder import SparseEmbeddings, SparseEncoder, SparseIndex
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.serving import OnnxSparseEncoder

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folder() -> Path:
    return exported_folder()


@pytest.fixture(scope="module")
def served(folder: Path) -> OnnxSparseEncoder:
    return SparseEncoder(str(folder), backend="onnx")


@pytest.fixture(scope="module")
def model(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


PROGRAM = """
from sparse_encoder import SparseEncoder, SparseIndex

model = SparseEncoder(sys.argv[1], backend="onnx")
documents = model.encode_document(["rain in the river", "stone bread", ""])
query = model.encode_query("rain")
hits = SparseIndex.build(documents, fingerprint=model.fingerprint).search(query, 2, fingerprint=model.fingerprint)
assert documents.shape[0] == 3 and query.shape == (model.get_embedding_dimension(),)
assert model.similarity(query, documents).shape == (1, 3) and model.decode(query, 2)[0][1] > 0
assert documents[1:].to_list_of_dicts() and model.sparsity(documents)["active_dims"] > 0
print([hit.id for hit in hits[0]], "torch" in sys.modules)
"""


def test_a_process_without_torch_encodes_and_searches(folder: Path) -> None:
    assert run_without_torch(PROGRAM, str(folder)).strip() in ("['0', '1'] False", "['1', '0'] False")


def test_weights_are_those_of_torch(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    found, expected = served.encode(TEXTS), model.encode(TEXTS)
    assert np.abs(found.numpy() - expected.numpy()).max() < 1e-4
    best = [[term for term, _ in terms[:10]] for terms in served.decode(found)]
    assert best == [[term for term, _ in terms[:10]] for terms in model.decode(expected)]


def test_a_text_is_its_own_whatever_else_is_encoded(served: OnnxSparseEncoder) -> None:
    together = served.encode(TEXTS).numpy()
    for size in (1, 3, 32):
        assert np.array_equal(served.encode(TEXTS[::-1], batch_size=size).numpy()[::-1], together)
    assert np.array_equal(served.encode(TEXTS[3]).numpy(), together[3])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("encode_query", {}),
        ("encode_document", {}),
        ("encode", {"prompt_name": "title"}),
        ("encode", {"prompt": "stone "}),
        ("encode", {"processing_kwargs": {"text": {"max_length": 5}}}),
        ("encode", {"max_active_dims": 4}),
    ],
)
def test_options_of_a_call_do_what_they_do_in_torch(
    served: OnnxSparseEncoder, model: SparseEncoder, method: str, options: dict[str, Any]
) -> None:
    found, expected = getattr(served, method)(TEXTS, **options), getattr(model, method)(TEXTS, **options)
    assert np.abs(found.numpy() - expected.numpy()).max() < 1e-4


def test_a_processor_gets_few_tokens_at_a_time(served: OnnxSparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    session = served.routes[None].session
    assert session is not None
    run, shapes = session.run, []

    def watch(features: dict[str, NDArray[np.int64]], *, max_active_dims: int | None) -> ArrayEmbeddings:
        shapes.append(features["input_ids"].shape)
        return run(features, max_active_dims=max_active_dims)

    monkeypatch.setattr(session, "run", watch)
    expected = served.encode(TEXTS).numpy()
    whole = len(shapes)
    monkeypatch.setattr("sparse_encoder.serving.batches.CPU_TOKENS", 40)
    assert np.array_equal(served.encode(TEXTS).numpy(), expected)
    split = shapes[whole:]
    assert len(split) > whole
    assert all(texts == 1 or texts * tokens <= 40 for texts, tokens in split)


def test_no_texts_and_one_text(served: OnnxSparseEncoder) -> None:
    dim = served.get_embedding_dimension()
    assert served.encode([]).shape == (0, dim)
    assert served.encode("rain").shape == (dim,)
    assert served.encode(["rain"]).shape == (1, dim)


def test_forms_of_the_result(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    rows = served.encode(TEXTS)
    assert isinstance(rows, SparseEmbeddings)
    assert isinstance(rows, ArrayEmbeddings)
    tensor = served.encode(TEXTS, convert_to_tensor=True)
    assert tensor.layout == torch.sparse_coo and torch.equal(tensor.to_dense(), torch.from_numpy(rows.numpy()))
    assert torch.equal(served.encode(TEXTS, convert_to_sparse_tensor=False), tensor.to_dense())
    listed = served.encode(TEXTS[:2], convert_to_tensor=False)
    assert [row.to_dict() for row in listed] == rows[:2].to_list_of_dicts()
    torch.testing.assert_close(model.similarity(rows, rows), torch.from_numpy(served.similarity(rows, rows)))


def test_what_a_folder_remembers(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    assert served.prompts == model.prompts
    assert served.similarity_fn_name == "cosine"
    assert (served.max_seq_length, served.get_backend(), served.device) == (model.max_seq_length, "onnx", "cpu")
    assert isinstance(served, SparseEncoder)
    assert "CPUExecutionProvider" in served.providers


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_are_those_of_torch(name: str) -> None:
    from sparse_encoder.serving.similarity import compare_all, compare_pairs
    from sparse_encoder.similarity import FUNCTIONS, SimilarityFunction

    rows = ArrayEmbeddings.from_dense(np.array([[0, 1, 2.5], [0, 0, 0], [3, 0, -1]], dtype=np.float32))
    every, pairs = FUNCTIONS[SimilarityFunction(name)]
    tensor = torch.from_numpy(rows.numpy())
    assert np.allclose(compare_all(name, rows, rows[:2]), every(tensor, tensor[:2]), atol=2e-3)
    assert np.allclose(compare_pairs(name, rows, rows[[2, 1, 0]]), pairs(tensor, tensor.flip(0)), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be a positive integer"),
        ({"device": "cuda"}, "device must be 'cpu'"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"prompt_name": "nobody"}, "unknown prompt_name 'nobody'"),
    ],
)
def test_what_cannot_hold_for_a_call_is_refused(served: OnnxSparseEncoder, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        served.encode("rain", **call)
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a string"):
        served.encode(["rain", 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_kwargs": {"provider": "Nobody"}}, r"unknown provider 'Nobody'; this onnxruntime has \[.*CPUExec"),
        ({"model_kwargs": {"provider": "A", "providers": ["B"]}}, "give provider or providers"),
        ({"model_kwargs": {"dtype": "float16"}}, r"unknown model_kwargs \['dtype'\]"),
        ({"model_kwargs": {"file_name": "../model.onnx"}}, "must be relative and stay in its folder"),
        ({"model_kwargs": {"file_name": "/etc/passwd"}}, "must be relative and stay in its folder"),
        ({"config_kwargs": {"vocab_size": 3}}, "config_kwargs is for backend='torch'"),
        ({"processor_kwargs": {"use_slow": True}}, "unknown processor_kwargs"),
        ({"device": "tpu"}, "device must be one of"),
        ({"max_active_dims": 0}, "max_active_dims must be a positive integer"),
    ],
)
def test_what_cannot_hold_for_a_model_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseEncoder(str(folder), backend="onnx", **options)


def test_session_options_must_be_onnxruntimes(folder: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    kwargs = {"session_options": options, "providers": [("CPUExecutionProvider", {})]}
    assert SparseEncoder(str(folder), backend="onnx", model_kwargs=kwargs).encode("rain").nnz > 0
    with pytest.raises(TypeError, match="session_options must be an onnxruntime.SessionOptions, got a dict"):
        SparseEncoder(str(folder), backend="onnx", model_kwargs={"session_options": {}})


def test_a_missing_onnxruntime_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'sparse-encoder\[onnx\]'"):
        SparseEncoder(str(folder), backend="onnx")


def test_which_graph_is_taken(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "m")
    (copy / "onnx" / "model.onnx").rename(copy / "onnx" / "model_a.onnx")
    only = SparseEncoder(str(copy), backend="onnx")
    assert only.encode("rain").nnz > 0
    (copy / "onnx" / "model_b.onnx").write_bytes((copy / "onnx" / "model_a.onnx").read_bytes())
    with pytest.raises(ValueError, match=r"has the graphs \['onnx/model_a.onnx', 'onnx/model_b.onnx'\]; say which"):
        SparseEncoder(str(copy), backend="onnx")
    for name in ("onnx/model_b.onnx", "model_b.onnx"):
        named = SparseEncoder(str(copy), backend="onnx", model_kwargs={"file_name": name})
        assert named.encode("rain").to_dict() == only.encode("rain").to_dict()
    with pytest.raises(FileNotFoundError, match="no graph 'model_c.onnx'; there are"):
        SparseEncoder(str(copy), backend="onnx", model_kwargs={"file_name": "model_c.onnx"})


@pytest.mark.parametrize("options", [{}, {"subfolder": "graphs"}, {"subfolder": ""}])
def test_a_folder_without_graph_is_exported_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    folder = write_masked_language_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="export_onnx"):
        SparseEncoder(str(folder), backend="onnx", model_kwargs={"export": False})
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr("sparse_encoder.export.writing.trace", traced_before)  # of the same weights
    made = SparseEncoder(str(folder), backend="onnx", model_kwargs=options)
    assert "exported for this process only" in caplog.text
    expected = SparseEncoder(str(folder), device="cpu").encode(TEXTS)
    assert np.abs(made.encode(TEXTS).numpy() - expected.numpy()).max() < 1e-4
    assert len(made.fingerprint) == 64
    assert sorted(folder.rglob("*")) == before


def test_routes_take_the_table_or_the_graph(folder: Path, tmp_path: Path) -> None:
    transformer = Transformer(str(folder), transformer_task="fill-mask")
    weight = torch.linspace(0, 2, transformer.tokenizer.vocab_size)
    queries = SparseStaticEmbedding(transformer.tokenizer, weight)
    router = Router.for_query_document([queries], [transformer, SpladePooling()])
    model = SparseEncoder(modules=[router], device="cpu")
    model.save_pretrained(str(tmp_path / "routes"))
    (tmp_path / "routes" / "onnx" / "document").mkdir(parents=True)
    shutil.copy(folder / "onnx" / "model.onnx", tmp_path / "routes" / "onnx" / "document")
    served = SparseEncoder(str(tmp_path / "routes"), backend="onnx")
    for method in ("encode_query", "encode_document"):
        found, expected = getattr(served, method)(TEXTS).numpy(), getattr(model, method)(TEXTS).numpy()
        assert np.abs(found - expected).max() < 1e-4
    assert served.encode({"query": "rain"}).to_dict() == served.encode_query("rain").to_dict()
    with pytest.raises(ValueError, match="no route for task 'nobody'"):
        served.encode("rain", task="nobody")
    hits = SparseIndex.build(served.encode_document(TEXTS)).search(served.encode_query("rain"), 1)
    assert len(hits[0]) == 1


def test_length_limits(folder: Path) -> None:
    served = SparseEncoder(str(folder), backend="onnx")
    served.max_seq_length = 6
    model = SparseEncoder(str(folder), device="cpu")
    model.max_seq_length = 6
    assert np.abs(served.encode(TEXTS).numpy() - model.encode(TEXTS).numpy()).max() < 1e-4
    with pytest.raises(ValueError, match="between 1 and 64, the positions of the model, got 65"):
        served.max_seq_length = 65


def test_rows_of_arrays_are_pickled_and_saved(served: OnnxSparseEncoder, tmp_path: Path) -> None:
    rows = served.encode(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(rows)).numpy(), rows.numpy())
    rows.save(tmp_path / "rows.safetensors")
    assert SparseEmbeddings.load(tmp_path / "rows.safetensors").equal(rows.to_embeddings())
    assert np.array_equal(rows[np.arange(len(TEXTS)) % 2 == 0].numpy(), rows.numpy()[::2])
    assert torch.allclose((rows * 2).to_dense(), torch.from_numpy(rows.numpy() * 2))
    assert rows[-1].to_dict() == rows.to_list_of_dicts()[-1]
    with pytest.raises(IndexError, match="out of range"):
        rows[len(TEXTS)]


def test_an_evaluator_runs_on_it(served: OnnxSparseEncoder, model: SparseEncoder) -> None:
    from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

    queries, corpus = {"q": TEXTS[0]}, {str(place): text for place, text in enumerate(TEXTS)}
    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, {"q": {"0"}}, show_progress_bar=False)
    found, expected = served.evaluate(evaluator), model.evaluate(evaluator)
    assert isinstance(found, dict) and isinstance(expected, dict)
    del found["milliseconds_per_query"], expected["milliseconds_per_query"]
    assert found == pytest.approx(expected)


def test_settings_of_the_folder_are_checked(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "m")
    values = json.loads((copy / "modules.json").read_text())
    values[0]["type"] = "os.system"
    (copy / "modules.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="unknown module type 'os.system'"):
        SparseEncoder(str(copy), backend="onnx")
