from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from modules_helpers import D, token_features
from torch import Tensor

from sparse_encoder.checkpoint import ConfigError, read_json, write_json
from sparse_encoder.modules import Pooling
from sparse_encoder.modules.pooling import LEGACY_FLAGS, POOLINGS


def pool(mode: str | tuple[str, ...], features: dict[str, Any], include_prompt: bool = True) -> Tensor:
    embedding: Tensor = Pooling(D, mode, include_prompt)(features)["sentence_embedding"]
    return embedding


def test_each_mode_by_hand() -> None:
    features = token_features()
    first, second = features["token_embeddings"]
    kept = [[first[0], first[1], first[2]], [second[2], second[4]]]
    places = [[1, 2, 3], [1, 3]]  # the hole keeps its place
    expected = {
        "cls": [row[0] for row in kept],
        "lasttoken": [row[-1] for row in kept],
        "max": [torch.stack(row).amax(0) for row in kept],
        "mean": [sum(row) / len(row) for row in kept],
        "mean_sqrt_len_tokens": [sum(row) / len(row) ** 0.5 for row in kept],
        "weightedmean": [
            sum(w * r for w, r in zip(weights, row, strict=True)) / sum(weights)
            for weights, row in zip(places, kept, strict=True)
        ],
    }
    assert set(expected) == set(POOLINGS)
    for mode, rows in expected.items():
        torch.testing.assert_close(pool(mode, features), torch.stack(rows))


def test_modes_are_joined_in_the_order_given() -> None:
    features = token_features()
    joined = pool(("max", "cls"), features)
    assert torch.equal(joined, torch.cat([pool("max", features), pool("cls", features)], dim=1))
    assert Pooling(D, ["max", "cls"]).get_embedding_dimension() == 2 * D
    assert Pooling(D, ["max"]).pooling_mode == "max"


@pytest.mark.parametrize("mode", sorted(POOLINGS))
def test_padding_and_texts_without_tokens_never_matter(mode: str) -> None:
    features = token_features()
    clean = pool(mode, features)
    features["token_embeddings"][features["attention_mask"] == 0] = torch.nan
    assert torch.equal(pool(mode, features), clean)
    features["attention_mask"][1] = 0
    assert pool(mode, features)[1].tolist() == [0.0] * D


@pytest.mark.parametrize("length", [2, torch.tensor([2, 2])])
def test_tokens_of_the_prompt_can_be_left_out(length: int | Tensor) -> None:
    features = {**token_features(), "prompt_length": length}
    assert torch.equal(pool("mean", features), pool("mean", token_features()))
    without = pool("mean", features, include_prompt=False)
    assert torch.equal(without[0], features["token_embeddings"][0, 2])
    assert torch.equal(without[1], features["token_embeddings"][1, 4])  # after two places of padding and two of prompt
    weighted = pool("weightedmean", features, include_prompt=False)
    torch.testing.assert_close(weighted[0], features["token_embeddings"][0, 2])


def test_bfloat16_is_summed_in_float32() -> None:
    features = {
        "token_embeddings": torch.ones(1, 1000, D, dtype=torch.bfloat16),
        "attention_mask": torch.ones(1, 1000, dtype=torch.long),
    }
    assert pool("mean_sqrt_len_tokens", features).dtype == torch.bfloat16
    assert pool("mean", features).tolist() == [[1.0] * D]  # a bfloat16 sum would stop at 256


def test_configuration(tmp_path: Path) -> None:
    for mode in ("cls", ("mean", "max")):
        Pooling(D, mode, include_prompt=False).save(tmp_path)
        loaded = Pooling.load(tmp_path)
        assert loaded.get_config_dict() == {"embedding_dimension": D, "pooling_mode": mode, "include_prompt": False}
    assert read_json(tmp_path / "config.json")["pooling_mode"] == ["mean", "max"]


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True}, ("cls", "lasttoken")),
        ({"pooling_mode_max_tokens": False}, "mean"),
        (dict.fromkeys(LEGACY_FLAGS, True), tuple(LEGACY_FLAGS.values())),
    ],
)
def test_flags_of_older_files(tmp_path: Path, flags: dict[str, bool], mode: str | tuple[str, ...]) -> None:
    write_json(tmp_path / "config.json", {"word_embedding_dimension": D, **flags})
    loaded = Pooling.load(tmp_path)
    assert (loaded.embedding_dimension, loaded.pooling_mode) == (D, mode)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"embedding_dimension": D, "pooling_mode": "first"},
        {"embedding_dimension": D, "pooling_mode": []},
        {"embedding_dimension": D, "pooling_mode": 3},
        {"embedding_dimension": D, "include_prompt": "yes"},
        {"embedding_dimension": -1},
    ],
)
def test_a_bad_configuration_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    write_json(tmp_path / "config.json", config)
    with pytest.raises(ConfigError):
        Pooling.load(tmp_path)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ("cls", "max")),
        ({"pooling_mode_mean_tokens": False}, "mean"),
        ({"pooling_mode_max_tokens": True, "pooling_mode": "lasttoken"}, "lasttoken"),
    ],
)
def test_flags_of_older_scripts(flags: dict[str, Any], expected: object) -> None:
    assert Pooling(D, **flags).pooling_mode == expected
    assert Pooling(word_embedding_dimension=D).get_sentence_embedding_dimension() == D  # type: ignore[call-arg]
