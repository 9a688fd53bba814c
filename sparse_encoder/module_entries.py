"""``modules.json`` as it is read: the closed table of module types, and where each module's files are.

Names are those of sentence-transformers, of every generation from 5.0 on; nothing is imported by name. Modules are
known here by the names of their classes only.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sparse_encoder.checkpoint import ConfigError, read_json, resolve_inside
from sparse_encoder.routes import MAX_MODULES

MODULES_FILE = "modules.json"
_KEYS = ("idx", "name", "path", "type", "kwargs")
_PACKAGE = "sentence_transformers."
_SPARSE = f"{_PACKAGE}sparse_encoder."
_DENSE = f"{_PACKAGE}sentence_transformer."


def _spellings(*, written: str, also: tuple[str, ...]) -> tuple[str, ...]:
    return written, *also


SPELLINGS: dict[str, tuple[str, ...]] = {
    "Transformer": _spellings(
        written=f"{_PACKAGE}base.modules.transformer.Transformer",
        also=(
            f"{_PACKAGE}base.modules.Transformer",
            f"{_PACKAGE}models.Transformer",
            f"{_PACKAGE}models.Transformer.Transformer",
            f"{_DENSE}modules.Transformer",
            f"{_SPARSE}modules.Transformer",
            f"{_SPARSE}models.Transformer",
        ),
    ),
    "MLMTransformer": (
        f"{_SPARSE}models.MLMTransformer",
        f"{_SPARSE}models.MLMTransformer.MLMTransformer",
        f"{_SPARSE}modules.mlm_transformer.MLMTransformer",
        f"{_SPARSE}modules.MLMTransformer",
    ),
    "SpladePooling": _spellings(
        written=f"{_SPARSE}modules.splade_pooling.SpladePooling",
        also=(
            f"{_SPARSE}models.SpladePooling",
            f"{_SPARSE}models.SpladePooling.SpladePooling",
            f"{_SPARSE}modules.SpladePooling",
        ),
    ),
    "SparseAutoEncoder": _spellings(
        written=f"{_SPARSE}modules.sparse_auto_encoder.SparseAutoEncoder",
        also=(
            f"{_SPARSE}models.SparseAutoEncoder",
            f"{_SPARSE}models.SparseAutoEncoder.SparseAutoEncoder",
            f"{_SPARSE}modules.SparseAutoEncoder",
            f"{_SPARSE}models.CSRSparsity",
            f"{_SPARSE}models.CSRSparsity.CSRSparsity",
        ),
    ),
    "SparseStaticEmbedding": _spellings(
        written=f"{_SPARSE}modules.sparse_static_embedding.SparseStaticEmbedding",
        also=(
            f"{_SPARSE}models.SparseStaticEmbedding",
            f"{_SPARSE}models.SparseStaticEmbedding.SparseStaticEmbedding",
            f"{_SPARSE}modules.SparseStaticEmbedding",
            f"{_SPARSE}models.IDF",
            f"{_SPARSE}models.IDF.IDF",
        ),
    ),
    "Router": _spellings(
        written=f"{_PACKAGE}base.modules.router.Router",
        also=(
            f"{_PACKAGE}base.modules.Router",
            f"{_SPARSE}modules.Router",
            f"{_SPARSE}models.Router",
            f"{_PACKAGE}models.Router",
            f"{_PACKAGE}models.Router.Router",
            f"{_PACKAGE}models.Asym",
            f"{_PACKAGE}models.Asym.Asym",
        ),
    ),
    "Pooling": _spellings(
        written=f"{_DENSE}modules.pooling.Pooling",
        also=(f"{_DENSE}modules.Pooling", f"{_PACKAGE}models.Pooling", f"{_PACKAGE}models.Pooling.Pooling"),
    ),
    "Dense": _spellings(
        written=f"{_PACKAGE}base.modules.dense.Dense",
        also=(
            f"{_PACKAGE}base.modules.Dense",
            f"{_DENSE}modules.Dense",
            f"{_PACKAGE}models.Dense",
            f"{_PACKAGE}models.Dense.Dense",
        ),
    ),
    "Normalize": _spellings(
        written=f"{_PACKAGE}base.modules.normalize.Normalize",
        also=(
            f"{_PACKAGE}base.modules.Normalize",
            f"{_DENSE}modules.Normalize",
            f"{_DENSE}modules.normalize.Normalize",
            f"{_PACKAGE}models.Normalize",
            f"{_PACKAGE}models.Normalize.Normalize",
        ),
    ),
    "Dropout": _spellings(
        written=f"{_DENSE}modules.dropout.Dropout",
        also=(f"{_DENSE}modules.Dropout", f"{_PACKAGE}models.Dropout", f"{_PACKAGE}models.Dropout.Dropout"),
    ),
}
"""The names of each class in files; the first is written."""
CLASS_NAMES: dict[str, str] = {name: kind for kind, names in SPELLINGS.items() for name in names}
"""Every name that is understood, and the class that it means."""

TRANSFORMERS = frozenset({"Transformer", "MLMTransformer"})
READ_TEXTS = TRANSFORMERS | {"SparseStaticEmbedding", "Router"}
"""Classes that a model may begin with."""
_POOL = frozenset({"Pooling", "SpladePooling"})


class ModuleEntry(NamedTuple):
    """One module of a model that has been checked."""

    kind: str
    """Name of its class."""
    folder: Path


def class_name_of(name: object, *, path: Path) -> str:
    """Return the name of the class that a type's name means.

    Args:
        name: What a file says.
        path: The file, for errors.

    Raises:
        ConfigError: If it is not in the table.
    """
    if not isinstance(name, str) or name not in CLASS_NAMES:
        hint = "Code that comes with a model is never run"
        raise ConfigError(
            f"unknown module type {name!r:.200}; there are {sorted(SPELLINGS)}", path=path, field="type", hint=hint
        )
    return CLASS_NAMES[name]


def read_entries(folder: Path) -> list[ModuleEntry]:
    """Read and check ``modules.json``; no file of a module is opened.

    Args:
        folder: The model's folder.

    Returns:
        The modules, the one that reads texts first.

    Raises:
        LoadError: If the file is missing, or is not what it claims to be.
    """
    path = folder / MODULES_FILE
    values = read_json(resolve_inside(folder, MODULES_FILE))
    if not isinstance(values, list) or not 0 < len(values) <= MAX_MODULES:
        raise ConfigError(f"must be a list of 1 to {MAX_MODULES} modules", path=path)
    entries = [_entry(index, value, folder, path) for index, value in enumerate(values)]
    _check_order([entry.kind for entry in entries], path)
    return entries


def _check_order(kinds: list[str], path: Path) -> None:
    """Check that the first module alone reads texts, and that something pools what a transformer makes of them."""
    if kinds[0] not in READ_TEXTS:
        raise ConfigError(f"the first module must read texts, a {kinds[0]} does not", path=path)
    for index, kind in enumerate(kinds[1:], start=1):
        if kind in TRANSFORMERS:
            raise ConfigError(f"a {kind} must be the first module, it is number {index}", path=path)
    if kinds[0] in TRANSFORMERS and _POOL.isdisjoint(kinds):
        raise ConfigError("a model that begins with a Transformer must have a Pooling or a SpladePooling", path=path)


def _entry(index: int, value: object, folder: Path, path: Path) -> ModuleEntry:
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
    kind = class_name_of(value.get("type"), path=path)
    name = value.get("path")
    if not isinstance(name, str):
        raise ConfigError(f"must be the name of a folder or empty, got {name!r:.80}", path=path, field="path")
    return ModuleEntry(kind, resolve_inside(folder, name) if name else folder)
