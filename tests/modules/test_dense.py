from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparse_encoder.checkpoint import ConfigError, read_json, write_json
from sparse_encoder.modules import Dense, Dropout, Normalize
from sparse_encoder.modules.dense import ACTIVATIONS

B, D, E = 3, 5, 7


def features() -> dict[str, Any]:
    return {"sentence_embedding": torch.randn(B, D, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize(("out", "residual"), [(E, False), (E, True), (D, True)])
def test_dense_by_the_formula(out: int, residual: bool) -> None:
    module = Dense(D, out, activation_function=nn.ReLU(), use_residual=residual, module_output_name="mapped")
    given = features()
    x = given["sentence_embedding"]
    expected = torch.relu(x @ module.linear.weight.T + module.linear.bias)
    if residual:
        expected = expected + (x if out == D else x @ module.residual.weight.T)
    result = module(given)
    torch.testing.assert_close(result["mapped"], expected)
    assert result["sentence_embedding"] is x
    assert module.get_embedding_dimension() == out


def test_dense_takes_token_embeddings_and_first_values() -> None:
    weight, bias = torch.randn(E, D), torch.randn(E)
    names = {"module_input_name": "token_embeddings", "activation_function": None}
    module = Dense(D, E, init_weight=weight, init_bias=bias, **names)
    tokens = torch.randn(B, 4, D)
    torch.testing.assert_close(module({"token_embeddings": tokens})["token_embeddings"], tokens @ weight.T + bias)
    with pytest.raises(ValueError, match="initial values must be"):
        Dense(D, E, init_weight=weight.T)
    with pytest.raises(ValueError, match="bias is False"):
        Dense(D, E, bias=False, init_bias=bias)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"use_residual": True, "activation_function": nn.GELU()}])
def test_dense_files(tmp_path: Path, options: dict[str, Any]) -> None:
    module = Dense(D, E, **options)
    module.save(tmp_path)
    loaded = Dense.load(tmp_path)
    assert loaded.get_config_dict() == module.get_config_dict()
    assert ("use_residual" in read_json(tmp_path / "config.json")) is bool(options.get("use_residual"))
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(module.state_dict())
    assert torch.equal(loaded(features())["sentence_embedding"], module(features())["sentence_embedding"])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_by_both_of_its_names(tmp_path: Path, name: str) -> None:
    Dense(D, E).save(tmp_path)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), "activation_function": name})
    assert type(Dense.load(tmp_path).activation_function) is ACTIVATIONS[name]


@pytest.mark.parametrize("name", ["os.system", "torch.load", "torch.nn.modules.linear.Linear", 3, "Tanh"])
def test_other_activations_are_refused(tmp_path: Path, name: object) -> None:
    Dense(D, E).save(tmp_path)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), "activation_function": name})
    with pytest.raises(ConfigError, match="activation"):
        Dense.load(tmp_path)
    with pytest.raises(ValueError, match="cannot be saved"):
        Dense(D, E, activation_function=torch.tanh).save(tmp_path)


def test_normalize(tmp_path: Path) -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert Normalize()({"sentence_embedding": rows})["sentence_embedding"].tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0.0, 0.0],
    ]
    Normalize("token_embeddings", "scaled").save(tmp_path)
    assert Normalize.load(tmp_path).get_config_dict() == {
        "module_input_name": "token_embeddings",
        "module_output_name": "scaled",
    }
    assert Normalize.load(tmp_path / "absent").module_output_name == "sentence_embedding"


def test_dropout(tmp_path: Path) -> None:
    module = Dropout(0.5)
    module.save(tmp_path)
    assert Dropout.load(tmp_path).dropout == 0.5
    ones = {"sentence_embedding": torch.ones(4, 1000)}
    assert set(module(ones)["sentence_embedding"].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(module.eval()(ones)["sentence_embedding"], ones["sentence_embedding"])
    with pytest.raises(ValueError, match="dropout must be"):
        Dropout(1.0)
