"""Models spread over devices by accelerate compute what they compute in one piece."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, batch, randomise
from loading_helpers import assert_same, change, saved

from sparse_encoder.backbone import EncoderModel, LoraConfig, MaskedLanguageModel, load_sharded_checkpoint

NAMES = sorted(TINY_CONFIGS)


def bert(seed: int) -> MaskedLanguageModel:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"]).eval()
    randomise(model, seed)
    return model


@pytest.mark.parametrize("device_map", ["cpu", torch.device("cpu"), {"": "cpu"}, "auto", "balanced", "sequential"])
def test_one_device(device_map: Any, tmp_path: Path) -> None:  # noqa: ANN401
    model = saved(tmp_path)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path, device_map=device_map)
    assert_same(loaded, model)
    assert loaded.device == torch.device("cpu")


@pytest.mark.parametrize("name", NAMES)
def test_layers_on_the_disk(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", name)
    layers = {f"backbone.layers.{index}": "disk" for index in range(1, len(model.backbone.layers))}
    parts = [f"backbone.{part}" for part, module in model.backbone.named_children() if part != "layers"]
    known = dict.fromkeys((*parts, "backbone.layers.0", "head"), "cpu")
    loaded = MaskedLanguageModel.from_pretrained(
        tmp_path / "model", device_map={**known, **layers}, offload_folder=tmp_path / "disk"
    )
    assert all(each.is_meta for each in loaded.backbone.layers[1].parameters()) or name == "albert"
    features = batch(model.config.num_token_types, pad=0)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(loaded(**features), model(**features))
    assert loaded.hf_device_map == {**known, **layers}
    assert loaded.device == torch.device("cpu") and not loaded.training


@pytest.mark.parametrize("name", NAMES)
def test_everything_on_the_disk(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", name)
    loaded = MaskedLanguageModel.from_pretrained(
        tmp_path / "model", device_map={"backbone": "disk", "head": "disk"}, offload_folder=tmp_path / "disk"
    )
    assert all(each.is_meta for each in loaded.parameters())
    features = batch(model.config.num_token_types, pad=0)
    with torch.no_grad():
        assert torch.equal(loaded(**features), model(**features))
    assert loaded.device == torch.device("cpu")


def test_16_bits_and_new_parameters_on_the_disk(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    change(tmp_path / "model", lambda tensors: tensors.pop("bert.encoder.layer.2.output.dense.bias"))
    options: dict[str, Any] = {"dtype": "bfloat16", "strict": False}
    with pytest.warns(UserWarning, match="1 tensor missing"):
        plain = EncoderModel.from_pretrained(tmp_path / "model", **options)
    with pytest.warns(UserWarning, match="1 tensor missing"):
        loaded = EncoderModel.from_pretrained(
            tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "disk", **options
        )
    with torch.no_grad():
        assert torch.equal(loaded(**batch(pad=0)), plain(**batch(pad=0)))
    assert loaded.dtype == torch.bfloat16
    (own,) = (tmp_path / "disk").iterdir()
    assert "backbone.layers.2.feed_forward.down.bias.dat" in os.listdir(own)


def test_models_that_share_a_folder_on_the_disk_keep_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = saved(tmp_path / "first"), bert(7)
    second.save_pretrained(tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"device_map": {"": "disk"}, "offload_folder": "disk"}
    loaded = [MaskedLanguageModel.from_pretrained(tmp_path / name, **options) for name in ("first", "second")]
    monkeypatch.chdir("/")  # the folder is where it was
    with torch.no_grad():
        for model, source in zip(loaded, (first, second), strict=True):
            assert torch.equal(model(**batch(pad=0)), source(**batch(pad=0)))


def test_shards_do_not_go_into_a_model_whose_values_are_elsewhere(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    bert(7).save_pretrained(tmp_path / "shards", max_shard_size=4000)
    model = MaskedLanguageModel.from_pretrained(
        tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "disk"
    )
    before = model(**batch(pad=0))
    with pytest.raises(ValueError, match="values are not in the model but offloaded by accelerate"):
        load_sharded_checkpoint(model, tmp_path / "shards")
    assert torch.equal(model(**batch(pad=0)), before)


@pytest.mark.parametrize("parts", [("cpu", "disk"), ("disk", "cpu")])
def test_a_map_does_not_part_what_is_one(parts: tuple[str, str], tmp_path: Path) -> None:
    saved(tmp_path / "model")
    options: dict[str, Any] = {"device_map": dict(zip(("backbone", "head"), parts, strict=True))}
    with pytest.raises(ValueError, match=r"'head.weight' and 'backbone.embeddings.word.weight' are one parameter"):
        MaskedLanguageModel.from_pretrained(tmp_path / "model", offload_folder=tmp_path / "disk", **options)
    saved(tmp_path / "untied", tie_word_embeddings=False)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "untied", offload_folder=tmp_path / "disk", **options)
    with torch.no_grad():
        expected = MaskedLanguageModel.from_pretrained(tmp_path / "untied")(**batch(pad=0))
        assert torch.equal(loaded(**batch(pad=0)), expected)


def test_a_new_table_goes_to_the_disk_under_both_its_names(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    options: dict[str, Any] = {"ignore_mismatched_sizes": True, "vocab_size": 23}
    with pytest.warns(UserWarning, match="of another shape"):
        loaded = MaskedLanguageModel.from_pretrained(
            tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "disk", **options
        )
    (own,) = (tmp_path / "disk").iterdir()
    files = {f"{name}.dat" for name in ("head.weight", "backbone.embeddings.word.weight")}
    assert files <= set(os.listdir(own))
    with torch.no_grad():
        assert loaded(**batch(pad=0)).shape[-1] == 23


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(TypeError, match="device_map must give devices, as 'cpu'.*got None"):
        MaskedLanguageModel.from_pretrained(tmp_path, device_map={"": None})
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device_map names 'cuda', which is not there"):
            MaskedLanguageModel.from_pretrained(tmp_path, device_map="cuda")


def test_the_disk_has_no_limit_and_takes_no_adapters(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    options: dict[str, Any] = {"offload_folder": tmp_path / "disk"}
    with pytest.raises(ValueError, match="max_memory must not name the disk"):
        MaskedLanguageModel.from_pretrained(
            tmp_path / "model", device_map="auto", max_memory={"cpu": 9000, "disk": 1}, **options
        )
    model = MaskedLanguageModel.from_pretrained(tmp_path / "model", device_map={"": "disk"}, **options)
    with pytest.raises(ValueError, match="the model's values are offloaded, where no adapter can be put on them"):
        model.add_adapter(LoraConfig())
    assert not model.peft_config
    with torch.no_grad():
        model(**batch(pad=0))


def test_a_plan_that_is_not_found_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_plan(*_: object, **__: object) -> dict[str, str]:
        raise IndexError("list index out of range")

    saved(tmp_path)
    monkeypatch.setattr("accelerate.infer_auto_device_map", without_plan)
    with pytest.raises(ValueError, match=r"no plan keeps max_memory {'cpu': 9000}: give a device more"):
        MaskedLanguageModel.from_pretrained(
            tmp_path, device_map="auto", max_memory={"cpu": 9000}, offload_folder=tmp_path / "disk"
        )


def test_a_plan_by_memory_keeps_layers_whole(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    loaded = MaskedLanguageModel.from_pretrained(
        tmp_path / "model",
        device_map="auto",
        max_memory={"cpu": 12_000},
        offload_folder=tmp_path / "disk",
        offload_buffers=True,
    )
    assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}
    assert not [path for path in loaded.hf_device_map if path.count(".") > 2]
    with torch.no_grad():
        assert torch.equal(loaded(**batch(pad=0)), model(**batch(pad=0)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device_map": {"backbone": "cpu"}}, ValueError, "no device for 'head"),
        ({"device_map": {"backbone.embed": "cpu"}}, ValueError, "no device for 'backbone.embeddings"),
        ({"device_map": {"": "disk"}}, ValueError, "give an offload_folder"),
        ({"device_map": {"": "gpu"}}, ValueError, "unknown device 'gpu'"),
        ({"device_map": "everywhere"}, ValueError, "unknown device 'everywhere'"),
        ({"device_map": True}, TypeError, "device_map must be a device"),
        ({"device_map": 1.5}, TypeError, "device_map must be a device"),
        ({"device_map": {"": "cpu"}, "max_memory": {"cpu": 10}}, ValueError, "max_memory needs a device_map that is"),
        ({"device_map": "cpu", "offload_folder": "x"}, ValueError, "puts nothing on the disk"),
    ],
)
def test_maps_that_make_no_sense(options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(error, match=message):
        MaskedLanguageModel.from_pretrained(tmp_path, **options)


def test_the_meta_device_is_no_place_for_a_model(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="devices that hold values, got 'meta'"):
        MaskedLanguageModel.from_pretrained(tmp_path, device_map="meta")
