"""What a caller of ``from_pretrained`` may ask for, checked and in one place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

DeviceMap = str | int | torch.device | Mapping[str, str | int | torch.device] | None

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
_WITHOUT_EFFECT = (
    "resume_download",
    "mirror",
    "low_cpu_mem_usage",
    "_fast_init",
    "offload_state_dict",
    "from_pt",
    "trust_remote_code",
)
"""Arguments of other libraries that are the only way here, or the safe one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOptions:
    """Where files come from."""

    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False
    token: bool | str | None = None
    revision: str | None = None
    subfolder: str = ""
    """The model's folder in the folder or repository."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOptions:
    """Where parameters go."""

    device_map: DeviceMap = None
    """One device, devices by module, or ``"auto"``, ``"balanced"``, ``"balanced_low_0"``, ``"sequential"``."""
    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: str | Path | None = None
    """Where parameters are kept whose device is ``"disk"``."""
    offload_buffers: bool = False

    def __post_init__(self) -> None:
        """Refuse options that only a map of several devices gives a meaning.

        Raises:
            ValueError: If one is there without ``device_map``.
        """
        if self.device_map is None:
            given = {"max_memory": self.max_memory, "offload_folder": self.offload_folder}
            names = [name for name, value in given.items() if value is not None]
            names += ["offload_buffers"] if self.offload_buffers else []
            if names:
                raise ValueError(f"{' and '.join(names)} need a device_map, for example 'auto'")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """How a model is loaded."""

    model_args: tuple[Any, ...] = ()  # Any: of a subclass's constructor
    config: Mapping[str, Any] | str | Path | None = None
    """The content of a ``config.json``, or where one is."""
    state_dict: Mapping[str, Tensor] | None = None
    """Tensors in place of files."""
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
            TypeError: If a flag is none.
            ValueError: If there are weights from nowhere.
        """
        flags = {"ignore_mismatched_sizes": (False, True), "output_loading_info": (False, True)}
        for name, allowed in {**flags, "strict": (None, False, True), "use_safetensors": (None, False, True)}.items():
            value = getattr(self, name)
            if not any(value is each for each in allowed):
                raise TypeError(f"{name} must be one of {list(allowed)}, got {value!r:.100}")

    @property
    def is_lenient(self) -> bool:
        """Whether missing and unexpected tensors are reported instead of refused."""
        return self.strict is False or (self.output_loading_info and self.strict is None)


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
        TypeError: If a flag is none.
        ValueError: If an argument asks for what is not supported; the message has the way out.
    """
    rest = {**named, **others}
    for name, reason in _REFUSED.items():
        if rest.pop(name, None) not in (None, False):
            raise ValueError(f"{name} is not supported: {reason}")
    if rest.pop("weights_only", True) is not True:
        raise ValueError(
            "weights_only must be True: a pickle that needs more would run code; open it where it was made, and save "
            "its weights as safetensors"
        )
    if unused := [name for name in _WITHOUT_EFFECT if rest.pop(name, None) not in (None, False)]:
        logger.warning("%s have no effect here and can be left out", unused)
    alias, asked = rest.pop("torch_dtype", None), rest.pop("dtype", None)
    hub = {name: rest.pop(name) for name in HubOptions.__slots__ if name in rest}
    hub = {name: value for name, value in hub.items() if not (name == "subfolder" and value is None)}
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
