"""Vocabularies that grow and shrink: shapes, what is kept, how new rows are drawn, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, D, V, batch, randomise
from fixture_files import fixture_path
from torch import nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, PretrainedModel
from sparse_encoder.backbone.resize import entries_near_the_mean, rows_near_the_mean

CONFIGS = {**TINY_CONFIGS, **VARIANTS}
MODELS = {"encoder": EncoderModel, "with a head": MaskedLanguageModel}


def model_of(name: str, kind: type[PretrainedModel] = MaskedLanguageModel) -> PretrainedModel:
    model = kind.from_config(CONFIGS[name]).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("rows", [V + 6, V - 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_tables_bias_and_configs_follow_and_the_rest_stays(name: str, rows: int, tmp_path: Path) -> None:
    model = model_of(name)
    assert isinstance(model, MaskedLanguageModel)
    given = dict(model.hf_config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    features = batch(model.config.num_token_types, pad=0)
    features["input_ids"] %= min(rows, V)
    expected = model(**features)
    words = model.get_input_embeddings()
    assert model.resize_token_embeddings(rows) is words
    kept = min(rows, V)
    assert words.num_embeddings == len(words.weight) == model.head.out_features == rows
    assert (model.head.weight is words.weight) == model.config.tie_word_embeddings
    assert model.config.vocab_size == model.backbone.config.vocab_size == model.hf_config["vocab_size"] == rows
    assert {**model.hf_config, "vocab_size": V} == {**given, "vocab_size": V}
    for key, value in model.state_dict().items():
        assert torch.equal(value[:kept] if len(value) == rows else value, before[key][: len(value)]), key
    if model.head.bias is not None:
        assert model.head.bias.shape == (rows,)
    logits = model(**features)
    assert logits.shape[-1] == rows
    torch.testing.assert_close(logits[..., :kept], expected[..., :kept])
    model.save_pretrained(tmp_path)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded(**features), logits)


@pytest.mark.parametrize(
    ("asked", "multiple", "rows"), [(None, 8, 24), (18, 8, 24), (24, 8, 24), (25, 8, 32), (5, 4, 8)]
)
def test_a_multiple_rounds_up(asked: int | None, multiple: int, rows: int) -> None:
    model = model_of("bert")
    assert model.resize_token_embeddings(asked, multiple).weight.shape == (rows, D)
    assert model.config.vocab_size == rows


@pytest.mark.parametrize("asked", [None, V])
def test_nothing_asked_changes_nothing(asked: int | None) -> None:
    model = model_of("bert")
    weight, config = model.get_input_embeddings().weight, model.config
    state = torch.get_rng_state()
    assert model.resize_token_embeddings(asked).weight is weight
    assert model.config is config
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", MODELS)
def test_the_config_the_model_was_made_of_is_not_changed(kind: str) -> None:
    given = dict(CONFIGS["bert"])
    first, second = MODELS[kind].from_config(given), MODELS[kind].from_config(given)
    first.resize_token_embeddings(V + 2)
    assert given["vocab_size"] == second.config.vocab_size == second.hf_config["vocab_size"] == V
    assert MODELS[kind].from_config(given).get_input_embeddings().num_embeddings == V


@pytest.mark.parametrize("trained", [True, False])
def test_parameters_stay_the_same_objects_without_their_gradients(trained: bool) -> None:
    model = model_of("untied bert").train()
    assert isinstance(model, MaskedLanguageModel)
    words, decoder = model.get_input_embeddings().weight, model.head.weight
    words.requires_grad_(trained)
    model(**batch(2, pad=0)).sum().backward()
    model.resize_token_embeddings(V + 3)
    assert model.get_input_embeddings().weight is words and model.head.weight is decoder
    assert words.requires_grad == trained and decoder.requires_grad
    assert words.grad is None and decoder.grad is None
    model(**batch(2, pad=0)).sum().backward()
    assert decoder.grad is not None and decoder.grad.shape == (V + 3, D)


@pytest.mark.parametrize("name", ["bert", "untied bert", "electra"])
def test_new_rows_are_near_the_mean_and_differ(name: str) -> None:
    model = model_of(name)
    assert isinstance(model, MaskedLanguageModel)
    means = [table.mean(dim=0) for table in (model.get_input_embeddings().weight, model.head.weight)]
    middle = model.head.bias.mean()
    model.resize_token_embeddings(V + 40)
    for table, mean in zip((model.get_input_embeddings().weight, model.head.weight), means, strict=True):
        assert 0 < (table[V:] - mean).abs().max() < 1e-3
        assert len(table[V:].unique(dim=0)) == 40
    torch.testing.assert_close(model.head.bias[V:], middle.expand(40))


def test_new_rows_have_a_billionth_of_the_covariance() -> None:
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(400, 3, generator=generator, dtype=torch.float64) @ torch.tensor(
        [[2.0, 0, 0], [1, 1, 0], [-3, 0.5, 0.1]], dtype=torch.float64
    ) + torch.tensor([5.0, -2.0, 0.5])
    centred = table - table.mean(dim=0)
    new = rows_near_the_mean(table, 200_000, generator=generator)
    found = (new - table.mean(dim=0)) / 1e-9**0.5
    torch.testing.assert_close(found.mT @ found / len(new), centred.mT @ centred / len(table), rtol=0.03, atol=0.03)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=0.03)
    again = rows_near_the_mean(table, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again, rows_near_the_mean(table, 5, generator=torch.Generator().manual_seed(2)))


def test_fewer_rows_than_columns_give_the_mean_itself() -> None:
    table = torch.randn(4, 7)
    assert torch.equal(rows_near_the_mean(table, 3), table.mean(dim=0).expand(3, -1))


def test_new_entries_of_a_bias_have_a_billionth_of_its_deviation() -> None:
    bias = torch.tensor([1.0, 3.0, 8.0], dtype=torch.float64)
    new = entries_near_the_mean(bias, 50_000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(new.mean(), bias.mean())
    torch.testing.assert_close((new - bias.mean()).std() / 1e-9, bias.std(), rtol=0.02, atol=0)
    assert torch.equal(entries_near_the_mean(bias[:1], 2), bias[:1].expand(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_averaged_in_float32(dtype: torch.dtype) -> None:
    table = (torch.randn(300, 5) + 200).to(dtype)
    new = rows_near_the_mean(table, 4)
    assert new.dtype is dtype
    assert torch.equal(new, table.float().mean(dim=0).to(dtype).expand(4, -1))


def test_without_the_mean_the_familys_rule_draws() -> None:
    model = model_of("untied bert")
    assert isinstance(model, MaskedLanguageModel)
    model.resize_token_embeddings(V + 5000, mean_resizing=False)
    for table in (model.get_input_embeddings().weight, model.head.weight):
        torch.testing.assert_close(table[V:].std(), torch.tensor(0.02), rtol=0.02, atol=0)
        assert table[V:].mean().abs() < 1e-3
    assert torch.equal(model.head.bias[V:], torch.zeros(5000))


def test_modernberts_rule_cuts_off_and_narrows_the_head() -> None:
    model = MaskedLanguageModel.from_config({**CONFIGS["modernbert"], "tie_word_embeddings": False})
    model.resize_token_embeddings(V + 3000, mean_resizing=False)
    assert 0.03 < model.get_input_embeddings().weight[V:].abs().max() <= 0.04
    edge = 0.04 / (2 * len(model.config.steps)) ** 0.5
    assert 0.8 * edge < model.head.weight[V:].abs().max() <= edge


def test_random_numbers_may_come_from_a_generator() -> None:
    tables = []
    for _ in range(2):
        model = model_of("bert")
        state = torch.get_rng_state()
        model.resize_token_embeddings(V + 4, generator=torch.Generator().manual_seed(7))
        assert torch.equal(torch.get_rng_state(), state)
        tables.append(model.get_input_embeddings().weight)
    assert torch.equal(*tables)


def test_a_padding_id_that_is_gone_is_dropped(tmp_path: Path) -> None:
    model = MaskedLanguageModel.from_config({**CONFIGS["modernbert"], "pad_token_id": V - 1})
    model.resize_token_embeddings(V - 1)
    assert model.get_input_embeddings().padding_idx is model.config.pad_token_id is None
    model.save_pretrained(tmp_path)
    assert MaskedLanguageModel.from_pretrained(tmp_path).config == model.config
    kept = MaskedLanguageModel.from_config(CONFIGS["bert"])
    kept.resize_token_embeddings(3)
    assert kept.get_input_embeddings().padding_idx == kept.config.pad_token_id == 0


@pytest.mark.parametrize("wrong", [{"new_num_tokens": 0}, {"new_num_tokens": True}, {"pad_to_multiple_of": 0}])
def test_counts_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be an integer from 1 on, got"):
        model_of("bert").resize_token_embeddings(**wrong)  # type: ignore[arg-type]


def test_what_cannot_be_changes_nothing() -> None:
    model = model_of("roberta")  # its positions count from the padding id, which is 1
    with pytest.raises(ValueError, match="pad_token_id must be given, positions count from it"):
        model.resize_token_embeddings(1)
    with pytest.raises(ValueError, match="vocab_size must be between 1 and"):
        model.resize_token_embeddings(1 << 30)
    assert model.get_input_embeddings().weight.shape == (V, D) and model.config.vocab_size == V


def test_tables_that_are_not_here_are_refused() -> None:
    model = model_of("bert").to("meta")
    with pytest.raises(ValueError, match="on the meta device have no rows"):
        model.resize_token_embeddings(V + 1)


@pytest.mark.fixture
def test_new_rows_of_a_real_model_are_at_its_mean() -> None:
    model = MaskedLanguageModel.from_pretrained(fixture_path("agave-chem"))
    words = model.get_input_embeddings()
    mean, rows = words.weight.mean(dim=0), words.num_embeddings
    model.resize_token_embeddings(rows + 30)
    assert (words.weight[rows:] - mean).abs().max() < 2e-5 * words.weight.std() / 0.02
    assert model.head.weight is words.weight or not model.config.tie_word_embeddings


def test_a_head_without_bias() -> None:
    model = MaskedLanguageModel.from_config({**CONFIGS["modernbert"], "decoder_bias": False})
    model.resize_token_embeddings(V + 1)
    assert model.head.bias is None and isinstance(model.head.weight, nn.Parameter)
    assert model.head.weight.shape == (V + 1, D)


def test_integers_of_any_kind_are_integers() -> None:
    model = model_of("bert")
    assert model.resize_token_embeddings(np.int64(V + 3)).num_embeddings == V + 3
    assert type(model.config.vocab_size) is int and type(model.hf_config["vocab_size"]) is int
    assert model.resize_token_embeddings(torch.tensor(V + 4), np.int32(4)).num_embeddings == -(-(V + 4) // 4) * 4
    for wrong in (torch.tensor(20.0), np.float64(20), "20", True):
        with pytest.raises(ValueError, match="new_num_tokens must be an integer from 1 on"):
            model.resize_token_embeddings(wrong)
