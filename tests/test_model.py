"""The surface of SparseEncoder on small random models, without the peer."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_helpers import VOCABULARY, mixed_texts, write_encoder, write_masked_language_model, write_tokenizer
from process_helpers import run_python

import sparse_encoder.loading
from sparse_encoder import SparseEmbeddings, SparseEncoder, SparseEncoderModelCardData
from sparse_encoder.checkpoint import ConfigError, LoadError
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.tokenizer import Tokenizer

TEXTS = mixed_texts(7)
V = len(VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("splade"))


@pytest.fixture
def model(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


@pytest.fixture
def router(folder: Path, tmp_path: Path) -> SparseEncoder:
    write_tokenizer(tmp_path)
    static = SparseStaticEmbedding(Tokenizer.from_pretrained(tmp_path), weight=torch.arange(1.0, V + 1))
    documents = [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling()]
    return SparseEncoder(modules=[Router.for_query_document([static], documents)], device="cpu")


# Forms of the result


def test_default_form_is_rows_of_csr(model: SparseEncoder) -> None:
    rows = model.encode(TEXTS)
    assert isinstance(rows, SparseEmbeddings)
    assert (rows.shape, rows.dtype, rows.device.type) == ((7, V), torch.float32, "cpu")
    assert rows[2:4].shape == (2, V)
    one = model.encode(TEXTS[3])
    assert isinstance(one, SparseEmbeddings)
    assert one.shape == (V,)
    torch.testing.assert_close(one.to_dense(), rows[3].to_dense(), rtol=0, atol=0)


def test_other_forms_hold_the_same(model: SparseEncoder) -> None:
    rows = model.encode(TEXTS)
    coo = model.encode(TEXTS, convert_to_tensor=True)
    assert coo.is_sparse
    assert coo.is_coalesced()
    dense = model.encode(TEXTS, convert_to_sparse_tensor=False)
    listed = model.encode(TEXTS, convert_to_tensor=False)
    dense_list = model.encode(TEXTS, convert_to_tensor=False, convert_to_sparse_tensor=False)
    assert [len(listed), len(dense_list)] == [7, 7]
    assert {row.shape for row in [*listed, *dense_list]} == {(V,)}
    for same in (coo.to_dense(), dense, torch.stack([row.to_dense() for row in listed]), torch.stack(dense_list)):
        assert torch.equal(same, rows.to_dense())
    assert model.encode("rain", convert_to_tensor=True).is_sparse
    assert isinstance(model.encode("rain", convert_to_tensor=False), SparseEmbeddings)
    assert model.encode("rain", convert_to_sparse_tensor=False).layout is torch.strided


def test_rows_may_enter_a_gradient(model: SparseEncoder) -> None:
    weights = torch.ones(V, requires_grad=True)
    (model.encode(TEXTS).to_dense() * weights).sum().backward()
    assert weights.grad is not None


def test_16_bit_models_give_float32_weights(folder: Path) -> None:
    whole = SparseEncoder(str(folder), device="cpu").encode(TEXTS)
    half = SparseEncoder(str(folder), device="cpu", model_kwargs={"torch_dtype": torch.bfloat16})
    assert half.dtype == torch.bfloat16
    rows = half.encode(TEXTS)
    assert rows.dtype == torch.float32
    assert not torch.equal(rows.values(), rows.values().bfloat16().float())  # more digits than bfloat16 has
    torch.testing.assert_close(rows.to_dense(), whole.to_dense(), atol=0.1, rtol=0.1)


def test_limits_of_active_dimensions(folder: Path, model: SparseEncoder) -> None:
    whole = model.encode(TEXTS).to_dense()
    limited = SparseEncoder(str(folder), device="cpu", max_active_dims=4)
    kept = limited.encode(TEXTS)
    assert kept.crow_indices().diff().tolist() == [4] * 7
    for row, full in zip(kept.to_dense(), whole, strict=True):
        assert torch.equal(row[row > 0].sort().values, full.sort().values[-4:])
    assert limited.encode(TEXTS, max_active_dims=2).crow_indices().diff().tolist() == [2] * 7


# Prompts and tasks


def test_prompts_are_put_before_the_text(model: SparseEncoder) -> None:
    model.prompts = {"query": "sun ", "document": "", "passage": "stone ", "title": "tree "}
    for found, expected in [
        (model.encode_query(TEXTS), "sun "),
        (model.encode_document(TEXTS), "stone "),  # the document prompt is empty, so that of passages is taken
        (model.encode(TEXTS), ""),
        (model.encode(TEXTS, prompt_name="title"), "tree "),
        (model.encode(TEXTS, prompt="bird "), "bird "),
        (model.encode_query(TEXTS, prompt="bird "), "bird "),
        (model.encode_document(TEXTS, prompt_name="title"), "tree "),
    ]:
        assert torch.equal(found.to_dense(), model.encode([expected + text for text in TEXTS]).to_dense())
    model.default_prompt_name = "title"
    whole = model.encode(TEXTS).to_dense()
    assert torch.equal(whole, model.encode(["tree " + text for text in TEXTS], prompt="").to_dense())
    with pytest.raises(ValueError, match="unknown prompt_name 'other'"):
        model.encode(TEXTS, prompt_name="other")


def test_prompts_that_were_replaced_may_lack_the_usual_names(model: SparseEncoder) -> None:
    model.prompts = {"title": "tree "}
    plain = model.encode(TEXTS)
    for encode in (model.encode_query, model.encode_document):
        assert torch.equal(encode(TEXTS).to_dense(), plain.to_dense())


def test_a_subclass_that_encodes_otherwise_is_asked_by_name(model: SparseEncoder) -> None:
    class Loud(SparseEncoder):
        def encode(self, inputs: object, **options: object) -> tuple[object, dict[str, object]]:  # type: ignore[override]
            return inputs, options

    loud = Loud(modules=list(model), device="cpu")
    inputs, options = loud.encode_query(TEXTS, batch_size=3, custom=True)
    assert inputs is TEXTS
    assert (options["task"], options["prompt_name"], options["batch_size"]) == ("query", "query", 3)
    assert options["custom"] is True
    assert loud.encode_document(TEXTS)[1]["task"] == "document"


def test_a_copy_is_a_model_of_its_own(model: SparseEncoder) -> None:
    twin = copy.deepcopy(model)
    assert torch.equal(twin.encode(TEXTS).to_dense(), model.encode(TEXTS).to_dense())
    twin.max_seq_length = 5
    assert model.max_seq_length == 64


def test_a_single_text_is_one_text_for_preprocess_too(model: SparseEncoder) -> None:
    assert model.preprocess("rain sun")["input_ids"].shape == (1, 4)


def test_a_dataset_column_is_a_collection(model: SparseEncoder) -> None:
    datasets = pytest.importorskip("datasets")
    column = datasets.Dataset.from_dict({"text": TEXTS})["text"]
    assert torch.equal(model.encode(column).to_dense(), model.encode(TEXTS).to_dense())


def test_tasks_choose_the_route(router: SparseEncoder) -> None:
    queries = router.encode_query(["rain sun rain", "bread"])
    words = {VOCABULARY[column]: column + 1.0 for column in queries[0].col_indices().tolist()}
    assert sorted(words) == ["rain", "sun"]
    assert queries[0].to_dict() == {VOCABULARY.index(word): weight for word, weight in words.items()}
    documents = router.encode_document(TEXTS)
    assert torch.equal(router.encode(TEXTS).to_dense(), documents.to_dense())  # the default route
    assert torch.equal(router.encode([{"query": "bread"}]).to_dense(), queries[1:].to_dense())
    assert torch.equal(router.encode(["bread"], task="query").to_dense(), queries[1:].to_dense())
    with pytest.raises(ValueError, match="no route for task 'title'"):
        router.encode(TEXTS, task="title")


def test_lengths_of_tasks(folder: Path) -> None:
    short = Transformer(str(folder), transformer_task="fill-mask", query_length=4)
    model = SparseEncoder(modules=[short, SpladePooling()], device="cpu")
    text = "rain sun cloud river stone"
    assert torch.equal(model.encode_query(text).to_dense(), model.encode("rain sun").to_dense())
    assert not torch.equal(model.encode_document(text).to_dense(), model.encode("rain sun").to_dense())


def test_one_call_may_cut_its_texts_shorter(model: SparseEncoder, router: SparseEncoder) -> None:
    text, short = "rain sun cloud river stone", {"text": {"max_length": 4, "truncation": True}}
    assert torch.equal(model.encode(text, processing_kwargs=short).to_dense(), model.encode("rain sun").to_dense())
    assert torch.equal(
        router.encode_query([text], processing_kwargs=short).to_dense(),
        router.encode_query(["rain sun cloud river"]).to_dense(),
    )
    assert model.max_seq_length == 64
    for wrong in ({"image": {}}, {"text": {"max_size": 3}}, {"text": {"add_special_tokens": False}}):
        with pytest.raises(ValueError, match="processing_kwargs|add_special_tokens"):
            model.encode(text, processing_kwargs=wrong)


# Arguments that cannot be honoured


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvino"}, r"unknown backend 'openvino'; choose from \['onnx', 'torch'\]"),
        ({"similarity_fn_name": "angle"}, "unknown similarity 'angle'"),
        ({"default_prompt_name": "title"}, "unknown default_prompt_name 'title'"),
        (
            {"model_kwargs": {"device_map": {"backbone": "cpu", "head": "disk"}, "offload_folder": "x"}},
            "modules move as",
        ),
        ({"model_kwargs": {"device_map": "meta"}}, "device_map must name devices that hold values"),
        ({"model_kwargs": {"from_tf": True}}, "from_tf is not supported: TensorFlow"),
        ({"model_kwargs": {"quantization_config": {"bits": 4}}}, "quantized weights are not supported; dtype="),
        ({"model_kwargs": {"weights_only": False}}, "weights_only must be True"),
        ({"model_kwargs": {"output_loading_info": True}}, r"unknown model_kwargs \['output_loading_info'\]; choose"),
        ({"model_kwargs": {"dtyp": "float16"}}, r"unknown model_kwargs \['dtyp'\]; choose from .*'use_safetensors'"),
        ({"processor_kwargs": {"use_slow": True}}, "use_slow"),
        ({"model_kwargs": {"revision": "v1"}}, r"model_kwargs must not hold \['revision'\]: use the arguments"),
        ({"model_kwargs": {"token": "t", "cache_dir": "c"}}, r"use the arguments \['cache_folder', 'token'\]"),
        ({"processor_kwargs": {"local_files_only": True}}, r"processor_kwargs must not hold \['local_files_only'\]"),
        ({"config_kwargs": {"revision": "v1"}}, r"config_kwargs must not hold \['revision'\]"),
    ],
)
def test_arguments_that_cannot_be_honoured_raise_by_name(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseEncoder(str(folder), device="cpu", **options)


def test_remote_code_is_ignored_with_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = SparseEncoder(str(folder), device="cpu", trust_remote_code=True)
    assert caplog.text.count("trust_remote_code is ignored: code that comes with a model is never run") == 1
    plain = SparseEncoder(str(folder), device="cpu")
    assert torch.equal(model.encode(TEXTS).to_dense(), plain.encode(TEXTS).to_dense())


def test_unknown_keywords_of_encode_are_named(model: SparseEncoder) -> None:
    for encode in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(ValueError, match=r"unknown keywords \['normalize_embeddings'\]; get_model_kwargs"):
            encode(TEXTS, normalize_embeddings=True)


def test_older_names_of_arguments(model: SparseEncoder, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert torch.equal(model.encode(sentences=TEXTS).to_dense(), model.encode(TEXTS).to_dense())
        short = SparseEncoder(str(folder), device="cpu", tokenizer_kwargs={"model_max_length": 9})
    assert "'sentences' is called 'inputs' now" in caplog.text
    assert short.max_seq_length == 9
    with pytest.raises(TypeError, match="older name"):
        model.encode(inputs=TEXTS, sentences=TEXTS)
    assert model.get_max_seq_length() == 64
    assert model.get_sentence_embedding_dimension() == V
    assert torch.equal(model.tokenize(["rain"])["input_ids"], model.preprocess(["rain"])["input_ids"])


def test_a_model_needs_modules_that_read_texts() -> None:
    with pytest.raises(ValueError, match="give the name or path of a model, or its modules"):
        SparseEncoder()
    with pytest.raises(ValueError, match="at least one module"):
        SparseEncoder(modules=[])
    with pytest.raises(TypeError, match="the first module must read texts, a SpladePooling does not"):
        SparseEncoder(modules=[SpladePooling()])


def test_names_that_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        SparseEncoder(str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        SparseEncoder(str(tmp_path / "nothing" / "there"))


# Loading


def test_a_name_and_modules(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        both = SparseEncoder(str(folder), modules=[SpladePooling()], device="cpu")
    assert "the modules are not used" in caplog.text
    assert len(both) == 2


def test_a_checkpoint_without_head_gets_an_auto_encoder(tmp_path: Path) -> None:
    model = SparseEncoder(str(write_encoder(tmp_path / "plain")), device="cpu")
    assert [type(part).__name__ for part in model] == ["Transformer", "Pooling", "SparseAutoEncoder"]
    assert model.get_embedding_dimension() == 48
    assert model.max_active_dims == model[2].k == 48
    assert model.encode(TEXTS).shape == (7, 48)


@pytest.mark.parametrize("kind", ["CrossEncoder", "MultiVectorEncoder"])
def test_another_kind_of_model_is_only_a_backbone(
    folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    SparseEncoder(str(folder), device="cpu", prompts={"query": "sun "}).save_pretrained(str(tmp_path / "saved"))
    path = tmp_path / "saved" / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": kind, "similarity_fn_name": "cosine"}))
    with caplog.at_level(logging.WARNING):
        model = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert f"holds a {kind}: only its backbone is used" in caplog.text
    assert model.prompts == {"query": "", "document": ""}
    assert model.similarity_fn_name == "dot"
    assert [type(part).__name__ for part in model] == ["Transformer", "SpladePooling"]


def test_the_hub_is_asked_once_with_what_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []
    commit = tmp_path / ("c" * 40)
    commit.symlink_to(folder)

    def fetch(name: str, **options: object) -> Path:
        asked.append((name, options))
        return commit

    monkeypatch.setattr(sparse_encoder.loading, "fetch_model_folder", fetch)
    model = SparseEncoder("me/model", revision="main", token="t", cache_folder="/c", local_files_only=True)
    options = {"cache_folder": "/c", "revision": "main", "token": "t", "local_files_only": True}
    unasked = {"force_download": False, "subfolder": "", "variant": None, "use_safetensors": None}
    assert asked == [("me/model", {**options, **unasked})]
    card = model.model_card_data
    assert (card.base_model, card.base_model_revision) == ("me/model", "c" * 40)


def test_damaged_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    SparseEncoder(str(folder), device="cpu").save_pretrained(str(tmp_path / "saved"))
    types = tmp_path / "saved" / "modules.json"
    whole = types.read_text()
    types.write_text(whole.replace("sentence_transformers.base.modules.transformer.Transformer", "os.system"))
    with pytest.raises(LoadError, match=r"os\.system"):
        SparseEncoder(str(tmp_path / "saved"))
    types.write_text(whole.replace("1_SpladePooling", "../elsewhere"))
    with pytest.raises(LoadError):
        SparseEncoder(str(tmp_path / "saved"))
    types.write_text(whole)
    (tmp_path / "saved" / "config_sentence_transformers.json").write_text(
        '{"model_type": "SparseEncoder", "prompts": 3}'
    )
    with pytest.raises(ConfigError, match="prompts"):
        SparseEncoder(str(tmp_path / "saved"))


def test_nothing_outside_the_folder_is_read(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = tmp_path / "saved"
    SparseEncoder(str(folder), device="cpu").save_pretrained(str(saved))
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (saved / "README.md").unlink()
    (saved / "README.md").symlink_to(secret)
    with caplog.at_level(logging.WARNING):
        model = SparseEncoder(str(saved), device="cpu")
    assert "the README is not kept" in caplog.text
    model.save_pretrained(str(tmp_path / "again"))
    assert "# SPLADE Sparse Encoder" in (tmp_path / "again" / "README.md").read_text()
    (saved / "config_sentence_transformers.json").unlink()
    (saved / "config_sentence_transformers.json").symlink_to(secret)
    with pytest.raises(LoadError):
        SparseEncoder(str(saved), device="cpu")


def test_a_16_bit_model_on_the_cpu_is_worth_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SparseEncoder(str(folder), device="cpu").bfloat16().save_pretrained(str(tmp_path / "half"))
    with caplog.at_level(logging.WARNING):
        assert SparseEncoder(str(tmp_path / "half"), device="cpu").dtype == torch.bfloat16
        assert "a 16-bit model on the CPU" in caplog.text
        caplog.clear()
        whole = SparseEncoder(str(tmp_path / "half"), device="cpu", model_kwargs={"dtype": "float32"})
    assert whole.dtype == torch.float32
    assert caplog.text == ""


# Saving


@pytest.mark.parametrize("kind", ["model", "router"])
def test_saved_is_loaded(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: SparseEncoder = request.getfixturevalue(kind)
    model.prompts = {"query": "sun ", "document": "rain "}
    model.default_prompt_name = "query"
    model.similarity_fn_name = "cosine"
    model.max_active_dims = 9
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    for name in ("prompts", "default_prompt_name", "similarity_fn_name", "max_active_dims", "max_seq_length"):
        assert getattr(again, name) == getattr(model, name), name
    assert again.state_dict().keys() == model.state_dict().keys()
    for encode in ("encode", "encode_query", "encode_document"):
        assert torch.equal(getattr(again, encode)(TEXTS).to_dense(), getattr(model, encode)(TEXTS).to_dense())


def test_a_save_that_fails_leaves_what_was_there(
    model: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "saved"
    model.save_pretrained(str(target))
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    monkeypatch.setattr(SpladePooling, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(str(target))
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(str(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_names_of_saving(model: SparseEncoder, tmp_path: Path) -> None:
    model.save(str(tmp_path / "saved"), create_model_card=False)
    assert not (tmp_path / "saved" / "README.md").exists()
    with pytest.raises(ValueError, match="safe_serialization must stay True"):
        model.save(str(tmp_path / "other"), safe_serialization=False)
    assert not (tmp_path / "other").exists()


def test_a_similarity_is_saved_once_it_was_set(model: SparseEncoder, tmp_path: Path) -> None:
    def saved() -> object:
        model.save_pretrained(str(tmp_path / "saved"))
        return json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())["similarity_fn_name"]

    assert saved() is None
    assert model.similarity_fn_name == "dot"
    assert model.similarity(model.encode(TEXTS), model.encode(TEXTS)).shape == (7, 7)
    assert saved() is None  # asking sets nothing
    model.similarity_fn_name = "dot"
    assert saved() == "dot"
    model.similarity_fn_name = None
    assert saved() is None


def test_push_to_hub_saves_and_uploads(model: SparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    uploads: list[dict[str, str]] = []

    def create_commit(_: str, operations: list[Any], **__: object) -> SimpleNamespace:
        uploads.append(
            {each.path_in_repo: Path(each.path_or_fileobj).read_text(errors="replace") for each in operations}
        )
        return SimpleNamespace(commit_url="url", pr_url="pr")

    fake = SimpleNamespace(
        create_repo=lambda repo_id, **_: SimpleNamespace(repo_id="me/" + repo_id),
        file_exists=lambda *_, **__: False,
        list_repo_files=lambda *_, **__: [],
        create_commit=create_commit,
    )
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: fake)
    assert model.push_to_hub("name", train_datasets=["me/data"]) == "url"
    assert {"modules.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(uploads[0])
    assert 'SparseEncoder("me/name")' in uploads[0]["README.md"]
    assert "me/data" in uploads[0]["README.md"]


# Properties


def test_properties(model: SparseEncoder) -> None:
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert model.tokenizer is model.processor is model[0].tokenizer
    assert model.tokenizer.convert_ids_to_tokens([5]) == [VOCABULARY[5]]
    assert model.modalities == ["text"]
    assert model.supports("text")
    assert not model.supports("image")
    assert model.is_singular_input("rain")
    assert not model.is_singular_input(["rain"])
    assert model.get_backend() == "torch"
    assert model.get_model_kwargs() == []
    assert model.get_embedding_dimension() == V
    assert model.transformers_model is model[0].model
    assert model.config["hidden_size"] == 12
    assert model.model_type == "SparseEncoder"


def test_a_tokenizer_can_be_replaced(model: SparseEncoder, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, model_max_length=8)
    model.tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert model.max_seq_length == 8
    model.max_seq_length = 5
    assert model[0].tokenizer.model_max_length == 5
    expected = model.encode("rain sun cloud")
    assert torch.equal(model.encode("rain sun cloud river stone").to_dense(), expected.to_dense())


def test_chunk_sizes_reach_a_pooling_inside_a_router(model: SparseEncoder, router: SparseEncoder) -> None:
    for each in (model, router):
        assert each.splade_pooling_chunk_size is None
        each.splade_pooling_chunk_size = 3
        assert each.splade_pooling_chunk_size == 3
        poolings = [module for module in each.modules() if isinstance(module, SpladePooling)]
        assert [pooling.chunk_size for pooling in poolings] == [3]


def test_a_model_without_splade_has_no_chunk_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = SparseEncoder(str(write_encoder(tmp_path)), device="cpu")
    with caplog.at_level(logging.WARNING):
        assert model.splade_pooling_chunk_size is None
    assert "no SpladePooling" in caplog.text
    with pytest.raises(ValueError, match="no SpladePooling"):
        model.splade_pooling_chunk_size = 4


def test_prompts_can_be_left_out_of_dense_pooling(tmp_path: Path) -> None:
    model = SparseEncoder(str(write_encoder(tmp_path)), device="cpu")
    prompted = model.encode(TEXTS, prompt="sun ").to_dense()
    model.set_pooling_include_prompt(False)
    assert model[1].include_prompt is False
    assert not torch.allclose(model.encode(TEXTS, prompt="sun ").to_dense(), prompted)


def test_gradient_checkpointing_changes_no_gradient(model: SparseEncoder) -> None:
    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model.train()
        model(model.preprocess(TEXTS))["sentence_embedding"].square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    before = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for plain, recomputed in zip(before, gradients(), strict=True):
        torch.testing.assert_close(plain, recomputed)
    with pytest.raises(ValueError, match="use_reentrant"):
        model.gradient_checkpointing_enable({"use_reentrant": True})


def test_compile_changes_no_vector(model: SparseEncoder) -> None:
    expected = model.encode(TEXTS)
    model.compile(backend="eager")
    torch.testing.assert_close(model.encode(TEXTS).to_dense(), expected.to_dense())


def test_an_evaluator_gets_the_model_and_a_folder(model: SparseEncoder, tmp_path: Path) -> None:
    seen: list[object] = []

    def evaluator(given: SparseEncoder, output_path: str | None = None) -> dict[str, float]:
        seen.extend([given, output_path, output_path is None or Path(output_path).is_dir()])
        return {"score": 0.5}

    assert model.evaluate(evaluator, str(tmp_path / "a" / "b")) == {"score": 0.5}
    assert model.evaluate(evaluator) == {"score": 0.5}
    assert seen == [model, str(tmp_path / "a" / "b"), True, model, None, True]


def test_the_progress_bar_follows_the_logger(model: SparseEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("sparse_encoder")
    for level, show, expected in [
        (logging.WARNING, None, False),
        (logging.INFO, None, True),
        (logging.DEBUG, None, True),
        (logging.INFO, False, False),
        (logging.WARNING, True, True),
    ]:
        logger.setLevel(level)
        try:
            model.encode(TEXTS, show_progress_bar=show)
        finally:
            logger.setLevel(logging.NOTSET)
        shown = capsys.readouterr().err
        assert ("7/7" in shown) == expected, (level, show)


def test_similarities_by_name(model: SparseEncoder) -> None:
    rows = model.encode(TEXTS)
    dense = rows.to_dense()
    assert model.similarity_fn_name == "dot"
    torch.testing.assert_close(model.similarity(rows, rows[:2]), dense @ dense[:2].T)
    torch.testing.assert_close(model.similarity_pairwise(rows, rows), dense.square().sum(1))
    model.similarity_fn_name = "cosine"
    torch.testing.assert_close(model.similarity_pairwise(rows, rows), torch.ones(7))
    with pytest.raises(ValueError, match="unknown similarity"):
        model.similarity_fn_name = "angle"


def test_card_data_is_kept(folder: Path) -> None:
    card = SparseEncoderModelCardData(license="mit")
    assert SparseEncoder(str(folder), device="cpu", model_card_data=card).model_card_data is card


def test_importing_is_cheap() -> None:
    code = "import sys; from sparse_encoder import SparseEncoder; print(*sorted(sys.modules))"
    loaded = {name.split(".")[0] for name in run_python(code).split()}
    heavy = {"transformers", "sentence_transformers", "datasets", "accelerate", "huggingface_hub", "sklearn", "pandas"}
    assert loaded & heavy == set()
