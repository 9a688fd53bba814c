from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from text_helpers import DENSE, PAD, SPARSE, A, B, bert_tokenizer

from sparse_encoder.checkpoint import CheckpointError, ConfigError, read_json
from sparse_encoder.modules import LoadSettings, SparseStaticEmbedding

V = 15  # tokens of the tokenizer
WEIGHT = torch.arange(1.0, V + 1)


def static(frozen: bool = False) -> SparseStaticEmbedding:
    return SparseStaticEmbedding(bert_tokenizer(model_max_length=6), WEIGHT.clone(), frozen)


def test_each_term_counts_once_and_special_tokens_do_not() -> None:
    module = static()
    features = module.preprocess(["sparse a a sparse", "dense", ""])
    weights = module(features)["sentence_embedding"]
    expected = torch.zeros(3, V)
    expected[0, SPARSE], expected[0, A], expected[1, DENSE] = SPARSE + 1, A + 1, DENSE + 1
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_hides_a_term_that_is_the_padding_token(side: str) -> None:
    padding = torch.tensor([[PAD, PAD, A, PAD]])
    mask = torch.tensor([[0, 0, 1, 1]]) if side == "left" else torch.tensor([[1, 0, 1, 0]])
    weights = static()({"input_ids": padding, "attention_mask": mask})["sentence_embedding"]
    assert weights.nonzero()[:, 1].tolist() == [PAD, A]


def test_an_embedding_that_is_there_is_multiplied() -> None:
    module = static()
    features = {**module.preprocess(["a b"]), "sentence_embedding": torch.full((1, V), 0.5)}
    weights = module(features)["sentence_embedding"]
    assert weights[0, [A, B]].tolist() == [(A + 1) / 2, (B + 1) / 2]
    assert weights.count_nonzero() == 2


def test_prompt_and_lengths() -> None:
    module = static()
    assert module.max_seq_length == 6
    assert module.preprocess(["a b"], prompt="sparse ")["input_ids"].tolist() == [[SPARSE, A, B]]
    assert module.preprocess(["a b a b"], max_length=2)["input_ids"].tolist() == [[A, B]]
    tokens = module.tokenize_batch(["a b", "a"], prompt="dense ", task="query")
    assert tokens.input_ids == [[DENSE, A, B], [DENSE, A]]
    module.max_seq_length = 1
    assert module.tokenize_batch(["a b"]).input_ids == [[A]]
    module.max_seq_length = None
    assert module.max_seq_length is None


def test_weights_are_trained_unless_they_are_frozen() -> None:
    module = static()
    module(module.preprocess(["a b b"]))["sentence_embedding"].sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.nonzero().flatten().tolist() == [A, B]
    assert not static(frozen=True).weight.requires_grad


def test_sixteen_bit_weights_give_float32() -> None:
    module = static().to(torch.bfloat16)
    assert module(module.preprocess(["a"]))["sentence_embedding"].dtype == torch.float32


def test_ones_by_default_and_too_few_weights_are_refused() -> None:
    assert SparseStaticEmbedding(bert_tokenizer()).weight.tolist() == [1.0] * V
    assert SparseStaticEmbedding(bert_tokenizer(), torch.ones(V + 3)).get_embedding_dimension() == V + 3
    for shape in ((V - 1,), (V, 1)):
        with pytest.raises(ValueError, match="one entry for each of 15 tokens"):
            SparseStaticEmbedding(bert_tokenizer(), torch.ones(shape))


@pytest.mark.parametrize("frozen", [False, True])
def test_files(tmp_path: Path, frozen: bool) -> None:
    static(frozen=frozen).save(tmp_path)
    assert read_json(tmp_path / "config.json") == {"frozen": frozen}
    loaded = SparseStaticEmbedding.load(tmp_path)
    assert torch.equal(loaded.weight, WEIGHT)
    assert loaded.weight.requires_grad is not frozen
    assert loaded.max_seq_length == 6


def test_weights_from_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "idf.json"
    path.write_text(json.dumps({"a": 2.5, "dense": 3, "elsewhere": 9}))
    expected = [0.0] * V
    expected[A], expected[DENSE] = 2.5, 3.0
    for place in (path, str(tmp_path)):  # the file, or the folder that has it
        module = SparseStaticEmbedding.from_json(place, bert_tokenizer(), frozen=True)
        assert module.weight.tolist() == expected
        assert module.frozen
    assert "1 terms that the tokenizer lacks, such as 'elsewhere'" in caplog.text
    with pytest.raises(FileNotFoundError):
        SparseStaticEmbedding.from_json(tmp_path / "no" / "such" / "file.json", bert_tokenizer())


@pytest.mark.parametrize("content", ['{"a": "2"}', '{"a": true}', '{"a": NaN}', '{"a": 1e300}', '{"zebra": 1}', "[1]"])
def test_bad_json_weights_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "idf.json").write_text(content)
    with pytest.raises(ConfigError, match="idf.json"):
        SparseStaticEmbedding.from_json(tmp_path / "idf.json", bert_tokenizer())


@pytest.mark.parametrize("beside", [True, False])
def test_a_path_in_the_configuration_is_looked_for_in_the_module_then_in_the_model(
    tmp_path: Path, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "query_0"
    folder.mkdir()
    static().save(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text('{"frozen": true, "path": "idf.json"}')
    ((folder if beside else tmp_path) / "idf.json").write_text('{"a": 2}')
    if beside:
        (tmp_path / "idf.json").write_text('{"a": 7}')
    monkeypatch.chdir("/")  # where sentence-transformers looks
    module = SparseStaticEmbedding.load(folder, LoadSettings(root=tmp_path))
    assert module.weight[A] == 2
    assert module.frozen


@pytest.mark.parametrize("name", ["../idf.json", "/etc/idf.json", "absent.json", "owner/name", "weights.bin", 3])
def test_other_paths_are_refused(tmp_path: Path, name: object) -> None:
    static().save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"path": name}))
    with pytest.raises(ConfigError):
        SparseStaticEmbedding.load(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    static().save(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({"weight": WEIGHT, "bias": WEIGHT.clone()}, path)
    with pytest.raises(CheckpointError, match="must have one tensor"):
        SparseStaticEmbedding.load(tmp_path)
    save_file({"weight": WEIGHT.long()}, path)
    with pytest.raises(CheckpointError, match="floating point"):
        SparseStaticEmbedding.load(tmp_path)
    save_file({"weight": WEIGHT[1:].clone()}, path)
    with pytest.raises(ConfigError, match="one entry for each of 15 tokens"):
        SparseStaticEmbedding.load(tmp_path)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    static().save(tmp_path)
    (tmp_path / "config.json").write_text('{"frozen": false, "idf": 1}')
    with pytest.raises(ConfigError, match="unknown keys \\['idf'\\]"):
        SparseStaticEmbedding.load(tmp_path)


def test_weights_follow_the_vocabulary(tmp_path: Path) -> None:
    module = static()
    module.tokenizer.add_tokens(["zork"])
    expected = f"the tokenizer has {V + 1} tokens, the SparseStaticEmbedding weights for {V} of them"
    features = {"input_ids": torch.tensor([[A]]), "attention_mask": torch.ones(1, 1)}
    calls = (lambda: module.preprocess(["a"]), lambda: module(features), lambda: module.save(tmp_path))
    for call in (*calls, lambda: module.tokenize_batch(["a"])):
        with pytest.raises(ValueError, match=expected):
            call()
    assert not list(tmp_path.iterdir())
    module.weight.sum().backward()
    assert module.resize_token_embeddings(V + 1) is module.weight and module.weight.grad is None
    assert torch.equal(module.weight.detach(), torch.cat([WEIGHT, WEIGHT.mean()[None]]))
    assert module(module.preprocess(["zork"]))["sentence_embedding"][0, V] == WEIGHT.mean()
    assert module.resize_token_embeddings(pad_to_multiple_of=8, new_weight=0.0).shape == (16,)
    assert module.resize_token_embeddings(pad_to_multiple_of=9, new_weight=-1.0)[-2:].tolist() == [-1.0, -1.0]
    assert module.num_dimensions == module.get_embedding_dimension() == 18
    with pytest.raises(ValueError, match=f"at least {V + 1}, the tokens, got {V}"):
        module.resize_token_embeddings(V)
    with pytest.raises(ValueError, match="new_weight must be a finite number"):
        module.resize_token_embeddings(20, new_weight=float("nan"))
    module.save(tmp_path)
    assert torch.equal(SparseStaticEmbedding.load(tmp_path).weight, module.weight)
