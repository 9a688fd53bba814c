"""``modules.json``: the modules of a model, in order, and the folder of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sparse_encoder.checkpoint import ConfigError, read_json, resolve_inside, write_json
from sparse_encoder.modules.base import InputModule, LoadSettings, Module
from sparse_encoder.modules.module_types import folder_class_name, module_class, type_name
from sparse_encoder.modules.pooling import Pooling
from sparse_encoder.modules.router import Router
from sparse_encoder.modules.sparse_static_embedding import SparseStaticEmbedding
from sparse_encoder.modules.splade_pooling import SpladePooling
from sparse_encoder.modules.transformer import Transformer
from sparse_encoder.modules.vocabulary import follow_vocabulary

logger = logging.getLogger(__name__)

MODULES_FILE = "modules.json"
MAX_MODULES = 64
_KEYS = ("idx", "name", "path", "type", "kwargs")


class _Entry(NamedTuple):
    """One module of a model that has been checked."""

    kind: type[Module]
    folder: Path


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
    modules = [entry.kind.load(entry.folder, settings) for entry in _read_entries(folder)]
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


def _read_entries(folder: Path) -> list[_Entry]:
    """Read and check ``modules.json``."""
    path = folder / MODULES_FILE
    values = read_json(resolve_inside(folder, MODULES_FILE))
    if not isinstance(values, list) or not 0 < len(values) <= MAX_MODULES:
        raise ConfigError(f"must be a list of 1 to {MAX_MODULES} modules", path=path)
    entries = [_entry(index, value, folder, path) for index, value in enumerate(values)]
    for index, entry in enumerate(entries):
        reads_texts = issubclass(entry.kind, InputModule)
        if index == 0 and not reads_texts:
            raise ConfigError(f"the first module must read texts, a {entry.kind.__name__} does not", path=path)
        if index > 0 and reads_texts and not issubclass(entry.kind, (SparseStaticEmbedding, Router)):
            raise ConfigError(f"a {entry.kind.__name__} must be the first module, it is number {index}", path=path)
    pools = any(issubclass(entry.kind, (Pooling, SpladePooling)) for entry in entries)
    if issubclass(entries[0].kind, Transformer) and not pools:
        raise ConfigError("a model that begins with a Transformer must have a Pooling or a SpladePooling", path=path)
    return entries


def _entry(index: int, value: object, folder: Path, path: Path) -> _Entry:
    """Check one entry of ``modules.json``."""
    if not isinstance(value, dict):
        raise ConfigError(f"module {index} must be an object, got {value!r:.80}", path=path)
    number = value.get("idx")
    if number != index or isinstance(number, bool):
        raise ConfigError(
            f"modules must be numbered 0, 1, 2, ... in order; number {index} is {number!r:.80}", path=path
        )
    kwargs = value.get("kwargs", [])
    if not isinstance(kwargs, list) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigError(f"must be a list of names, got {kwargs!r:.80}", path=path, field="kwargs")
    if unknown := sorted(set(value) - set(_KEYS)):
        raise ConfigError(f"unknown keys {unknown[:10]} in module {index}; choose from {list(_KEYS)}", path=path)
    kind = module_class(value.get("type"), path=path)
    name = value.get("path")
    if not isinstance(name, str):
        raise ConfigError(f"must be the name of a folder or empty, got {name!r:.80}", path=path, field="path")
    return _Entry(kind, resolve_inside(folder, name) if name else folder)
