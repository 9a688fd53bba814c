"""An adapter as PEFT's two files: ``adapter_config.json`` and ``adapter_model.safetensors``.

No expression of a file is run but those of bounded time: which layers an adapter stands on is what its tensors say.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from sparse_encoder.backbone.adapters.book import adapter_tensors
from sparse_encoder.backbone.adapters.config import DIRECTION, LoraConfig
from sparse_encoder.backbone.adapters.expressions import bounded
from sparse_encoder.backbone.adapters.fitting import (
    BASE_BIAS,
    Sorting,
    misplaced_layers,
    shown,
    unlike_files,
    with_plain_patterns,
    wrong_shapes,
)
from sparse_encoder.backbone.adapters.names import copied_parameters, file_names, is_plain, is_transposed, linear_names
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
_LARGEST_RANK = 1 << 16
_MOST_PATTERNS = 1000


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
        elif part == "bias" and _stands_on(name, model.get_submodule(module), config):
            tensors[f"{linear[module]}{BASE_BIAS}"] = tensor
        else:
            tensors[known[ours]] = tensor.t() if is_transposed(model, ours) else tensor
            if ours == HEAD_BIAS and family.decoder_bias_copy is not None:
                tensors[family.decoder_bias_copy] = tensor.clone()
    return dict(sorted(tensors.items()))


def _stands_on(name: str, module: nn.Module, config: LoraConfig) -> bool:
    """Say whether an adapter changes a linear layer; only those keep their biases in a layer below it."""
    return name in getattr(module, "lora_A", ()) and config.bias != "none"


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
        raise ValueError(f"the adapter has NaN or infinite values, with which no load would take it: {shown(bad)}")
    write_safetensors(folder / WEIGHTS_FILE, {PREFIX + key: tensor.contiguous() for key, tensor in tensors.items()})
    turned = bool(adapter.model.family.transposed)
    about = {"fan_in_fan_out": turned, **adapter.config.to_dict(), "inference_mode": True}
    about["auto_mapping"] = _with_direction(adapter)
    write_json(folder / CONFIG_FILE, about, sort_keys=True)


def _with_direction(adapter: ModelAdapter) -> dict[str, Any] | None:  # Any: JSON
    """Return what a file says of the base's class, and of its direction if a config does not leave that to the family.

    So a base whose direction alone was changed need not be written for it.
    """
    model, said = adapter.model, dict(adapter.config.auto_mapping or {})
    said.pop(DIRECTION, None)
    if model.family.is_decoder and DIRECTION in model.hf_config:
        kind = model.family.model_type
        library = f"transformers.models.{kind}.modeling_{kind}"
        said = {"base_model_class": model.architecture, "parent_library": library, **said}
        said[DIRECTION] = model.config.causal
    return said or None


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
        if name == "rank_pattern":
            continue  # ranks are what the tensors have
        for pattern in (held,) if isinstance(held, str) else held:
            if not is_plain(pattern) and not (name == "alpha_pattern" and bounded(pattern)):
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
    config: LoraConfig, stored: Mapping[str, Tensor], *, model: PretrainedModel, path: Path | None
) -> StoredAdapter:
    """Find the places of an adapter's tensors in a model.

    Args:
        config: Of the adapter.
        stored: Tensors by their names in files, with :data:`PREFIX` or all without.
        model: The model. It may have a head where the adapter's had none, which is then left alone, and the reverse:
            what an adapter changes in a head that is not there is left aside, with a line in the log.
        path: Where they came from, for errors.

    Raises:
        CheckpointError: If a tensor has no place, is missing, or has another shape or type than the model wants; or an
            expression of ``alpha_pattern`` cannot be matched in bounded time.
    """
    sorting = Sorting(model)
    for key, tensor in stored.items():
        sorting.put(key.removeprefix(PREFIX), tensor)
    sorting.leave_head_out()
    layers = {ours: sorting.linear[ours] for ours in sorting.linear if ours in sorting.parts}
    missing, unexpected = misplaced_layers(config, sorting)
    try:
        copied = [each for each in copied_parameters(config, model, layers) if sorting.may_have(each)]
    except ValueError as reason:
        raise CheckpointError(str(reason), path=path) from reason
    if others := sorting.leave_tables_out(copied):
        raise CheckpointError(
            f"holds {others}, which are not those of the model it is put on: the base was resized or trained itself; "
            "merge the adapter where it was made, and save the model",
            path=path,
        )
    missing += sorted(set(copied) - sorting.copies.keys())
    unexpected = [*sorting.unexpected, *unexpected, *sorted(sorting.copies.keys() - set(copied))]
    what = f"the adapter does not fit {model.architecture}"
    hint = unlike_files(model, [*missing, *unexpected])
    for names, how in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            raise CheckpointError(f"{what}: {len(names)} tensors or layers are {how}, {shown(names)}{hint}", path=path)
    if not layers:
        raise CheckpointError("the adapter changes no layer of this model", path=path)
    config = with_plain_patterns(config, sorting, layers, path=path)
    if not config.target_modules:
        config = replace(config, target_modules=sorted(layers.values()))
    if wrong := wrong_shapes(config, sorting, layers, model=model):
        raise CheckpointError(f"{what}: {shown(wrong)}", path=path)
    tensors = {f"{ours}.{part}": each for ours, parts in sorting.parts.items() for part, each in parts.items()}
    return StoredAdapter(config, layers, tuple(copied), {**tensors, **sorting.copies})


def has_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter."""
    return (folder / CONFIG_FILE).exists() or (folder / CONFIG_FILE).is_symlink()


def plain_values(values: Mapping[str, Any]) -> LoraConfig:  # Any: JSON
    """Read a config that a caller gives as a mapping; errors as :meth:`LoraConfig.from_dict`."""
    return LoraConfig.from_dict({"peft_type": "LORA", **values})
