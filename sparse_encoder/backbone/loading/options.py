"""What a caller of ``from_pretrained`` may ask for, checked and in one place."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.backbone.adapters.bases import Vouched
from sparse_encoder.backbone.attention import ATTENTIONS
from sparse_encoder.backbone.dtypes import chosen_dtype
from sparse_encoder.backbone.weights import compiled
from sparse_encoder.checkpoint import WeightNames

logger = logging.getLogger(__name__)

Device = str | int | torch.device
DeviceMap = Device | Mapping[str, Device] | None

PLANS = ("auto", "balanced", "balanced_low_0", "sequential")
DISK = "disk"

_REFUSED = {
    "from_tf": "TensorFlow weights are not read; let transformers 4 save them with save_pretrained",
    "from_flax": "Flax weights are not read; let transformers 4 save them with save_pretrained",
    "proxies": "the hub's client takes proxies from the environment variables HTTP_PROXY and HTTPS_PROXY",
    "tp_plan": "tensor parallelism is not supported; shard with FSDP, or use device_map",
    "tp_size": "tensor parallelism is not supported; shard with FSDP, or use device_map",
    "device_mesh": "tensor parallelism is not supported; shard with FSDP, or use device_map",
    "quantization_config": "quantized weights are not supported; dtype='bfloat16' halves the memory",
    "load_in_8bit": "quantized weights are not supported; dtype='bfloat16' halves the memory",
    "load_in_4bit": "quantized weights are not supported; dtype='bfloat16' halves the memory",
}
"""Arguments of other libraries that would change what is loaded, and the way out."""
WITHOUT_EFFECT = (
    "resume_download",
    "mirror",
    "low_cpu_mem_usage",
    "_fast_init",
    "offload_state_dict",
    "from_pt",
    "trust_remote_code",
    "add_pooling_layer",
)
"""Arguments of other libraries that are the only way here, or the safe one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOptions:
    """Where files come from."""

    cache_dir: str | os.PathLike[str] | None = None
    force_download: bool = False
    local_files_only: bool = False
    token: bool | str | None = None
    revision: str | None = None
    subfolder: str = ""
    """The model's folder in the folder or repository."""
    repository_only: bool = False
    """Whether the name is one of the hub even if there is a folder that is called so."""

    def __post_init__(self) -> None:
        """Check types.

        Raises:
            TypeError: If a switch is neither on nor off, or a name no text.
        """
        for name in ("force_download", "local_files_only"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r:.100}")
        if not isinstance(self.revision, (str, type(None))):
            raise TypeError(f"revision must be a branch, a tag or a commit, got {self.revision!r:.100}")
        if not isinstance(self.subfolder, str):
            raise TypeError(f"subfolder must be the path of a folder, got {self.subfolder!r:.100}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOptions:
    """Where parameters go."""

    device_map: DeviceMap = None
    """One device, devices by module, or ``"auto"``, ``"balanced"``, ``"balanced_low_0"``, ``"sequential"``."""
    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: str | Path | None = None
    """Where parameters are kept whose device is ``"disk"``: each load makes a folder of its own in it, which stays."""
    offload_buffers: bool = False

    def __post_init__(self) -> None:
        """Check the map, and refuse options that only some maps give a meaning.

        Raises:
            TypeError: If ``device_map`` is none.
            ValueError: If there is no such device, or another option does not fit the map.
        """
        if self.device_map is None:
            given = {"max_memory": self.max_memory, "offload_folder": self.offload_folder}
            names = [name for name, value in given.items() if value is not None]
            names += ["offload_buffers"] if self.offload_buffers else []
            if names:
                raise ValueError(f"{' and '.join(names)} need a device_map, for example 'auto'")
        elif not self.is_planned:
            self._check_devices()

    @property
    def is_planned(self) -> bool:
        """Whether devices are chosen by the memory there is."""
        return isinstance(self.device_map, str) and self.device_map in PLANS

    def _check_devices(self) -> None:
        asked = self.device_map
        if isinstance(asked, bool) or not isinstance(asked, (str, int, torch.device, Mapping)):
            raise TypeError(f"device_map must be a device, a mapping or one of {list(PLANS)}, got {asked!r:.100}")
        kinds = {plain_device(each) for each in (asked.values() if isinstance(asked, Mapping) else (asked,))}
        if self.max_memory is not None:
            raise ValueError(f"max_memory needs a device_map that is to be planned: one of {list(PLANS)}")
        if DISK in kinds and self.offload_folder is None:
            raise ValueError("device_map puts modules on the disk: give an offload_folder to keep them in")
        if DISK not in kinds and self.offload_folder is not None:
            raise ValueError("offload_folder is given, and device_map puts nothing on the disk")


def plain_device(device: Device) -> Device:
    """Return a device as torch spells it.

    Raises:
        TypeError: If it is no device.
        ValueError: If there is none of this name, or it holds no values.
    """
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(f"device_map must give devices, as 'cpu', 'cuda:0', 0 or 'disk', got {device!r:.100}")
    if device == DISK:
        return DISK
    try:
        found = torch.device(device)
    except RuntimeError as reason:
        raise ValueError(f"unknown device {device!r} in device_map: {str(reason).splitlines()[0]}") from reason
    if found.type == "meta":
        raise ValueError("device_map must name devices that hold values, got 'meta'; use 'disk' and an offload_folder")
    return "cpu" if found.type == "cpu" else device


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """How a model is loaded."""

    model_args: tuple[Any, ...] = ()  # Any: of a subclass's constructor
    config: Mapping[str, Any] | str | Path | None = None
    """The content of a ``config.json``, or where one is."""
    state_dict: Mapping[str, Tensor] | None = None
    """Tensors in place of files."""
    base_model: Vouched = None
    """Of an adapter: the base that is taken for the one that its file names, or several that files may name."""
    hub: HubOptions = field(default_factory=HubOptions)
    devices: DeviceOptions = field(default_factory=DeviceOptions)
    dtype: torch.dtype | str | None = None
    attn_implementation: str = "sdpa"
    use_safetensors: bool | None = None
    variant: str | None = None
    key_mapping: Mapping[str, str] | None = None
    strict: bool | None = None
    ignore_mismatched_sizes: bool = False
    output_loading_info: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)  # Any: of configs and constructors
    """Values of the config, and arguments of the model's constructor."""
    any_config_value: bool = False
    """Take every one of ``others`` for a value of the config."""
    warn_of_short_dtypes: bool = True
    """Say that 16-bit weights on the CPU may be slow if nobody asked for them."""

    def __post_init__(self) -> None:
        """Check what needs no files.

        Raises:
            TypeError: If a flag is none, or another value not of its type.
            ValueError: If a dtype, an attention, a variant or a pattern is none, or tensors and files are asked for.
        """
        types = {"variant": (str, "a text, as 'fp16'"), "state_dict": (Mapping, "a mapping of names to tensors")}
        types |= {"key_mapping": (Mapping, "a mapping of patterns to replacements")}
        for name, (kind, what) in types.items():
            if not isinstance(value := getattr(self, name), (kind, type(None))):
                raise TypeError(f"{name} must be {what}, got {value!r:.100}")
        of_files = {"variant": self.variant, "use_safetensors": self.use_safetensors, "subfolder": self.hub.subfolder}
        if self.state_dict is not None and (
            given := [name for name, each in of_files.items() if each not in (None, "")]
        ):
            raise ValueError(f"{' and '.join(given)} choose files, and state_dict takes their place; leave one out")
        flags = {"ignore_mismatched_sizes": (False, True), "output_loading_info": (False, True)}
        for name, allowed in {**flags, "strict": (None, False, True), "use_safetensors": (None, False, True)}.items():
            value = getattr(self, name)
            if not any(value is each for each in allowed):
                raise TypeError(f"{name} must be one of {list(allowed)}, got {value!r:.100}")
        if self.attn_implementation not in ATTENTIONS:
            raise ValueError(f"unknown attention {self.attn_implementation!r}; choose from {sorted(ATTENTIONS)}")
        chosen_dtype(self.dtype, {})
        compiled(self.key_mapping or {})
        WeightNames(variant=self.variant)
        if not isinstance(self.base_model, (str, Path, Mapping, type(None))):
            raise TypeError(f"base_model must be a name or a path, got {type(self.base_model).__name__}")

    @property
    def is_lenient(self) -> bool:
        """Whether missing and unexpected tensors are reported instead of refused."""
        return self.strict is False or (self.output_loading_info and self.strict is None)


_OF_THE_LIBRARY = ("any_config_value", "warn_of_short_dtypes", "others", "hub", "devices", "repository_only")
NAMES = frozenset(
    {*LoadOptions.__slots__, *HubOptions.__slots__, *DeviceOptions.__slots__, "torch_dtype", "weights_only"}
).difference(_OF_THE_LIBRARY)
"""What a caller may ask for by name."""


def load_options(
    model_args: tuple[Any, ...],
    named: Mapping[str, Any],
    others: Mapping[str, Any],  # Any: whatever a caller of from_pretrained gives
) -> LoadOptions:
    """Sort the arguments of ``from_pretrained``.

    Args:
        model_args: Positional arguments of the model's constructor.
        named: Arguments that stand in the signature.
        others: Those that do not.

    Raises:
        TypeError: If an argument is not of its type.
        ValueError: If an argument asks for what is not supported; the message has the way out.
    """
    if "model_args" in others:
        raise TypeError(
            "arguments of the model's constructor are given by their place behind the name, not as model_args"
        )
    rest = {**named, **others}
    for name, reason in _REFUSED.items():
        if rest.pop(name, None) not in (None, False):
            raise ValueError(f"{name} is not supported: {reason}")
    if rest.pop("weights_only", True) is not True:
        raise ValueError(
            "weights_only must be True: a pickle that needs more would run code; open it where it was made, and save "
            "its weights as safetensors"
        )
    if unused := [name for name in WITHOUT_EFFECT if rest.pop(name, None) not in (None, False)]:
        logger.warning("%s have no effect here and can be left out", unused)
    alias, asked = rest.pop("torch_dtype", None), rest.pop("dtype", None)
    hub = {name: rest.pop(name) for name in HubOptions.__slots__ if name in rest and name != "repository_only"}
    hub = {name: value for name, value in hub.items() if not (name == "subfolder" and value is None)}
    if isinstance(hub.get("subfolder"), Path):
        hub["subfolder"] = hub["subfolder"].as_posix()
    devices = {name: rest.pop(name) for name in DeviceOptions.__slots__ if name in rest}
    own = set(LoadOptions.__slots__) - {"any_config_value", "warn_of_short_dtypes", "others", "hub", "devices"}
    options = {name: rest.pop(name) for name in sorted(own & set(rest))}
    options["attn_implementation"] = options.get("attn_implementation") or "sdpa"
    return LoadOptions(
        **options | {"model_args": model_args},
        dtype=alias if asked is None else asked,
        hub=HubOptions(**hub),
        devices=DeviceOptions(**devices),
        others=rest,
    )
