"""A sparse encoder of every family: encoded, trained for a step, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS
from model_helpers import VOCABULARY, mixed_texts, write_masked_language_model
from safetensors.torch import load_file, save_file

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.modules import Router, SparseStaticEmbedding

CONFIGS = {**TINY_CONFIGS, **VARIANTS}
TEXTS = [*mixed_texts(7), "", "rain"]


WIDTHS = {
    "hidden_size": 96,
    "dim": 96,
    "n_embd": 96,
    "intermediate_size": 192,
    "hidden_dim": 192,
    "embedding_size": 32,
}


def write(folder: Path, name: str, *, wide: bool = False) -> Path:
    config: dict[str, Any] = {**CONFIGS[name], "vocab_size": len(VOCABULARY), "initializer_range": 0.3}
    if wide:  # so that no product of matrices is so narrow that its number of rows changes how it is computed
        config |= {key: width for key, width in WIDTHS.items() if key in config} | {"initializer_range": 0.1}
    padding = 1 if "mpnet" in name else 0  # MPNet counts places from it; the tokenizer here pads with 0
    config |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": padding}
    return write_masked_language_model(folder, config={"max_position_embeddings": 26, **config})


def load(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), device="cpu")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_fused_head_gives_the_vectors_of_the_logits(name: str, tmp_path: Path) -> None:
    model = load(write(tmp_path, name))
    plain = MaskedLanguageModel.from_pretrained(tmp_path)
    features = model.tokenize(TEXTS)
    ids, mask = features["input_ids"], features["attention_mask"]
    types = features.get("token_type_ids") if plain.config.num_token_types else None
    with torch.no_grad():
        logits = plain(ids, mask, types)
    expected = torch.log1p(torch.relu(logits)).masked_fill(mask[..., None] == 0, 0.0).amax(dim=1)
    got = model.encode(TEXTS).to_dense()
    assert (got > 0).any(dim=1).all()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_neighbours_and_batch_size_change_no_bit(name: str, tmp_path: Path) -> None:
    model = load(write(tmp_path, name, wide=True))
    together = model.encode(TEXTS).to_dense()
    backwards = model.encode(TEXTS[::-1], batch_size=3).to_dense().flip(0)
    alone = torch.cat([model.encode([text]).to_dense() for text in TEXTS])
    assert together.any(dim=1).all()
    assert torch.equal(together, backwards)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_step_of_training_changes_it_and_saving_keeps_it(name: str, tmp_path: Path) -> None:
    model = load(write(tmp_path / "first", name))
    before = model.encode(TEXTS).to_dense()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    embedding = model(model.tokenize(TEXTS))["sentence_embedding"]
    embedding.square().sum(dim=1).mean().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    optimizer.step()
    model.eval()
    after = model.encode(TEXTS).to_dense()
    assert not torch.equal(after, before) and torch.isfinite(after).all()
    model.save_pretrained(str(tmp_path / "second"))
    assert torch.equal(load(tmp_path / "second").encode(TEXTS).to_dense(), after)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_in_16_bits_vectors_are_finite_and_near(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = load(write(tmp_path, name))
    exact = model.encode(TEXTS).to_dense()
    short = model.to(dtype).encode(TEXTS).to_dense().float()
    assert torch.isfinite(short).all()
    assert (short - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_an_inference_free_model_whose_files_ask_for_code(tmp_path: Path) -> None:
    """As opensearch-neural-sparse-encoding-doc-v3-gte is published: `new`, with its code named in two places."""
    write(tmp_path / "plain", "new")
    document = load(tmp_path / "plain")
    transformer, pooling = document
    weight = torch.rand(len(VOCABULARY), generator=torch.Generator().manual_seed(9))
    query = SparseStaticEmbedding(tokenizer=document.tokenizer, weight=weight, frozen=True)
    router = Router.for_query_document(query_modules=[query], document_modules=[transformer, pooling])
    model = SparseEncoder(modules=[router], device="cpu")
    expected = model.encode_document(TEXTS).to_dense()
    model.save_pretrained(str(tmp_path / "saved"))

    folder = next((tmp_path / "saved").glob("document_*_Transformer"))
    code = {"auto_map": {"AutoConfig": "x--configuration.NewConfig"}, "architectures": ["NewForMaskedLM"]}
    older = {**CONFIGS["new"], "vocab_size": len(VOCABULARY), **code}
    (folder / "config.json").write_text(json.dumps(older))
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    settings["model_args"] = {"trust_remote_code": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("gte.", "new.", 1): tensor for name, tensor in tensors.items()}
    assert any(name.startswith("new.") for name in renamed)
    save_file(renamed, folder / "model.safetensors")

    with pytest.warns(UserWarning, match="auto_map are ignored; nothing is imported"):
        again = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.encode_document(TEXTS).to_dense(), expected)
    assert torch.equal(again.encode_query(TEXTS).to_dense(), model.encode_query(TEXTS).to_dense())
