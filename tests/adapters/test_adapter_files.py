"""Files of adapters: what is written, what is read, and what is refused before the model is touched."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_helpers import adapted, inputs_of, logits, model_named, randomise_adapters
from backbone_helpers import TINY_CONFIGS, D
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparse_encoder.backbone import EncoderModel, LoraConfig, MaskedLanguageModel
from sparse_encoder.backbone.adapters.files import fit_to_model, read_adapter_config
from sparse_encoder.checkpoint import CheckpointError, ConfigError, LoadError, write_tensors

FUZZED = model_named()
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KEY = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"


def written(folder: Path, model: MaskedLanguageModel | None = None) -> MaskedLanguageModel:
    model = adapted() if model is None else model
    model.save_adapter(folder)
    return model


def change_config(folder: Path, **values: Any) -> None:  # noqa: ANN401
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, by: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    by(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    model = written(tmp_path, adapted(adapter="mine", bias="all", modules_to_save=["head.norm"]))
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, WEIGHTS}
    about = json.loads((tmp_path / CONFIG).read_text())
    assert about["peft_type"] == "LORA" and about["inference_mode"] is True
    assert about["modules_to_save"] == ["cls.predictions.transform.LayerNorm"]
    other = model_named()
    other.load_adapter(tmp_path)
    assert other.active_adapters() == ["default"] and not any(each.requires_grad for each in other.parameters())
    assert torch.equal(logits(other), logits(model))
    state, again = model.get_adapter_state_dict(), other.get_adapter_state_dict()
    assert state.keys() == again.keys() and all(torch.equal(state[key], again[key]) for key in state)
    assert all(each.removeprefix("base_model.model.") in state for each in load_file(tmp_path / WEIGHTS))
    trained = model_named()
    trained.load_adapter(tmp_path, "b", is_trainable=True)
    assert any(each.requires_grad for each in trained.parameters())


def test_a_given_state_dict_is_written_in_its_place() -> None:
    model = adapted()
    state = {name: torch.zeros_like(each) for name, each in model.state_dict().items()}
    assert all(not each.any() for each in model.get_adapter_state_dict(state_dict=state).values())
    model.add_adapter(LoraConfig(r=2), "b")
    model.set_adapter(["default", "b"])
    with pytest.raises(ValueError, match=r"name one adapter of \['b', 'default'\]"):
        model.get_adapter_state_dict()
    assert model.get_adapter_state_dict("default").keys() == model.get_adapter_state_dict("b").keys()


def test_a_model_that_came_from_a_folder_is_saved_as_its_adapter(tmp_path: Path) -> None:
    model_named().save_pretrained(tmp_path / "base")
    model = MaskedLanguageModel.from_pretrained(tmp_path / "base")
    model.add_adapter(LoraConfig(r=2))
    randomise_adapters(model)
    model.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {CONFIG, WEIGHTS}
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "adapter", base_model=tmp_path / "base")
    assert torch.equal(logits(loaded), logits(model)) and not loaded.training
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "adapter" / WEIGHTS).read_bytes()
    encoder = EncoderModel.from_pretrained(tmp_path / "adapter", base_model=tmp_path / "base")
    assert encoder.has_adapters


def test_a_model_that_came_from_nowhere_is_saved_with_its_base(tmp_path: Path) -> None:
    model = adapted(bias="lora_only")
    model.merge_adapter()  # the base is written as it was before
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, WEIGHTS, "config.json", "model.safetensors"}
    base = load_file(tmp_path / "model.safetensors")
    assert not any("lora" in name for name in base)
    model.unmerge_adapter()
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    loaded.disable_adapters()
    assert torch.equal(logits(loaded), logits(model_named()))


def test_a_merged_save_takes_the_adapter_before_it_away(tmp_path: Path) -> None:
    model = adapted()
    model.save_pretrained(tmp_path)
    merged = logits(model.merge_and_unload())
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path)), merged)


def test_weights_that_are_no_whole_model_leave_the_adapter_alone(tmp_path: Path) -> None:
    model = adapted()
    model.save_pretrained(tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    model_named().save_pretrained(tmp_path, variant="fp16")
    write_tensors(tmp_path, load_file(tmp_path / "model.safetensors"))
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert torch.equal(logits(MaskedLanguageModel.from_pretrained(tmp_path)), logits(model))


def test_an_adapter_that_no_load_takes_is_not_written(tmp_path: Path) -> None:
    model = written(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        next(each for name, each in model.named_parameters() if "lora_A" in name)[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite values"):
        model.save_adapter(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def without(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(key)


def adding(key: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({key: tensor})


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (without(KEY), r"1 tensors or layers are missing, bert\.encoder\.layer\.0\.attention\.self\.query\.lora_A"),
        (adding(KEY.replace("query", "key"), torch.ones(2, D)), "missing|unexpected"),
        (adding("base_model.model.nothing.lora_A.weight", torch.ones(2, D)), r"unexpected, nothing\.lora_A\.weight"),
        (adding("base_model.model.bert.encoder.layer.0.output.dense.bias", torch.ones(D)), "unexpected"),
        (adding(KEY, torch.ones(3, D)), r"is torch.float32 \(3, 12\) and must be floating \(2, 12\)"),
        (adding(KEY, torch.ones(2, D + 1)), r"must be floating \(2, 12\)"),
        (adding(KEY, torch.ones(2, D, dtype=torch.int64)), "is torch.int64"),
        (adding(KEY, torch.full((2, D), float("nan"))), "NaN or infinite"),
        (lambda tensors: [tensors.pop(key) for key in list(tensors) if ".2." in key], "missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    by: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    written(tmp_path)
    change_weights(tmp_path, by)
    model = model_named()
    names = list(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        model.load_adapter(tmp_path)
    assert list(model.state_dict()) == names and not model.has_adapters
    assert all(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type must be 'LORA', got 'IA3'"),
        ({"peft_type": ["LORA"]}, "peft_type must be"),
        ({"use_dora": True}, "use_dora is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights must be one of"),
        ({"init_lora_weights": ["a"]}, "init_lora_weights must be one of"),
        ({"r": -1}, "r must be an integer"),
        ({"r": 10**12}, "must be at most 65536"),
        ({"r": "8"}, "r must be an integer"),
        ({"lora_alpha": "a"}, "lora_alpha must be a number"),
        ({"lora_alpha": 10**39}, "lora_alpha must be"),
        ({"target_modules": {"a": 1}}, "target_modules must be"),
        ({"target_modules": 7}, "target_modules must be"),
        ({"rank_pattern": []}, "rank_pattern must map"),
        ({"rank_pattern": {str(number): 1 for number in range(1001)}}, "must be at most 1000, got 1001"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
        ({"layers_to_transform": 1.5}, "layers_to_transform must hold numbers"),
        ({"base_model_name_or_path": "a\nb"}, "can be printed"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "expressions are not run"),
        ({"rank_pattern": {"(": 2}}, "is no regular expression"),
        ({"target_modules": "(" * 5000}, "is no regular expression"),
        ({"target_modules": "a" * 10_001}, "texts of up to 10000 characters"),
        ({"layers_to_transform": [0], "layers_pattern": "(a+)+$"}, "expressions are not run"),
        ({"base_model_name_or_path": 5}, "must be a text that can be printed, or null"),
        ({"modules_to_save": 3}, "modules_to_save must be"),
        ({"layers_to_transform": "a"}, "layers_to_transform must hold"),
        ({"bias": ["all"]}, "bias must be one of"),
        ({"task_type": {}}, "must be a text that can be printed, or null"),
    ],
)
def test_configs_that_are_no_configs_are_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path)
    change_config(tmp_path, **values)
    with pytest.raises(ConfigError, match=message):
        model_named().load_adapter(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    written(folder)
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_config_is_loaded_or_refused(data: st.DataObject, stored: Path) -> None:
    values = json.loads((stored / CONFIG).read_text())
    for name in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        values[name] = data.draw(VALUES)
    tensors = load_file(stored / WEIGHTS)
    folder = stored.parent / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(values))
    model = FUZZED
    try:
        config = read_adapter_config(folder)
        fit_to_model(config, tensors, model=model, path=folder)
    except LoadError:
        return
    assert config.r == values["r"]


def test_a_hundred_thousand_names_take_no_time(stored: Path) -> None:
    config = LoraConfig(r=2, target_modules=[f"a{number}.b" for number in range(100_000)])
    started = time.process_time()
    with pytest.raises(CheckpointError, match="unexpected"):
        fit_to_model(config, load_file(stored / WEIGHTS), model=FUZZED, path=None)
    assert time.process_time() - started < 1


def test_no_expression_of_a_file_is_run(tmp_path: Path) -> None:
    model = written(tmp_path)
    change_config(tmp_path, target_modules="(x+x+)+y" * 20, exclude_modules="(a|a)+$", base_model_name_or_path=None)
    started = time.process_time()
    other = model_named()
    other.load_adapter(tmp_path)
    assert time.process_time() - started < 1
    assert torch.equal(logits(other), logits(model))  # the tensors say where they belong


def test_expressions_are_written_as_what_they_find(tmp_path: Path) -> None:
    options = {
        "target_modules": ["query", "value"],
        "rank_pattern": {r"layer\.0\..*query": 4, "value": 3},
        "alpha_pattern": {r"layer\.[12]\..*(query|value)": 9, r"backbone\.layers\.0\..*": 5},
    }
    model = written(tmp_path, adapted(**options))
    about = json.loads((tmp_path / CONFIG).read_text())
    stem = "bert.encoder.layer"
    assert about["rank_pattern"] == {f"{stem}.0.attention.self.query": 4, "value": 3}
    assert about["alpha_pattern"] == {
        f"{stem}.{layer}.attention.self.{part}": 9 if layer else 5 for layer in range(3) for part in ("query", "value")
    }
    other = model_named()
    other.load_adapter(tmp_path)
    assert torch.equal(logits(other), logits(model))


def test_expressions_of_others_are_read_off_the_tensors_or_matched_in_bounded_time(tmp_path: Path) -> None:
    names = {f"bert.encoder.layer.{layer}.attention.self.query": layer for layer in range(3)}
    model = written(
        tmp_path,
        adapted(
            target_modules=["query"],
            rank_pattern={name: 5 for name, layer in names.items() if layer},
            alpha_pattern={name: 7 for name, layer in names.items() if layer == 2},
        ),
    )
    change_config(tmp_path, rank_pattern={"(?=b).*r.[12].*": 5}, alpha_pattern={r"layer\.(2|3)\..*": 7})
    other = model_named()
    other.load_adapter(tmp_path)
    assert torch.equal(logits(other), logits(model))
    assert other.peft_config["default"].rank_pattern == {name: 5 for name, layer in names.items() if layer}
    assert other.peft_config["default"].alpha_pattern == {name: 7 for name, layer in names.items() if layer == 2}
    change_config(tmp_path, rank_pattern={"(?=b).*r.[12].*": 6})
    with pytest.raises(CheckpointError, match=r"tensors have ranks \[5\], which r and rank_pattern do not"):
        model_named().load_adapter(tmp_path)


@pytest.mark.parametrize("pattern", ["(layer|h)", "layer|h", r"laye\w"])
def test_a_pattern_of_layers_may_have_groups(pattern: str, tmp_path: Path) -> None:
    model = adapted(target_modules=["query"], layers_to_transform=[1], layers_pattern=pattern)
    written(tmp_path, model)
    tensors = load_file(tmp_path / WEIGHTS)
    assert len(tensors) == 2 and all(".layer.1." in name for name in tensors)
    other = model_named()
    other.load_adapter(tmp_path)
    assert torch.equal(logits(other), logits(model))


def of_layer(number: int) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: [tensors.pop(key) for key in list(tensors) if f".{number}." in key]


@pytest.mark.parametrize(
    ("targets", "is_whole_without_a_layer"),
    [(r".*\.(query|value)", False), (r"(?=b).*\.(query|value)", False), (r".*\.[02]\..*(query|value)", True)],
)
def test_half_a_file_is_no_adapter(targets: str, is_whole_without_a_layer: bool, tmp_path: Path) -> None:
    written(tmp_path)
    change_config(tmp_path, target_modules=targets)
    change_weights(tmp_path, of_layer(1))
    model = model_named()
    if is_whole_without_a_layer:
        model.load_adapter(tmp_path)
        change_weights(tmp_path, of_layer(2))
        model = model_named()
    with pytest.raises(CheckpointError, match=r"2 tensors or layers are missing, bert\.encoder\.layer\.[12]\."):
        model.load_adapter(tmp_path)


def test_what_an_expression_leaves_out_is_left_out(tmp_path: Path) -> None:
    model = written(tmp_path, adapted(target_modules="all-linear", exclude_modules=r".*(transform|key).*"))
    for excluded in (r".*(transform|key).*", r"(?=.).*(transform|key).*"):
        change_config(tmp_path, exclude_modules=excluded, target_modules="all-linear")
        other = model_named()
        other.load_adapter(tmp_path)
        assert torch.equal(logits(other), logits(model))
    change_config(tmp_path, exclude_modules=r".*(transform|key|value).*")
    with pytest.raises(CheckpointError, match="3 tensors or layers are unexpected, .*value"):
        model_named().load_adapter(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["dense"]},
        {"target_modules": ["query"], "bias": "all"},
        {"target_modules": ["query"], "modules_to_save": ["LayerNorm"]},
        {"target_modules": r".*dense"},
    ],
)
def test_adapters_go_from_models_with_a_head_to_those_without_and_back(
    options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masked = written(tmp_path / "masked", adapted(**options))
    encoder = EncoderModel.from_config(TINY_CONFIGS["bert"]).eval()
    plain = model_named()
    encoder.backbone.load_state_dict(plain.backbone.state_dict())
    inputs = inputs_of(plain)
    encoder.load_adapter(tmp_path / "masked")
    assert ("BertModel has no head" in caplog.text) == ("query" not in options["target_modules"] or len(options) > 1)
    with torch.no_grad():
        assert torch.equal(encoder(**inputs), masked.backbone(**inputs))
    encoder.save_adapter(tmp_path / "encoder")
    plain.load_adapter(tmp_path / "encoder")  # its head is left alone
    with torch.no_grad():
        assert torch.equal(plain.backbone(**inputs), encoder(**inputs))
        assert torch.equal(plain.head(encoder(**inputs)), plain(**inputs))
    plain.disable_adapters()
    assert torch.equal(logits(plain), logits(model_named()))


def test_families_that_transformers_names_otherwise_are_told(tmp_path: Path) -> None:
    written(tmp_path, adapted("gte"))
    change_weights(tmp_path, adding("base_model.model.gte.layers.0.mlp.down_proj.lora_A.weight", torch.ones(2, D)))
    with pytest.raises(CheckpointError, match="transformers gives the modules of gte models other names"):
        model_named("gte").load_adapter(tmp_path)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    def refused(folder: Path, kind: type[Exception] = LoadError) -> None:
        started = time.process_time()
        with pytest.raises(kind):
            model_named().load_adapter(folder)
        assert time.process_time() - started < 1

    for name in ("link", "fifo", "short", "none", "twice", "big"):
        written(tmp_path / name)
    (tmp_path / "link" / WEIGHTS).rename(tmp_path / "outside")
    (tmp_path / "link" / WEIGHTS).symlink_to(tmp_path / "outside")
    refused(tmp_path / "link", CheckpointError)
    (tmp_path / "fifo" / CONFIG).unlink()
    os.mkfifo(tmp_path / "fifo" / CONFIG)
    refused(tmp_path / "fifo")
    data = (tmp_path / "short" / WEIGHTS).read_bytes()
    (tmp_path / "short" / WEIGHTS).write_bytes(data[:-5])
    refused(tmp_path / "short", CheckpointError)
    (tmp_path / "none" / WEIGHTS).unlink()
    refused(tmp_path / "none", CheckpointError)
    (tmp_path / "twice" / CONFIG).write_text('{"peft_type": "LORA", "r": 2, "r": 3}')
    refused(tmp_path / "twice", ConfigError)
    (tmp_path / "big" / CONFIG).write_text('{"peft_type": "LORA", "x": "' + "a" * 2_000_000 + '"}')
    refused(tmp_path / "big", ConfigError)
    refused(tmp_path / "nowhere" / "at" / "all", Exception)


def test_a_pickle_is_read_without_running_it(tmp_path: Path) -> None:
    model = written(tmp_path)
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "adapter_model.bin")
    (tmp_path / WEIGHTS).unlink()
    other = model_named()
    with pytest.warns(UserWarning, match="without running any code"):
        other.load_adapter(tmp_path)
    assert torch.equal(logits(other), logits(model))

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.warns(UserWarning), pytest.raises(CheckpointError):
        model_named().load_adapter(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_arguments_of_a_load_are_checked(tmp_path: Path) -> None:
    model = written(tmp_path)
    with pytest.raises(ValueError, match="there is an adapter 'default' already"):
        model.load_adapter(tmp_path)
    with pytest.raises(ValueError, match="give peft_model_id, or both"):
        model_named().load_adapter(peft_config=LoraConfig())
    with pytest.raises(ValueError, match=r"unknown adapter_kwargs \['nothing'\]"):
        model_named().load_adapter(tmp_path, adapter_kwargs={"nothing": 1})
    model.merge_adapter()
    with pytest.raises(ValueError, match="the weights have taken adapters in"):
        model.load_adapter(tmp_path, "another")
    (tmp_path / "inside").mkdir()
    for path in list(tmp_path.iterdir()):
        if path.is_file():
            path.rename(tmp_path / "inside" / path.name)
    other = model_named()
    other.load_adapter(tmp_path, adapter_kwargs={"subfolder": "inside"})
    assert other.has_adapters
    fields = json.loads((tmp_path / "inside" / CONFIG).read_text())
    third = model_named()
    third.load_adapter(peft_config=fields, adapter_state_dict=load_file(tmp_path / "inside" / WEIGHTS))
    assert torch.equal(logits(third), logits(other))
