from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparse_encoder.checkpoint import CheckpointError, ConfigError, read_json, write_json
from sparse_encoder.modules import SparseAutoEncoder

B, D, L, K = 3, 5, 11, 2


def auto_encoder(**options: Any) -> SparseAutoEncoder:  # noqa: ANN401
    torch.manual_seed(0)
    module = SparseAutoEncoder(D, L, **{"k": K, "k_aux": 4, **options})
    with torch.no_grad():
        module.pre_bias.normal_()
        module.latent_bias.normal_()
    return module


def dense(seed: int = 1, texts: int = B) -> Tensor:
    return torch.randn(texts, D, generator=torch.Generator().manual_seed(seed))


def keep_largest(latents: Tensor, k: int) -> Tensor:
    kept = torch.zeros_like(latents)
    for row, values in zip(kept, latents, strict=True):
        for place in values.argsort(descending=True)[:k]:
            row[place] = max(values[place].item(), 0.0)
    return kept


@pytest.mark.parametrize("normalize", [False, True])
def test_all_features_by_the_formulas(normalize: bool) -> None:
    module = auto_encoder(normalize=normalize, dead_threshold=3).eval()
    module.stats_last_nonzero[:6] = 4  # dead
    x = dense()
    result = module({"sentence_embedding": x})
    mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    inputs = (x - mean) / (deviation + 1e-5) if normalize else x
    weight = module.encoder.weight  # (L, D)
    latents = (inputs - module.pre_bias) @ weight.T + module.latent_bias

    def decode(code: Tensor) -> Tensor:
        decoded = code @ weight + module.pre_bias
        return decoded * deviation + mean if normalize else decoded

    code = keep_largest(latents, K)
    auxiliary = keep_largest(latents * (torch.arange(L) < 6), 4)
    scale = deviation if normalize else 1.0
    expected = {
        "sentence_embedding": code,
        "sentence_embedding_backbone": x,
        "sentence_embedding_encoded": latents,
        "sentence_embedding_encoded_4k": keep_largest(latents, 4 * K),
        "auxiliary_embedding": auxiliary,
        "decoded_embedding_k": decode(code),
        "decoded_embedding_4k": decode(keep_largest(latents, 4 * K)),
        "decoded_embedding_aux": (auxiliary @ weight + module.pre_bias) * scale,
        "decoded_embedding_k_pre_bias": decode(code) - module.pre_bias * scale,
    }
    assert set(result) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_inference_computes_only_the_code() -> None:
    module = auto_encoder().eval()
    features = {"sentence_embedding": dense()}
    trained = module(features)["sentence_embedding"]
    with torch.inference_mode():
        result = module(features)
    assert list(result) == ["sentence_embedding"]
    assert torch.equal(result["sentence_embedding"], trained)


def test_the_number_of_latents_can_be_chosen_per_call() -> None:
    module = auto_encoder().eval()
    module.latent_bias.data += 10  # all latents positive
    features = {"sentence_embedding": dense()}
    for asked, kept in ((None, K), (1, 1), (5, 5), (1000, L)):
        code = module(features, max_active_dims=asked)["sentence_embedding"]
        assert (code > 0).sum(dim=1).tolist() == [kept] * B


def test_more_latents_than_there_are_are_not_asked_for() -> None:
    module = auto_encoder(k=L - 1, k_aux=1000)
    result = module({"sentence_embedding": dense()})
    assert result["sentence_embedding_encoded_4k"].shape == (B, L)
    assert auto_encoder(k_aux=0)({"sentence_embedding": dense()})["decoded_embedding_aux"] is None


def test_a_step_counts_once_however_many_columns_it_has() -> None:
    module = auto_encoder().train()
    for step in range(1, 4):
        columns = [module({"sentence_embedding": dense(seed)}) for seed in (1, 2, 3)]
        fired = torch.stack([(column["sentence_embedding"] > 1e-5).any(dim=0) for column in columns]).any(dim=0)
        assert fired.any() and not fired.all()
        expected = torch.where(fired, 1, step)
        assert torch.equal(module.stats_last_nonzero, expected)
        sum(column["decoded_embedding_k"].sum() for column in columns).backward()


def test_evaluation_and_forward_passes_without_gradient_do_not_count() -> None:
    module = auto_encoder()
    with torch.no_grad():
        module.train()({"sentence_embedding": dense()})
    module.eval()({"sentence_embedding": dense()})
    assert not module.stats_last_nonzero.any()


def test_gradients_reach_every_parameter() -> None:
    module = auto_encoder()
    result = module({"sentence_embedding": dense()})
    (result["decoded_embedding_k"] - result["sentence_embedding_backbone"]).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_files_are_the_peers(tmp_path: Path) -> None:
    module = auto_encoder()
    module.stats_last_nonzero[3] = 40
    module.save(tmp_path)
    config = {"input_dim": D, "hidden_dim": L, "k": K, "k_aux": 4, "normalize": False, "dead_threshold": 30}
    assert read_json(tmp_path / "config.json") == config
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["decoder.linear.weight", "latent_bias", "pre_bias", "stats_last_nonzero"]
        assert file.metadata()["encoder.weight"] == "decoder.linear.weight"
    loaded = SparseAutoEncoder.load(tmp_path)
    assert loaded.get_config_dict() == config
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("names", [["encoder.weight"], ["encoder.weight", "decoder.linear.weight"]])
def test_the_matrix_may_have_either_name_or_both(tmp_path: Path, names: list[str]) -> None:
    module = auto_encoder()
    module.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    matrix = tensors.pop("decoder.linear.weight")
    save_file({**tensors, **{name: matrix.clone() for name in names}}, tmp_path / "model.safetensors")
    assert torch.equal(SparseAutoEncoder.load(tmp_path).encoder.weight, module.encoder.weight)


def test_two_matrices_that_differ_and_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    auto_encoder().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    save_file({**tensors, "encoder.weight": tensors["decoder.linear.weight"] + 1}, path)
    with pytest.raises(CheckpointError, match="differ"):
        SparseAutoEncoder.load(tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "pre_bias"} | {"x": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="missing 'pre_bias'; unexpected 'x'"):
        SparseAutoEncoder.load(tmp_path)
    save_file({**tensors, "latent_bias": torch.zeros(L + 1)}, path)
    with pytest.raises(CheckpointError, match=r"'latent_bias' is \(12,\), the configuration says \(11,\)"):
        SparseAutoEncoder.load(tmp_path)
    save_file({**tensors, "stats_last_nonzero": torch.zeros(L)}, path)
    with pytest.raises(CheckpointError, match="'stats_last_nonzero' is torch.float32"):
        SparseAutoEncoder.load(tmp_path)


def test_a_huge_size_in_a_configuration_costs_no_memory(tmp_path: Path) -> None:
    auto_encoder().save(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "hidden_dim": 10**11})
    with pytest.raises(CheckpointError, match="100000000000"):
        SparseAutoEncoder.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"k": 0}, {"k": L + 1}, {"k_aux": -1}, {"input_dim": 5.0}, {"normalize": 1}, {"hidden_dim": True}, {"tied": True}],
)
def test_a_bad_configuration_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    auto_encoder().save(tmp_path)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), **change})
    with pytest.raises(ConfigError):
        SparseAutoEncoder.load(tmp_path)


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    torch.manual_seed(0)
    module = SparseAutoEncoder(384, 700, k=9).eval()
    rows = torch.randn(64, 384)
    with torch.inference_mode():
        alone = torch.cat([module({"sentence_embedding": row[None]})["sentence_embedding"] for row in rows])
        for size in (2, 3, 7, 17, 64):
            together = module({"sentence_embedding": rows[:size]})["sentence_embedding"]
            assert torch.equal(together, alone[:size])
