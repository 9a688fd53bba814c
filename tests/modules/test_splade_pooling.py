from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from modules_helpers import B, T, V, token_features, transformer
from torch import Tensor

from sparse_encoder.checkpoint import ConfigError, read_json, write_json
from sparse_encoder.modules import Features, SpladePooling, VocabularyProjection


def by_the_formula(logits: Tensor, mask: Tensor, strategy: str, activation: str) -> Tensor:
    weights = torch.log1p(torch.relu(logits))
    if activation == "log1p_relu":
        weights = torch.log1p(weights)
    weights = weights * mask.unsqueeze(2)
    return weights.amax(dim=1) if strategy == "max" else weights.sum(dim=1)


def test_by_hand() -> None:
    logits = torch.tensor([[[1.0, -2.0], [3.0, -1.0], [9.0, 9.0]]])
    features = {"token_embeddings": logits, "attention_mask": torch.tensor([[1, 1, 0]])}
    assert SpladePooling()(features)["sentence_embedding"].tolist() == [[pytest.approx(math.log(4)), 0.0]]
    summed = SpladePooling("sum", "log1p_relu")(features)["sentence_embedding"]
    expected = math.log1p(math.log(2)) + math.log1p(math.log(4))
    assert summed.tolist() == [[pytest.approx(expected), 0.0]]


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("chunk_size", [None, 0, 1, 2, 7])
def test_logits_are_pooled_by_the_formula_in_any_chunks(strategy: str, activation: str, chunk_size: int | None) -> None:
    features = token_features(width=V)
    pooling = SpladePooling(strategy, activation, chunk_size=chunk_size)
    expected = by_the_formula(features["token_embeddings"], features["attention_mask"], strategy, activation)
    torch.testing.assert_close(pooling(features)["sentence_embedding"], expected)
    assert set(features) == {"token_embeddings", "attention_mask"}


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_a_projection_is_pooled_as_its_logits_are(strategy: str, activation: str) -> None:
    module = transformer()
    features = module(module.preprocess(["sparse rows", "dense a b"]))
    assert "token_embeddings" not in features
    expected = by_the_formula(features["token_embeddings"], features["attention_mask"], strategy, activation)
    pooled = SpladePooling(strategy, activation)(features)
    torch.testing.assert_close(pooled["sentence_embedding"], expected)
    assert "token_embeddings" not in pooled


def test_token_embeddings_that_were_set_win_over_the_projection() -> None:
    module = transformer()
    features = module(module.preprocess(["sparse", "dense"]))
    features["token_embeddings"] = features["token_embeddings"] - 1e9
    assert not SpladePooling()(features)["sentence_embedding"].any()


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("with_logits", [False, True])
def test_a_text_without_tokens_and_what_is_in_the_padding(strategy: str, with_logits: bool) -> None:
    hidden = torch.full((B, T, 3), math.nan)
    hidden[1, 2] = 1.0
    mask = torch.tensor([[0] * T, [0, 0, 1, 0, 0]])
    projection = VocabularyProjection(hidden, torch.ones(V, 3), None)
    features = Features({"vocabulary_projection": projection, "attention_mask": mask})
    if with_logits:
        features["token_embeddings"] = projection.logits()
    weights = SpladePooling(strategy)(features)["sentence_embedding"]
    assert weights[0].tolist() == [0.0] * V
    assert weights[1].tolist() == pytest.approx([math.log(4)] * V)


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_bfloat16_models_give_float32_weights(strategy: str) -> None:
    module = transformer().to(torch.bfloat16)
    features = module(module.preprocess(["sparse rows"]))
    for given in (features, {**features, "token_embeddings": features["token_embeddings"]}):
        weights = SpladePooling(strategy)(given)["sentence_embedding"]
        assert weights.dtype == torch.float32
        # more than the 8 bits that a bfloat16 logarithm has
        assert not torch.equal(weights, weights.bfloat16().float())


def test_gradients_reach_every_parameter_that_the_logits_depend_on() -> None:
    module = transformer()
    SpladePooling()(module(module.preprocess(["sparse rows a b"])))["sentence_embedding"].sum().backward()
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert without == []


def test_the_dimension_is_learnt_and_then_holds() -> None:
    pooling = SpladePooling()
    assert pooling.get_embedding_dimension() is None
    pooling(token_features(width=V))
    assert pooling.get_embedding_dimension() == V
    with pytest.raises(ValueError, match="embedding_dimension is 17"):
        pooling(token_features(width=V + 1))


def test_configuration_and_its_older_name(tmp_path: Path) -> None:
    SpladePooling("sum", "log1p_relu", embedding_dimension=V, chunk_size=3).save(tmp_path)
    saved = {"pooling_strategy": "sum", "activation_function": "log1p_relu", "embedding_dimension": V}
    assert read_json(tmp_path / "config.json") == saved
    loaded = SpladePooling.load(tmp_path)
    assert loaded.get_config_dict() == saved
    assert loaded.chunk_size is None
    write_json(tmp_path / "config.json", {"pooling_strategy": "max", "word_embedding_dimension": 30})
    assert SpladePooling.load(tmp_path).embedding_dimension == 30


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_strategy": "mean"},
        {"activation_function": "gelu"},
        {"embedding_dimension": 0},
        {"embedding_dimension": True},
        {"embedding_dimension": "30522"},
        {"special_tokens": False},
    ],
)
def test_a_bad_configuration_is_refused_with_its_file(tmp_path: Path, config: dict[str, object]) -> None:
    write_json(tmp_path / "config.json", config)
    with pytest.raises(ConfigError, match="config.json"):
        SpladePooling.load(tmp_path)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'max', 'sum'"):
        SpladePooling("mean")
    with pytest.raises(ValueError, match="'log1p_relu', 'relu'"):
        SpladePooling("max", "gelu")


def test_the_older_name_of_the_dimension() -> None:
    pooling = SpladePooling("max", word_embedding_dimension=V)  # type: ignore[call-arg]
    assert pooling.get_embedding_dimension() == pooling.get_sentence_embedding_dimension() == V
    with pytest.raises(TypeError, match="is the older name of 'embedding_dimension'"):
        SpladePooling(embedding_dimension=V, word_embedding_dimension=V)  # type: ignore[call-arg]
