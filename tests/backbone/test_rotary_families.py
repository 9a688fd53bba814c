"""GTE and Nomic BERT: what is read from their two spellings, what is refused, and what is written."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, D, V, batch, randomise
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, architecture_is_masked_language
from sparse_encoder.backbone.families import family_of, read_config, respell
from sparse_encoder.backbone.rope import rotation
from sparse_encoder.checkpoint import CheckpointError, ConfigError

GTE, NEW, NOMIC = (TINY_CONFIGS[name] for name in ("gte", "new", "nomic_bert"))
OLDER = VARIANTS["nomic_bert in the older spelling"]


def save(folder: Path, hf_config: dict[str, Any], files_config: dict[str, Any] | None = None) -> MaskedLanguageModel:
    """Write random weights of one config, and another config beside them if one is given."""
    model = MaskedLanguageModel.from_config(hf_config).eval()
    randomise(model)
    model.save_pretrained(folder)
    if files_config is not None:
        (folder / "config.json").write_text(json.dumps(files_config))
    return model


def rename(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {new + name.removeprefix(old) if name.startswith(old) else name: each for name, each in tensors.items()},
        folder / "model.safetensors",
    )


def assert_same(got: MaskedLanguageModel, expected: MaskedLanguageModel) -> None:
    for (name, one), (_, other) in zip(got.state_dict().items(), expected.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    features = batch(got.config.num_token_types, pad=0)
    assert torch.equal(got(**features), expected(**features))


@pytest.mark.parametrize(("theta", "factor", "heads"), [(500_000.0, 2.0, 12), (20_000.0, 8.0, 12), (50.0, 3.5, 48)])
def test_ntk_scaling_by_the_published_formula(theta: float, factor: float, heads: int) -> None:
    """Every angle is that of theta, divided by factor to the power of 2 (i + 1) / K."""
    scaling = {"type": "ntk", "factor": factor}
    config = read_config(
        {"model_type": "new", "num_attention_heads": heads, "rope_theta": theta, "rope_scaling": scaling}
    )
    size = 768 // heads
    pairs = torch.arange(size // 2, dtype=torch.float64)
    speeds = theta ** (-2 * pairs / size) / factor ** (2 * (pairs + 1) / size)
    places = torch.tensor([0, 1, 7, 100])
    got = rotation(places, config.head_size, config.rotary_theta, stretch=config.rotary_stretch)
    expected = torch.cat([places[:, None] * speeds] * 2, dim=1)[:, None]
    torch.testing.assert_close(got.cos.double(), expected.cos(), rtol=0, atol=1e-4)
    torch.testing.assert_close(got.sin.double(), expected.sin(), rtol=0, atol=1e-4)
    assert speeds[-1] * factor == pytest.approx(theta ** (-2 * (size // 2 - 1) / size))  # the longest wave: all of it


def test_the_published_scalings_in_numbers() -> None:
    multilingual = read_config(
        {"model_type": "new", "rope_theta": 20_000, "rope_scaling": {"type": "ntk", "factor": 8.0}}
    )
    assert (multilingual.rotary_theta, multilingual.rotary_stretch) == (160_000.0, pytest.approx(8 ** (1 / 32)))
    plain = read_config({"model_type": "new", "rope_theta": 500_000, "rope_scaling": None})
    assert (plain.rotary_theta, plain.rotary_stretch) == (500_000.0, 1.0)


@pytest.mark.parametrize(
    ("hf_config", "expected"),
    [
        ({}, (160_000.0, 1.0)),
        ({"rope_theta": 30.0}, (30.0, 1.0)),
        ({"rope_theta": 30.0, "rope_parameters": {"rope_theta": 40.0}}, (40.0, 1.0)),
        ({"rope_theta": 30.0, "rope_scaling": {"type": "linear", "factor": 2}}, (30.0, 2.0)),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 40, "factor": 1.5}}, (40.0, 1.5)),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 1.5}, "rope_scaling": {"rope_type": "default"}},
            (160_000.0, 1.0),
        ),
    ],
)
def test_the_angles_in_both_spellings(hf_config: dict[str, Any], expected: tuple[float, float]) -> None:
    config = read_config({"model_type": "gte", **hf_config})
    assert (config.rotary_theta, config.rotary_stretch) == expected


@pytest.mark.parametrize(
    ("base", "key", "value", "message", "field"),
    [
        (NEW, "logn_attention_scale", True, "scaled by the text's length is not supported", None),
        (NEW, "layer_norm_type", "rms_norm", "other norms", None),
        (NEW, "position_embedding_type", "absolute", "other positions than rotary", None),
        (NEW, "pack_qkv", False, "in three matrices", None),
        (NEW, "hidden_act", "relu", "the head's activation is gelu", None),
        (NEW, "rope_scaling", {"type": "yarn", "factor": 2.0}, r"choose from \['default', 'ntk'\]", "type"),
        (NEW, "rope_scaling", {"type": "ntk"}, "must be given", "factor"),
        (NEW, "rope_scaling", {"type": "ntk", "factor": 0.5}, "between 1 and", "factor"),
        (NEW, "rope_scaling", {"type": "ntk", "factor": float("nan")}, "between 1 and", "factor"),
        (NEW, "rope_scaling", {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}, "mixed NTK", "mixed_b"),
        (NEW, "rope_scaling", [2.0], "must be an object", None),
        (NEW, "rope_theta", 0, "greater than 0", None),
        (NEW, "num_attention_heads", 4, "even head size", None),
        (GTE, "rope_parameters", {"rope_type": "ntk", "factor": 2.0}, r"\['default', 'linear'\]", "rope_type"),
        (GTE, "rope_parameters", {"rope_type": "dynamic", "factor": 2.0}, "unknown scaling", "rope_type"),
        (GTE, "partial_rotary_factor", 0.5, "heads are rotated in full", None),
        (GTE, "rope_parameters", {"partial_rotary_factor": 0.5}, "in full", "partial_rotary_factor"),
        (GTE, "rope_parameters", {"rope_theta": "big"}, "must be a number", "rope_theta"),
        (GTE, "head_dim", 8, "must be 6, got 8", None),
        (GTE, "type_vocab_size", -1, "between 0 and", None),
        (GTE, "is_decoder", True, "only encoders", None),
        (NEW, "is_decoder", True, "only encoders", None),
        (NOMIC, "add_cross_attention", True, "only encoders", None),
        (OLDER, "is_decoder", True, "only encoders", None),
        (NOMIC, "head_dim", 8, "must be 6, got 8", None),
        (NOMIC, "hidden_act", "swiglu", "must be one of", None),
        (OLDER, "n_embd", "12", "must be an integer", None),
        (OLDER, "n_head", 5, "must divide the hidden size", None),
        (OLDER, "n_inner", None, "must be an integer", None),
        (OLDER, "activation_function", "gelu_new", r"one of \['geglu', 'swiglu'\]", None),
        (OLDER, "activation_function", "glu", r"one of \['geglu', 'swiglu'\]", None),
        (OLDER, "rotary_emb_fraction", 0.5, "must be 1.0, got 0.5", None),
        (OLDER, "rotary_emb_fraction", None, "must be given", None),
        (OLDER, "rotary_emb_interleaved", True, "this variant", None),
        (OLDER, "rotary_emb_scale_base", 512, "this variant", None),
        (OLDER, "rotary_scaling_factor", 2, "this variant", None),
        (OLDER, "qkv_proj_bias", True, "this variant", None),
        (OLDER, "qkv_proj_bias", None, "must be given", None),
        (OLDER, "mlp_fc1_bias", True, "this variant", None),
        (OLDER, "mlp_fc2_bias", None, "must be given", None),
        (OLDER, "prenorm", True, "this variant", None),
        (OLDER, "parallel_block", True, "this variant", None),
        (OLDER, "causal", True, "this variant", None),
        (OLDER, "use_rms_norm", True, "this variant", None),
        (OLDER, "num_experts", 8, "this variant", None),
        (OLDER, "moe_every_n_layers", 2, "this variant", None),
    ],
)
def test_what_is_not_implemented_is_refused_by_its_key(
    base: dict[str, Any], key: str, value: object, message: str, field: str | None
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_config({**base, key: value}, Path("here/config.json"))
    assert (caught.value.path, caught.value.field) == ("here/config.json", field or key)


@pytest.mark.parametrize("name", {**TINY_CONFIGS, **VARIANTS})
def test_the_newest_spelling_says_the_same(name: str) -> None:
    hf_config = {**TINY_CONFIGS, **VARIANTS}[name]
    kept = json.dumps(hf_config)
    newest = respell(hf_config, read_config(hf_config))
    assert read_config(newest) == read_config(hf_config)
    assert respell(newest, read_config(newest)) == newest
    assert json.dumps(hf_config) == kept
    assert family_of(newest).written_as is None
    if family_of(hf_config).written_as is None:
        assert newest == hf_config


def test_the_older_keys_of_nomic_bert() -> None:
    config = read_config({**OLDER, "n_inner": 257, "pad_vocab_size_multiple": 8, "attn_pdrop": 0.2, "resid_pdrop": 0.3})
    assert (config.hidden_size, config.num_layers, config.num_heads, config.max_positions) == (D, 3, 2, 26)
    assert (config.vocab_size, config.intermediate_size) == (24, 512)  # rounded up as the older code does
    assert (config.activation, config.head_activation, config.rotary_theta) == ("silu", "silu", 1000.0)
    assert (config.attention_dropout, config.embedding_dropout, config.feed_forward_output_dropout) == (0.2, 0.3, 0.3)
    assert read_config({**OLDER, "activation_function": "geglu"}).activation == "gelu"
    without = {key: value for key, value in OLDER.items() if key not in {"attn_pdrop", "resid_pdrop"}}
    assert read_config(without).attention_dropout == 0.1  # what GPT-2's configs leave out


def test_newer_keys_beside_older_ones_count_more() -> None:
    both = {**OLDER, "max_position_embeddings": 20, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    config = read_config(both)
    assert (config.hidden_size, config.max_positions, config.rotary_theta) == (D, 20, 7.0)
    assert read_config({**OLDER, **NOMIC}) == read_config(NOMIC)


def test_a_checkpoint_that_asks_for_code_is_read_without_and_saved_so_that_none_is_needed(tmp_path: Path) -> None:
    code = {
        "architectures": ["NewForMaskedLM"],
        "auto_map": {"AutoConfig": "evil--configuration.NewConfig", "AutoModelForMaskedLM": "modeling.NewForMaskedLM"},
    }
    save(tmp_path / "first", NEW, {**NEW, **code})
    rename(tmp_path / "first", "gte.", "new.")
    before = set(sys.modules)
    with pytest.warns(UserWarning, match="auto_map are ignored; nothing is imported") as caught:
        model = MaskedLanguageModel.from_pretrained(tmp_path / "first")
    assert len(caught) == 1 and set(sys.modules) == before
    model.save_pretrained(tmp_path / "second")
    written = json.loads((tmp_path / "second/config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("gte", ["GteForMaskedLM"])
    gone = {"auto_map", "rope_theta", "rope_scaling", "pack_qkv", "logn_attention_scale", "layer_norm_type"}
    assert gone.isdisjoint(written)
    assert written["rope_parameters"] == {"rope_type": "linear", "rope_theta": 100.0, "factor": 2 ** (2 / 6)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(MaskedLanguageModel.from_pretrained(tmp_path / "second"), model)


@pytest.mark.parametrize(
    ("hf_config", "prefixes"),
    [
        (GTE, ("gte.", "new.", "")),
        (NEW, ("gte.", "new.", "")),
        (NOMIC, ("nomic_bert.", "bert.", "")),
        (OLDER, ("nomic_bert.", "bert.", "")),
    ],
)
def test_every_prefix_is_understood(hf_config: dict[str, Any], prefixes: tuple[str, ...], tmp_path: Path) -> None:
    model = save(tmp_path, hf_config, hf_config)
    last = model.family.base_prefix
    for prefix in prefixes:
        rename(tmp_path, last, prefix)
        last = prefix
        assert_same(MaskedLanguageModel.from_pretrained(tmp_path), model)
        encoder = EncoderModel.from_pretrained(tmp_path)
        features = batch(encoder.config.num_token_types, pad=0)
        assert torch.equal(encoder(**features), model.backbone(**features))


def test_biases_that_the_older_head_lacks_are_zero_and_only_there(tmp_path: Path) -> None:
    biases = ("cls.predictions.bias", "cls.predictions.transform.dense.bias")

    def age(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        words = tensors["nomic_bert.embeddings.word_embeddings.weight"]
        kept = {name: each for name, each in tensors.items() if name not in biases}
        return {**kept, "cls.predictions.decoder.weight": words.clone()}

    hf_config = {**OLDER, "architectures": ["NomicBertForPreTraining"]}
    model = save(tmp_path, OLDER, hf_config)
    save_file(age(load_file(tmp_path / "model.safetensors")), tmp_path / "model.safetensors")
    assert architecture_is_masked_language(hf_config)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.dense.bias.zero_()
    assert_same(loaded, model)
    assert loaded.config.tie_word_embeddings and loaded.head.bias.shape == (V,)
    (tmp_path / "config.json").write_text(json.dumps(respell(OLDER, read_config(OLDER))))
    with pytest.raises(CheckpointError, match=r"2 missing tensors: cls\.predictions\.bias"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_heads_and_buffers_of_others_are_left_aside(tmp_path: Path) -> None:
    model = save(tmp_path, NEW, {**NEW, "architectures": ["NewModel", "NewForTokenClassification"]})
    rename(tmp_path, "gte.", "new.")
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {
        "new.pooler.dense.weight": torch.zeros(D, D),
        "new.pooler.dense.bias": torch.zeros(D),
        "new.embeddings.rotary_emb.inv_freq": torch.zeros(3),
        "classifier.weight": torch.zeros(1, D),
        "classifier.bias": torch.zeros(1),
    }
    save_file({**tensors, **extra}, tmp_path / "model.safetensors")
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.load_report is not None and set(loaded.load_report.ignored) == set(extra)
    save_file({**tensors, "new.surprise": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected tensor: new\.surprise"):
        MaskedLanguageModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "names", "expected"),
    [
        ("new", ["NewForMaskedLM"], True),
        ("new", ["NewModel", "NewForTokenClassification"], False),
        ("gte", ["GteForMaskedLM"], True),
        ("nomic_bert", ["NomicBertModel"], False),
        ("nomic_bert", ["NomicBertForPreTraining"], True),
    ],
)
def test_architectures_promise_a_head(model_type: str, names: list[str], expected: bool) -> None:
    assert architecture_is_masked_language({"model_type": model_type, "architectures": names}) is expected


def test_halves_of_the_gate_are_where_the_files_have_them(tmp_path: Path) -> None:
    """GTE stores what is multiplied before the gate; Nomic BERT has a matrix for each."""
    gte, nomic = save(tmp_path / "gte", GTE), save(tmp_path / "nomic", NOMIC)
    fused = load_file(tmp_path / "gte/model.safetensors")["gte.encoder.layer.1.mlp.up_gate_proj.weight"]
    split = load_file(tmp_path / "nomic/model.safetensors")
    hidden = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(1))
    block = gte.backbone.layers[1].feed_forward
    expected = torch.nn.functional.gelu(hidden @ fused[20:].mT) * (hidden @ fused[:20].mT)
    torch.testing.assert_close(block(hidden), block.down(expected))
    names = ("fc11", "fc12", "fc2")
    up, gate, down = (split[f"nomic_bert.encoder.layers.1.mlp.{name}.weight"] for name in names)
    expected = (torch.nn.functional.silu(hidden @ gate.mT) * (hidden @ up.mT)) @ down.mT
    torch.testing.assert_close(nomic.backbone.layers[1].feed_forward(hidden), expected)
