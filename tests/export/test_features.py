"""FeaturesManager: which family can be exported for what; onnx is not needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from backbone_helpers import TINY_CONFIGS
from decoder_helpers import DECODER_CONFIGS
from export_helpers import tiny_encoder
from model_helpers import write_encoder

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.export import DecoderOnnxConfig, EncoderDecoderOnnxConfig, EncoderOnnxConfig, FeaturesManager
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel
from sparse_encoder.token_classification import TokenClassificationModel

ENCODER = ["default", "feature-extraction", "masked-lm", "sparse-embedding", "token-classification"]


def test_available_features_are_sorted_and_all_there_are() -> None:
    assert (
        sorted([*ENCODER, "causal-lm", "causal-lm-with-past", "seq2seq-lm", "seq2seq-lm-with-past"])
        == FeaturesManager.AVAILABLE_FEATURES
    )


def test_families_have_the_features_of_their_kind() -> None:
    features = FeaturesManager.get_supported_features_for_model_type
    assert list(features("bert")) == ENCODER
    assert list(features("nomic_bert")) == list(features("nomic-bert")) == ENCODER
    assert list(features("llama")) == sorted([*ENCODER, "causal-lm", "causal-lm-with-past"])
    assert list(features("t5")) == ["seq2seq-lm", "seq2seq-lm-with-past"]


def test_an_unknown_family_lists_the_known() -> None:
    with pytest.raises(KeyError, match=r"vit \(mine\) is not supported.*'bert'"):
        FeaturesManager.get_supported_features_for_model_type("vit", "mine")
    with pytest.raises(KeyError, match="bert has no feature 'causal-lm'.*'masked-lm'"):
        FeaturesManager.get_config("bert", "causal-lm")


def test_configurations_are_of_the_task_and_have_a_past_if_the_feature_says_so() -> None:
    made = FeaturesManager.get_config("bert", "masked-lm")(TINY_CONFIGS["bert"])
    assert (type(made), made.task) == (EncoderOnnxConfig, "masked-lm")
    for feature, use_past in (("causal-lm", False), ("causal-lm-with-past", True)):
        decoder = FeaturesManager.get_config("gpt2", feature)(DECODER_CONFIGS["gpt2"])
        assert isinstance(decoder, DecoderOnnxConfig)
        assert (decoder.task, decoder.use_past) == ("causal-lm", use_past)
    assert isinstance(
        FeaturesManager.get_config("bart", "seq2seq-lm-with-past")({"model_type": "bart"}), EncoderDecoderOnnxConfig
    )


@pytest.mark.parametrize(
    ("feature", "kind"),
    [
        ("default", EncoderModel),
        ("feature-extraction", EncoderModel),
        ("masked-lm", MaskedLanguageModel),
        ("token-classification", TokenClassificationModel),
        ("causal-lm-with-past", CausalLanguageModel),
        ("seq2seq-lm", Seq2SeqModel),
    ],
)
def test_each_feature_has_its_class(feature: str, kind: type) -> None:
    assert FeaturesManager.get_model_class_for_feature(feature) is kind


def test_classes_of_other_features_and_frameworks_are_refused() -> None:
    with pytest.raises(
        KeyError, match="unknown feature 'image-classification': the library has models for .*'masked-lm'"
    ):
        FeaturesManager.get_model_class_for_feature("image-classification")
    with pytest.raises(ValueError, match="framework must be 'pt'"):
        FeaturesManager.get_model_class_for_feature("default", "tf")


def test_a_feature_has_a_task() -> None:
    assert FeaturesManager.feature_to_task("causal-lm-with-past") == "causal-lm"
    assert FeaturesManager.feature_to_task("masked-lm") == "masked-lm"


def test_the_framework_is_torch_or_an_error(tmp_path: Path) -> None:
    determine = FeaturesManager.determine_framework
    assert determine("somebody/something") == "pt"
    with pytest.raises(FileNotFoundError, match="no weights"):
        determine(tmp_path)
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(FileNotFoundError, match="weights of TensorFlow only"):
        determine(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert determine(tmp_path) == "pt"
    with pytest.raises(ValueError, match="got 'tf'"):
        determine(tmp_path, "tf")


def test_models_are_loaded_by_feature(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    found = FeaturesManager.get_model_from_feature("feature-extraction", tmp_path / "encoder")
    assert isinstance(found, EncoderModel)
    model_type, constructor = FeaturesManager.check_supported_model_or_raise(found, "default")
    assert model_type == "bert"
    assert constructor(found.config).task == "default"
    with pytest.raises(ValueError, match=r"a EncoderModel of bert has no feature 'masked-lm'; choose from \['default'"):
        FeaturesManager.check_supported_model_or_raise(found, "masked-lm")
    with pytest.raises(ValueError, match="bert has no feature 'seq2seq-lm'; choose from"):
        FeaturesManager.check_supported_model_or_raise(found, "seq2seq-lm")


def test_a_model_that_writes_fills_no_masks() -> None:
    model = CausalLanguageModel.from_config({**DECODER_CONFIGS["gpt2"], "n_layer": 1})
    check = FeaturesManager.check_supported_model_or_raise
    assert [check(model, feature)[0] for feature in ("causal-lm", "causal-lm-with-past")] == ["gpt2", "gpt2"]
    for feature in ("masked-lm", "default", "sparse-embedding", "token-classification"):
        with pytest.raises(ValueError, match=f"CausalLanguageModel of gpt2 has no feature '{feature}'"):
            check(model, feature)


def test_a_sparse_encoder_is_of_its_backbones_family(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    assert FeaturesManager.check_supported_model_or_raise(model, "sparse-embedding")[0] == "bert"
    model.save_pretrained(str(tmp_path / "saved"))
    found = FeaturesManager.get_model_from_feature("sparse-embedding", tmp_path / "saved")
    assert isinstance(found, type(model))
