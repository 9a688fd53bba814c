"""An adapter as PEFT's two files: ``adapter_config.json`` and ``adapter_model.safetensors``.

No expression of a file is run but plain names: which layers an adapter stands on is what its tensors say.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from sparse_encoder.backbone.adapters.book import adapter_tensors
from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.adapters.names import (
    copied_modules,
    copied_parameters,
    file_names,
    in_layers,
    is_named,
    linear_names,
    pattern_value,
)
from sparse_encoder.backbone.families.family import HEAD_BIAS
from sparse_encoder.checkpoint import (
    CheckpointError,
    ConfigError,
    read_json_object,
    read_safetensors,
    resolve_inside,
    write_json,
    write_safetensors,
)
from sparse_encoder.checkpoint.safetensors_file import is_finite
from sparse_encoder.checkpoint.torch_file import read_torch_file

if TYPE_CHECKING:
    from sparse_encoder.backbone.pretrained import PretrainedModel

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
PREFIX = "base_model.model."
"""Before every name in a file."""
_LORA = re.compile(r"(.+)\.(lora_[AB])\.weight")
_BASE_BIAS = ".base_layer.bias"
_PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+\$?")
_LARGEST_RANK = 1 << 16
_MOST_PATTERNS = 1000
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """What the files of an adapter say of a model."""

    config: LoraConfig
    layers: Mapping[str, str]
    """Linear layers, our names to those in files."""
    copied: tuple[str, ...]
    """Parameters it has copies of, by our names."""
    tensors: Mapping[str, Tensor]
    """As :func:`adapter_tensors` names them."""


def tensors_for_file(
    model: PretrainedModel, name: str, config: LoraConfig, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return an adapter's tensors by the names of the family's files, without :data:`PREFIX`.

    Args:
        model: The model.
        name: Of the adapter.
        config: Of the adapter.
        state_dict: The model's tensors; by default as they are now.
    """
    linear, known, family = linear_names(model), file_names(model), model.family
    tensors: dict[str, Tensor] = {}
    for ours, tensor in adapter_tensors(model, name, state_dict).items():
        module, _, part = ours.rpartition(".")
        if part in ("lora_A", "lora_B"):
            tensors[f"{linear[module]}.{part}.weight"] = tensor
        elif part == "bias" and _stands_on(config, model, name, module):
            tensors[f"{linear[module]}{_BASE_BIAS}"] = tensor
        else:
            tensors[known[ours]] = tensor
            if ours == HEAD_BIAS and family.decoder_bias_copy is not None:
                tensors[family.decoder_bias_copy] = tensor.clone()
    return dict(sorted(tensors.items()))


def _stands_on(config: LoraConfig, model: PretrainedModel, name: str, module: str) -> bool:
    """Say whether an adapter changes a linear layer; only those keep their biases in a layer below it."""
    return name in getattr(model.get_submodule(module), "lora_A", ()) and config.bias != "none"


class ModelAdapter(NamedTuple):
    """One adapter on a model."""

    model: PretrainedModel
    name: str
    config: LoraConfig


def write_adapter(adapter: ModelAdapter, state_dict: Mapping[str, Tensor] | None, folder: Path) -> None:
    """Write an adapter's two files into a folder that is there.

    Args:
        adapter: The adapter.
        state_dict: The model's tensors; None for those it has now.
        folder: Where to.

    Raises:
        ValueError: If values are not finite.
    """
    tensors = tensors_for_file(*adapter, state_dict)
    if bad := [name for name, tensor in tensors.items() if not is_finite(tensor)]:
        raise ValueError(f"the adapter has NaN or infinite values, with which no load would take it: {_shown(bad)}")
    write_safetensors(folder / WEIGHTS_FILE, {PREFIX + key: tensor.contiguous() for key, tensor in tensors.items()})
    about = {"auto_mapping": None, "fan_in_fan_out": False, **adapter.config.to_dict(), "inference_mode": True}
    write_json(folder / CONFIG_FILE, about, sort_keys=True)


def read_adapter_config(folder: Path) -> LoraConfig:
    """Read ``adapter_config.json``.

    Args:
        folder: Of the adapter.

    Raises:
        FileNotFoundError: If there is none.
        ConfigError: If it is not a LoRA config of kinds and values that are supported.
    """
    path = resolve_inside(folder, CONFIG_FILE)
    values = read_json_object(path)
    try:
        config = LoraConfig.from_dict(values)
    except (ValueError, TypeError) as reason:
        raise ConfigError(str(reason), path=path) from reason
    if config.r > _LARGEST_RANK or any(rank > _LARGEST_RANK for rank in config.rank_pattern.values()):
        raise ConfigError(f"must be at most {_LARGEST_RANK}", path=path, field="r")
    for name in ("rank_pattern", "alpha_pattern", "layers_pattern", "modules_to_save"):
        held = getattr(config, name) or ()
        if len(held) > _MOST_PATTERNS:
            raise ConfigError(f"must be at most {_MOST_PATTERNS}, got {len(held)}", path=path, field=name)
        for pattern in (held,) if isinstance(held, str) else held:
            if not _PLAIN.fullmatch(pattern):
                raise ConfigError(
                    f"must be plain names, got {pattern!r:.80}: expressions are not run", path=path, field=name
                )
    for name in ("task_type", "base_model_name_or_path", "revision"):
        value = getattr(config, name)
        if value is not None and (not isinstance(value, str) or not value.isprintable() or len(value) > 1000):
            raise ConfigError(f"must be a text that can be printed, or null, got {value!r:.80}", path=path, field=name)
    return config


def read_adapter_tensors(folder: Path) -> dict[str, Tensor]:
    """Read an adapter's weights; a pickle only where there is nothing else, with a warning, and without running it.

    Args:
        folder: Of the adapter.

    Raises:
        CheckpointError: If there are none, or they are damaged or hostile.
    """
    for name in (WEIGHTS_FILE, PICKLE_FILE):
        path = resolve_inside(folder, name, error=CheckpointError)
        if path.exists() or path.is_symlink():
            if name == WEIGHTS_FILE:
                return read_safetensors(path)
            warnings.warn(f"{path} is a pickle; it is read without running any code in it", UserWarning, stacklevel=3)
            return read_torch_file(path)
    raise CheckpointError(f"has no weights of an adapter; looked for {[WEIGHTS_FILE, PICKLE_FILE]}", path=folder)


def fit_to_model(
    config: LoraConfig, stored: Mapping[str, Tensor], model: PretrainedModel, path: Path | None
) -> StoredAdapter:
    """Find the places of an adapter's tensors in a model.

    Args:
        config: Of the adapter.
        stored: Tensors by their names in files, with :data:`PREFIX` or all without.
        model: The model. It may have a head where the adapter's had none, and the reverse.
        path: Where they came from, for errors.

    Raises:
        CheckpointError: If a tensor has no place, is missing, or has another shape or type than the model wants.
    """
    sorting = _Sorting(model)
    for key, tensor in stored.items():
        sorting.put(key.removeprefix(PREFIX), tensor)
    layers = {ours: sorting.linear[ours] for ours in sorting.linear if ours in sorting.parts}
    wanted = set() if isinstance(config.target_modules, str) else _listed_layers(config, model, sorting.linear)
    missing = sorted(sorting.linear[ours] for ours in wanted - layers.keys())
    missing += [
        f"{layers[ours]}.{part}" for ours in layers for part in ("lora_A", "lora_B") if part not in sorting.parts[ours]
    ]
    extra = (
        sorted(layers[ours] for ours in layers.keys() - wanted) if not isinstance(config.target_modules, str) else []
    )
    try:
        copied = copied_parameters(config, model, layers)
    except ValueError as reason:
        raise CheckpointError(str(reason), path=path) from reason
    missing += sorted(set(copied) - sorting.copies.keys())
    unexpected = [*sorting.unexpected, *extra, *sorted(sorting.copies.keys() - set(copied))]
    for names, what in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            raise CheckpointError(
                f"the adapter does not fit {model.architecture}: {len(names)} tensors or layers are {what}, "
                f"{_shown(names)}",
                path=path,
            )
    if not layers:
        raise CheckpointError("the adapter changes no layer of this model", path=path)
    config = _with_default_targets(config, layers)
    _check_shapes(config, sorting, layers, model, path)
    tensors = {f"{ours}.{part}": each for ours, parts in sorting.parts.items() for part, each in parts.items()}
    return StoredAdapter(config, layers, tuple(copied), {**tensors, **sorting.copies})


def _with_default_targets(config: LoraConfig, layers: Mapping[str, str]) -> LoraConfig:
    return config if config.target_modules else replace(config, target_modules=sorted(layers.values()))


def _shown(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_MOST_NAMES]) + (" and others" if len(names) > _MOST_NAMES else "")


def _listed_layers(config: LoraConfig, model: PretrainedModel, linear: Mapping[str, str]) -> set[str]:
    """Return the layers that a list of names finds, whether or not the names have the prefix of the backbone."""
    prefix, excluded = model.family.base_prefix, config.exclude_modules or ()
    kept = copied_modules(config, linear.values())

    targets, out = (
        frozenset(() if isinstance(each, str) else each) for each in (config.target_modules or (), excluded)
    )

    def is_any(theirs: str, ends: frozenset[str]) -> bool:
        return any(is_named(each, ends) for each in (theirs, prefix + theirs, theirs.removeprefix(prefix)))

    return {
        ours
        for ours, theirs in linear.items()
        if is_any(theirs, targets) and not is_any(theirs, out) and theirs not in kept and in_layers(config, theirs)
    }


@dataclass(slots=True)
class _Sorting:
    """Tensors of a file, put where they belong."""

    model: PretrainedModel
    linear: dict[str, str] = field(init=False)
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    _modules: dict[str, str] = field(init=False)
    _parameters: dict[str, str] = field(init=False)
    _ignored: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self.linear = linear_names(self.model)
        self._modules = {theirs: ours for ours, theirs in self.linear.items()}
        self._parameters = {theirs: ours for ours, theirs in file_names(self.model).items()}
        self._ignored = re.compile("|".join(self.model.family.ignored) or r"(?!)")

    def put(self, name: str, tensor: Tensor) -> None:
        """Find the place of one tensor."""
        lora = _LORA.fullmatch(name)
        if lora is not None:
            ours = self._find(self._modules, lora.group(1))
            if ours is not None:
                self.parts.setdefault(ours, {})[lora.group(2)] = tensor
            elif not self._is_ignored(f"{lora.group(1)}.weight"):
                self.unexpected.append(name)
            return
        plain = name.replace(_BASE_BIAS, ".bias") if name.endswith(_BASE_BIAS) else name
        copy_of_bias = self.model.family.decoder_bias_copy
        if plain == copy_of_bias and copy_of_bias not in self._parameters:
            plain = self._parameters_name_of_bias()
        ours = self._find(self._parameters, plain)
        same = ours is None or ours not in self.copies or self.copies[ours].equal(tensor)
        if ours is not None and same:
            self.copies[ours] = tensor
        elif ours is not None or not self._is_ignored(plain):
            self.unexpected.append(name)

    def _parameters_name_of_bias(self) -> str:
        return next((theirs for theirs, ours in self._parameters.items() if ours == HEAD_BIAS), "")

    def _find(self, places: Mapping[str, str], theirs: str) -> str | None:
        """Return our name of one of theirs, with or without the prefix of the backbone."""
        prefix = self.model.family.base_prefix
        candidates = (theirs, prefix + theirs, theirs.removeprefix(prefix))
        return next((places[each] for each in candidates if each in places), None)

    def _is_ignored(self, theirs: str) -> bool:
        prefix = self.model.family.base_prefix
        return any(self._ignored.fullmatch(each) for each in (theirs, prefix + theirs))


def _check_shapes(
    config: LoraConfig, sorting: _Sorting, layers: Mapping[str, str], model: PretrainedModel, path: Path | None
) -> None:
    """Hold every tensor to the shape that the config and the model say."""
    wrong = []
    shapes: dict[str, tuple[tuple[int, ...], Tensor]] = {}
    for ours, theirs in layers.items():
        out_features, in_features = model.get_submodule(ours).weight.shape  # type: ignore[misc]
        rank = pattern_value(config.rank_pattern, theirs, config.r)
        shapes[f"{theirs}.lora_A"] = ((rank, in_features), sorting.parts[ours]["lora_A"])
        shapes[f"{theirs}.lora_B"] = ((out_features, rank), sorting.parts[ours]["lora_B"])
    for ours, tensor in sorting.copies.items():
        shapes[ours] = (tuple(model.get_parameter(ours).shape), tensor)
    for name, (wanted, tensor) in shapes.items():
        if tuple(tensor.shape) != wanted or not tensor.is_floating_point():
            wrong.append(f"{name} is {tensor.dtype} {tuple(tensor.shape)} and must be floating {wanted}")
    if wrong:
        raise CheckpointError(f"the adapter does not fit {model.architecture}: {_shown(wrong)}", path=path)


def has_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter."""
    return (folder / CONFIG_FILE).exists() or (folder / CONFIG_FILE).is_symlink()


def plain_values(values: Mapping[str, Any]) -> LoraConfig:  # Any: JSON
    """Read a config that a caller gives as a mapping; errors as :meth:`LoraConfig.from_dict`."""
    return LoraConfig.from_dict({"peft_type": "LORA", **values})
