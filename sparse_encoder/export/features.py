"""Which family can be exported for what, and which class of models that is. The table is data.

A feature is a task, perhaps with ``-with-past`` behind it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.backbone.families import ALL_FAMILIES
from sparse_encoder.backbone.families.family import Family
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.export.family_configs import DecoderOnnxConfig, EncoderDecoderOnnxConfig, EncoderOnnxConfig
from sparse_encoder.export.onnx_config import OnnxConfig, check_framework

WITH_PAST = "-with-past"
TORCH_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
OTHER_WEIGHTS = ("tf_model*.h5",)

Constructor = Callable[[Any], OnnxConfig]  # Any: a configuration of a model, of any kind

ENCODER_FEATURES = ("default", "feature-extraction", "masked-lm", "sparse-embedding", "token-classification")
DECODER_FEATURES = ("causal-lm", f"causal-lm{WITH_PAST}")
SEQ2SEQ_FEATURES = ("seq2seq-lm", f"seq2seq-lm{WITH_PAST}")
MODEL_CLASSES = {
    "causal-lm": ("generation", "CausalLanguageModel"),
    "default": ("backbone", "EncoderModel"),
    "feature-extraction": ("backbone", "EncoderModel"),
    "masked-lm": ("backbone", "MaskedLanguageModel"),
    "seq2seq-lm": ("generation", "Seq2SeqModel"),
    "sparse-embedding": ("model", "SparseEncoder"),
    "token-classification": ("token_classification", "TokenClassificationModel"),
}
"""Where the class of a task's models is."""


_STATES = ("feature-extraction", "default")
FEATURES_OF: Mapping[str, tuple[str, ...]] = {
    "SparseEncoder": ("sparse-embedding",),
    "EncoderModel": _STATES,
    "MaskedLanguageModel": ("masked-lm", *_STATES),
    "TokenClassificationModel": ("token-classification", *_STATES),
    "CausalLanguageModel": (f"causal-lm{WITH_PAST}", "causal-lm"),
    "Seq2SeqModel": (f"seq2seq-lm{WITH_PAST}", "seq2seq-lm"),
}
"""What each class of models can be asked for; first what it is asked for by default."""


def features_of(model: nn.Module) -> tuple[str, ...]:
    """Return what a model can be asked for, by its class; first what it is asked for by default.

    Raises:
        TypeError: If it is no model that can be exported.
    """
    names = [kind.__name__ for kind in type(model).__mro__]
    if isinstance(model, ModuleSequence):
        names = ["SparseEncoder"]
    found = next((name for name in names if name in FEATURES_OF), None)
    if found is None or not isinstance(model, (ModuleSequence, PretrainedModel)):
        raise TypeError(f"model must be one of {list(FEATURES_OF)}, got a {type(model).__name__}")
    return FEATURES_OF[found]


def spelled(model_type: str) -> str:
    """Return a family's name as the table has it, with hyphens."""
    return model_type.replace("_", "-").lower()


def _constructors(family: Family) -> dict[str, Constructor]:
    """Return what can be asked of a family, and what describes its graph."""
    if family.is_pair:
        return {name: _constructor(EncoderDecoderOnnxConfig, name) for name in SEQ2SEQ_FEATURES}
    features = {name: _constructor(EncoderOnnxConfig, name) for name in ENCODER_FEATURES}
    if family.is_decoder:
        features |= {name: _constructor(DecoderOnnxConfig, name) for name in DECODER_FEATURES}
    return dict(sorted(features.items()))


def _constructor(kind: type[Any], feature: str) -> Constructor:  # Any: one of the three classes
    task = feature.removesuffix(WITH_PAST)
    make = kind.with_past if feature.endswith(WITH_PAST) else kind.from_model_config
    return partial(make, task=task)


class FeaturesManager:
    """Look up families, features, and the classes of models and configurations that belong to them."""

    _SUPPORTED_MODEL_TYPE: ClassVar[Mapping[str, Mapping[str, Constructor]]] = {
        spelled(name): _constructors(family) for name, family in ALL_FAMILIES.items()
    }
    AVAILABLE_FEATURES: ClassVar[list[str]] = sorted(
        {feature for features in _SUPPORTED_MODEL_TYPE.values() for feature in features}
    )

    @staticmethod
    def feature_to_task(feature: str) -> str:
        """Return the task of a feature."""
        return feature.removesuffix(WITH_PAST)

    @staticmethod
    def get_supported_features_for_model_type(
        model_type: str, model_name: str | None = None
    ) -> Mapping[str, Constructor]:
        """Return what can be asked of a family, and what makes the configuration of each.

        Args:
            model_type: Name of the family.
            model_name: Of the model, for the error.

        Raises:
            KeyError: If the family is unknown; lists those that are there.
        """
        known = FeaturesManager._SUPPORTED_MODEL_TYPE
        name = spelled(model_type)
        if name not in known:
            who = f"{model_type} ({model_name})" if model_name else model_type
            raise KeyError(f"{who} is not supported; choose from {sorted(known)}")
        return known[name]

    @staticmethod
    def get_config(model_type: str, feature: str) -> Constructor:
        """Return what makes the configuration of a family's graph out of that of a model.

        Args:
            model_type: Name of the family.
            feature: What is asked for.

        Raises:
            KeyError: If the family or the feature is unknown; lists those that are there.
        """
        features = FeaturesManager.get_supported_features_for_model_type(model_type)
        if feature not in features:
            raise KeyError(f"{model_type} has no feature {feature!r}; choose from {sorted(features)}")
        return features[feature]

    @staticmethod
    def get_model_class_for_feature(feature: str, framework: str = "pt") -> type[nn.Module]:
        """Return the class whose models do something.

        Args:
            feature: What.
            framework: ``"pt"``.

        Raises:
            KeyError: If the feature is unknown; lists those that are there.
            ValueError: If another framework is asked for.
        """
        check_framework(framework)
        task = FeaturesManager.feature_to_task(feature)
        if task not in MODEL_CLASSES:
            known = FeaturesManager.AVAILABLE_FEATURES
            raise KeyError(f"unknown feature {feature!r}: the library has models for {known}")
        room, name = MODEL_CLASSES[task]
        found: type[nn.Module] = getattr(importlib.import_module(f"sparse_encoder.{room}"), name)
        return found

    @staticmethod
    def determine_framework(model: str | Path, framework: str | None = None) -> str:
        """Return ``"pt"``, if that is possible.

        Args:
            model: A folder, or a repository on the hub.
            framework: ``"pt"`` or None.

        Raises:
            FileNotFoundError: If a folder has no weights that torch reads.
            ValueError: If another framework is asked for.
        """
        check_framework(framework)
        folder = Path(model)
        if framework is None and folder.is_dir() and not _has(folder, TORCH_WEIGHTS):
            found = "weights of TensorFlow only" if _has(folder, OTHER_WEIGHTS) else "no weights"
            raise FileNotFoundError(f"{folder} has {found}; it must have one of {list(TORCH_WEIGHTS)}")
        return "pt"

    @staticmethod
    def get_model_from_feature(
        feature: str, model: str | Path, framework: str | None = None, cache_dir: str | Path | None = None
    ) -> nn.Module:
        """Load a model for a feature.

        Args:
            feature: What it is for.
            model: A folder, or a repository on the hub.
            framework: ``"pt"`` or None.
            cache_dir: Where downloads are kept.

        Raises:
            KeyError: If the feature is unknown.
            LoadError: If the folder's files are not what they claim to be.
        """
        kind: Any = FeaturesManager.get_model_class_for_feature(
            feature, FeaturesManager.determine_framework(model, framework)
        )
        if issubclass(kind, PretrainedModel):
            loaded: nn.Module = kind.from_pretrained(model, cache_dir=cache_dir)
            return loaded
        encoder: nn.Module = kind(str(model), cache_folder=None if cache_dir is None else str(cache_dir))
        return encoder

    @staticmethod
    def check_supported_model_or_raise(model: nn.Module, feature: str = "default") -> tuple[str, Constructor]:
        """Return a model's family and what makes the configuration of its graph.

        Args:
            model: A model of the library.
            feature: What is asked of it.

        Raises:
            KeyError: If the family is unknown.
            TypeError: If it is no model of the library.
            ValueError: If the family, or a model of this class, has no such feature; lists those that it has.
        """
        inner = model.transformers_model if isinstance(model, ModuleSequence) else model
        if not isinstance(inner, PretrainedModel):
            raise TypeError(f"model must be a model of the library with a backbone, got {type(model).__name__}")
        model_type = spelled(inner.hf_config["model_type"])
        features = FeaturesManager.get_supported_features_for_model_type(model_type)
        if feature not in features:
            raise ValueError(f"{model_type} has no feature {feature!r}; choose from {sorted(features)}")
        own = features_of(model)
        if feature not in own:
            kind = type(model).__name__
            raise ValueError(f"a {kind} of {model_type} has no feature {feature!r}; choose from {sorted(own)}")
        return model_type, features[feature]


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(any(folder.glob(pattern)) for pattern in patterns)
