"""Where parameters go: one device, or several by the plan of accelerate, with the disk as the last of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.loading.options import DISK, PLANS, Device, DeviceOptions, plain_device


@dataclass(slots=True)
class Placement:
    """Which device each parameter goes to.

    Args:
        options: What the caller asked for.
        devices: Devices by module; a single one for the module ``""``.
    """

    options: DeviceOptions
    devices: dict[str, Device]
    _offloaded: dict[str, Any] = field(default_factory=dict)  # Any: of accelerate
    _folder: str | None = None
    """Where this load keeps what is on the disk: a folder of its own, as two models have the same names."""

    @property
    def single(self) -> torch.device | None:
        """The device of all parameters; None if there are several, or the disk is one."""
        kinds = set(self.devices.values())
        only = next(iter(kinds))
        return torch.device(only) if len(kinds) == 1 and only != DISK else None

    def device_of(self, name: str) -> Device:
        """Return where a parameter goes, by the longest name of a module it is in.

        Raises:
            ValueError: If no module of the map has it.
        """
        parts = name.split(".")
        for length in range(len(parts), -1, -1):
            found = self.devices.get(".".join(parts[:length]))
            if found is not None:
                return found
        raise ValueError(f"device_map has no device for {name!r}; it has {sorted(self.devices)}")

    def offload(self, name: str, tensor: Tensor) -> None:
        """Write a parameter to the disk."""
        from accelerate.utils import offload_weight

        if self._folder is None:
            parent = Path(str(self.options.offload_folder)).expanduser().absolute()
            parent.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix="model-", dir=parent)
        offload_weight(tensor, name, self._folder, index=self._offloaded)

    def dispatch(self, model: nn.Module) -> None:
        """Let each module fetch its parameters and inputs when it is called; nothing to do on one device."""
        if self.single is not None:
            return
        from accelerate import dispatch_model
        from accelerate.utils import save_offload_index

        if self._offloaded:
            save_offload_index(self._offloaded, self._folder)
        dispatch_model(
            model,
            device_map=self.devices,
            offload_dir=self._folder,
            offload_index=self._offloaded or None,
            offload_buffers=self.options.offload_buffers,
            preload_module_classes=sorted(_parts(model)),
        )


def place(model: nn.Module, options: DeviceOptions, dtype: torch.dtype, ties: Mapping[str, str]) -> Placement:
    """Plan where the parameters of a model go.

    Args:
        model: The model, on the meta device.
        options: What the caller asked for.
        dtype: What the parameters will have.
        ties: Parameters that are others, and which.

    Raises:
        ValueError: If the map leaves out a parameter, parts what is one or names a device that is not there, if
            ``max_memory`` cannot be kept, or there is no folder for the disk.
    """
    asked = options.device_map
    if asked is None:
        return Placement(options, {"": torch.device("cpu")})
    if isinstance(asked, str) and asked in PLANS:
        devices = _planned(model, options, dtype, asked)
    else:
        devices = dict(asked) if isinstance(asked, Mapping) else {"": asked}
    placement = Placement(options, {name: plain_device(device) for name, device in devices.items()})
    for device in sorted(set(placement.devices.values()) - {DISK, "cpu"}, key=str):
        _check_there(device)
    kinds = {placement.device_of(name) for name in model.state_dict()}
    for target, source in ties.items():
        if _identity(placement.device_of(target)) != _identity(placement.device_of(source)):
            raise ValueError(
                f"{target!r} and {source!r} are one parameter and need one device; device_map gives them "
                f"{placement.device_of(target)!r} and {placement.device_of(source)!r}"
            )
    if DISK in kinds and options.offload_folder is None:
        raise ValueError("device_map puts modules on the disk: give an offload_folder to keep them in")
    return placement


def _parts(model: nn.Module) -> set[str]:
    """Return the classes of what is called as one, whose forward may use parameters of what is inside."""
    backbone = model.get_submodule("backbone")
    parts = (*backbone.children(), *backbone.get_submodule("layers").children(), *model.children())
    return {type(part).__name__ for part in parts if part is not backbone and not isinstance(part, nn.ModuleList)}


def _planned(model: nn.Module, options: DeviceOptions, dtype: torch.dtype, plan: str) -> dict[str, Device]:
    """Let accelerate spread modules over the memory there is."""
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    together = sorted(_parts(model))
    memory = None if options.max_memory is None else dict(options.max_memory)
    if memory is not None and DISK in memory:
        raise ValueError("max_memory must not name the disk: what fits nowhere else goes into offload_folder")
    try:
        if plan != "sequential":
            memory = get_balanced_memory(
                model, memory, no_split_module_classes=together, dtype=dtype, low_zero=plan == "balanced_low_0"
            )
        found = infer_auto_device_map(
            model, memory, no_split_module_classes=together, dtype=dtype, offload_buffers=options.offload_buffers
        )
    except IndexError as reason:  # what accelerate raises when it has used up all devices
        raise ValueError(
            f"no plan keeps max_memory {options.max_memory!r}: give a device more, or a device_map by module"
        ) from reason
    return dict(found)


def _identity(device: Device) -> tuple[str, int]:
    """Return what is the same for all spellings of a device."""
    if device == DISK:
        return DISK, 0
    found = torch.device(device)
    return found.type, found.index or 0


def _check_there(device: Device) -> None:
    """Refuse a device that this machine, or this torch, does not have."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as reason:
        raise ValueError(
            f"device_map names {device!r}, which is not there: {str(reason).splitlines()[0]}; use 'cpu' or 'auto'"
        ) from reason
