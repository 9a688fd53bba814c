"""What does not match: refused, or told in one warning, one report and the lists of transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, D, V
from loading_helpers import BIAS, BIAS_COPY, DECODER, DENSE, WORDS, assert_same, change, saved
from safetensors.torch import load_file
from torch import nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError

HEAD = [
    "cls.predictions.bias",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.dense.weight",
]


class NewHead(MaskedLanguageModel):
    """A model whose head a checkpoint may lack."""

    head_may_be_new: ClassVar[bool] = True


def test_a_full_match_has_empty_lists_and_no_warning(tmp_path: Path) -> None:
    model = saved(tmp_path)
    loaded, info = MaskedLanguageModel.from_pretrained(tmp_path, output_loading_info=True)
    assert_same(loaded, model)
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


def test_what_is_missing_is_drawn_and_the_rest_is_loaded(tmp_path: Path) -> None:
    model = saved(tmp_path)
    change(tmp_path, lambda tensors: [tensors.pop(DENSE), tensors.update({"odd.x": torch.zeros(2)})])
    torch.manual_seed(1)
    with pytest.warns(
        UserWarning, match=f"1 tensor missing: {DENSE}; 1 tensor left aside: odd.x; .* train them"
    ) as told:
        loaded, info = MaskedLanguageModel.from_pretrained(tmp_path, output_loading_info=True)
    assert len(told) == 1
    assert info["missing_keys"] == [DENSE] and info["unexpected_keys"] == ["odd.x"]
    report = loaded.load_report
    assert report is not None and report.missing == (DENSE,) and report.unexpected == ("odd.x",)
    assert set(report.used) == set(load_file(tmp_path / "model.safetensors")) - {"odd.x"}
    for name, value in model.state_dict().items():
        same = torch.equal(loaded.state_dict()[name], value)
        assert same == (name != "backbone.layers.0.feed_forward.down.bias"), name
    assert not loaded.get_parameter("backbone.layers.0.feed_forward.down.bias").any()  # the rule for biases
    for options in ({}, {"strict": True}, {"strict": True, "output_loading_info": True}):
        with pytest.raises(CheckpointError, match="1 missing tensor.*1 unexpected tensor"):
            MaskedLanguageModel.from_pretrained(tmp_path, **options)
    with pytest.warns(UserWarning, match="do not fit BertForMaskedLM"):
        MaskedLanguageModel.from_pretrained(tmp_path, strict=False)


def test_a_missing_matrix_is_normal_and_its_bias_stays(tmp_path: Path) -> None:
    model = saved(tmp_path, initializer_range=3.0)
    weight = "cls.predictions.transform.dense.weight"
    change(tmp_path, lambda tensors: tensors.pop(weight))
    torch.manual_seed(2)
    with pytest.warns(UserWarning, match=weight):
        loaded = MaskedLanguageModel.from_pretrained(tmp_path, strict=False)
    assert torch.equal(loaded.head.dense.bias, model.head.dense.bias)
    assert 2.0 < loaded.head.dense.weight.std().item() < 4.0
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(loaded.head.dense.weight, torch.empty(D, D).normal_(0.0, 3.0))
    torch.set_rng_state(state)


class OwnRule(MaskedLanguageModel):
    """A model with its own rule for a part of its head, which heeds nothing."""

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.head.dense:
            nn.init.constant_(self.head.dense.weight, 2.0)
            nn.init.constant_(self.head.dense.bias, 3.0)


def test_what_is_missing_is_drawn_by_the_models_own_rule(tmp_path: Path) -> None:
    model = saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.pop("cls.predictions.transform.dense.weight"))
    with pytest.warns(UserWarning, match="1 tensor missing"):
        loaded = OwnRule.from_pretrained(tmp_path, strict=False)
    assert (loaded.head.dense.weight == 2.0).all()
    assert torch.equal(loaded.head.dense.bias, model.head.dense.bias)  # it was there


def test_tied_names_are_missing_together(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: [tensors.pop(WORDS), tensors.pop(BIAS)])
    with pytest.warns(UserWarning, match="4 tensors missing"):
        loaded, info = MaskedLanguageModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == sorted([WORDS, DECODER, BIAS, BIAS_COPY])
    assert loaded.head.weight is loaded.backbone.embeddings.word.weight
    assert not loaded.head.weight.is_meta and torch.isfinite(loaded.head.weight).all()


def test_a_base_checkpoint_becomes_a_model_with_a_head_and_the_reverse(tmp_path: Path) -> None:
    model = saved(tmp_path / "whole")
    encoder, info = EncoderModel.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert info["unexpected_keys"] == HEAD and info["missing_keys"] == []
    assert_same(encoder.backbone, model.backbone)
    encoder.save_pretrained(tmp_path / "base")
    with pytest.warns(UserWarning, match="6 tensors missing"):
        whole, info = MaskedLanguageModel.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert info["missing_keys"] == sorted([*HEAD, BIAS_COPY]) and info["unexpected_keys"] == []
    assert_same(whole.backbone, model.backbone)
    assert whole.head.weight is whole.backbone.embeddings.word.weight


def test_names_of_a_model_without_a_head_have_no_prefix(tmp_path: Path) -> None:
    EncoderModel.from_config(TINY_CONFIGS["bert"]).save_pretrained(tmp_path)
    change(tmp_path, lambda tensors: tensors.pop(DENSE.removeprefix("bert.")))
    with pytest.warns(UserWarning, match="encoder.layer.0"):
        _, info = EncoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == [DENSE.removeprefix("bert.")]


def test_tensors_of_another_shape_are_listed_or_started_anew(tmp_path: Path) -> None:
    model = saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({BIAS: torch.ones(3), WORDS: torch.ones(V, D + 1)}))
    message = rf"2 tensors of another shape: {WORDS} is \(17, 13\), the config says \(17, 12\), {BIAS} is \(3,\)"
    for options in ({}, {"strict": False}):
        with pytest.raises(CheckpointError, match=message):
            MaskedLanguageModel.from_pretrained(tmp_path, **options)
    with pytest.warns(UserWarning, match=rf"2 tensors of another shape: {WORDS} \(17, 13\) for \(17, 12\)") as told:
        loaded, info = MaskedLanguageModel.from_pretrained(
            tmp_path, ignore_mismatched_sizes=True, output_loading_info=True
        )
    assert len(told) == 1
    assert info["mismatched_keys"] == [(WORDS, (17, 13), (17, 12)), (BIAS, (3,), (17,))]
    assert info["missing_keys"] == []
    assert loaded.head.weight is loaded.backbone.embeddings.word.weight and not loaded.head.bias.any()
    assert torch.equal(loaded.head.dense.weight, model.head.dense.weight)
    assert not loaded.head.weight[0].any()  # the row of padding
    with pytest.warns(UserWarning, match="of another shape"):
        MaskedLanguageModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True)


def test_a_whole_head_may_be_new_where_the_class_says_so(tmp_path: Path) -> None:
    model = saved(tmp_path / "whole", "untied bert")
    EncoderModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "base")
    with pytest.warns(UserWarning, match="7 tensors missing"):
        loaded = NewHead.from_pretrained(tmp_path / "base")
    assert_same(loaded.backbone, model.backbone)
    assert loaded.load_report is not None and DECODER in loaded.load_report.missing
    with pytest.raises(CheckpointError, match="6 missing tensors"):
        NewHead.from_pretrained(tmp_path / "base", strict=True)
    with pytest.raises(CheckpointError, match="6 missing tensors"):
        MaskedLanguageModel.from_pretrained(tmp_path / "base")
    change(tmp_path / "whole", lambda tensors: tensors.pop(BIAS) is None or tensors.pop(BIAS_COPY))
    with pytest.raises(CheckpointError, match="1 missing tensor"):  # a part of the head is no whole
        NewHead.from_pretrained(tmp_path / "whole")
    change(tmp_path / "base", lambda tensors: tensors.pop(DENSE.removeprefix("bert.")))
    with pytest.raises(CheckpointError, match="7 missing tensors"):
        NewHead.from_pretrained(tmp_path / "base")


def test_no_key_that_matches_is_told_in_full(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: [tensors.update({f"x.{name}": tensors.pop(name)}) for name in list(tensors)])
    with pytest.warns(UserWarning, match=r"60 tensors missing.*and 40 more; 58 tensors left aside.*and 38 more"):
        loaded = MaskedLanguageModel.from_pretrained(tmp_path, strict=False)
    assert not any(each.is_meta for each in loaded.parameters())
    assert all(torch.isfinite(each).all() for each in loaded.parameters())


def test_a_decoder_that_differs_is_kept_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({DECODER: tensors[WORDS].clone()}))
    assert MaskedLanguageModel.from_pretrained(tmp_path).config.tie_word_embeddings and not caplog.messages
    change(tmp_path, lambda tensors: tensors.update({DECODER: tensors[WORDS] * 2}))
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert not loaded.config.tie_word_embeddings
    assert caplog.messages == [
        f"{tmp_path}: {DECODER} and {WORDS} differ, though the config ties them: they are kept apart"
    ]


def test_each_tensor_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({DECODER: tensors[WORDS] * 2, BIAS_COPY: tensors[BIAS].clone()}))
    read: list[str] = []
    from sparse_encoder.checkpoint import safetensors_file

    real = safetensors_file._read_one
    monkeypatch.setattr(
        safetensors_file,
        "_read_one",
        lambda file, entry, path, name: read.append(name) or real(file, entry, path, name),
    )
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert sorted(read) == sorted(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(loaded.head.weight, model.head.weight * 2)


def test_files_that_change_while_they_are_read_are_noticed(tmp_path: Path) -> None:
    from sparse_encoder.checkpoint import open_weights

    saved(tmp_path)
    files = open_weights(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({BIAS: torch.ones(3)}))
    with pytest.raises(CheckpointError, match="was replaced while it was read"):
        dict(files.stream())
    change(tmp_path, lambda tensors: tensors.pop(BIAS))
    with pytest.raises(CheckpointError, match=f"was replaced while it was read: .'{BIAS}'. are gone"):
        dict(files.stream())


def test_loading_strictly_warns_of_nothing(tmp_path: Path) -> None:
    saved(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = MaskedLanguageModel.from_pretrained(tmp_path).load_report
    assert report is not None and report.missing == report.unexpected == report.mismatched == ()
