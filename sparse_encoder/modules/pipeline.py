"""``modules.json``: the modules of a model, in order, and the folder of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sparse_encoder.checkpoint import ConfigError, write_json
from sparse_encoder.module_entries import MODULES_FILE, read_entries
from sparse_encoder.modules.base import InputModule, LoadSettings, Module
from sparse_encoder.modules.module_types import MODULE_CLASSES, folder_class_name, type_name
from sparse_encoder.modules.router import Router
from sparse_encoder.modules.vocabulary import follow_vocabulary

logger = logging.getLogger(__name__)


def load_modules(
    folder: Path,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
) -> list[nn.Module]:
    """Load the modules of a saved model.

    All of ``modules.json`` is checked before the first module is loaded.

    Args:
        folder: The model's folder.
        model_kwargs: Options of the backbone.
        processor_kwargs: Options of the tokenizer.
        config_kwargs: Values that replace those of the backbone's ``config.json``.

    Returns:
        The modules, the one that reads texts first.

    Raises:
        LoadError: If a file is missing, or is not what it claims to be.
    """
    settings = LoadSettings(
        root=folder,
        model_kwargs=model_kwargs or {},
        processor_kwargs=processor_kwargs or {},
        config_kwargs=config_kwargs or {},
    )
    modules = [MODULE_CLASSES[entry.kind].load(entry.folder, settings) for entry in read_entries(folder)]
    if isinstance(modules[0], InputModule) and not modules[0].reads_texts:
        raise ConfigError("the routes of the first module must begin with modules that read texts", path=folder)
    return list(modules)


def check_can_be_saved(modules: Iterable[nn.Module]) -> None:
    """Check that modules, and those of a router's routes, are of types that could be loaded again; writes nothing.

    Raises:
        TypeError: If a module is none of the library's.
    """
    for module in modules:
        type_name(module)
        if isinstance(module, Router):
            for route in module.sub_modules.values():
                check_can_be_saved(route.children())


def save_modules(modules: Sequence[nn.Module], folder: Path) -> None:
    """Write modules and ``modules.json``, so that sentence-transformers loads them too.

    Args:
        modules: The modules, the one that reads texts first.
        folder: An empty folder.

    Raises:
        TypeError: If a module is none of the library's, and so could not be loaded again.
    """
    check_can_be_saved(modules)
    follow_vocabulary(modules)
    entries = []
    for index, module in enumerate(modules):
        kind = type_name(module)
        in_root = index == 0 and isinstance(module, Module) and module.save_in_root
        path = "" if in_root else f"{index}_{folder_class_name(module)}"
        entries.append({"idx": index, "name": str(index), "path": path, "type": kind})
    for entry, module in zip(entries, modules, strict=True):
        (folder / str(entry["path"])).mkdir(exist_ok=True)
        module.save(folder / str(entry["path"]))  # type: ignore[operator]
    write_json(folder / MODULES_FILE, entries)
