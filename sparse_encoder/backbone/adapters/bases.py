"""Which model an adapter stands on, and which name of one that a file says is followed.

A file decides over no folder but its own: what it names is taken for a repository of the hub, or lies beside it. Any
other base is opened only if the caller names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.adapters.files import CONFIG_FILE, has_adapter
from sparse_encoder.checkpoint import ConfigError, resolve_inside

Vouched = str | Path | Mapping[str, Path] | None
"""What a caller says of bases: one that is taken whatever a file names; or those that files may name, and where they
are, of which a single one is taken for any name."""

_FIELD = "base_model_name_or_path"
_MODEL = "config.json"
_HINT = (
    "Load the base yourself and call load_adapter(folder) on it, or name it: base_model=... of from_pretrained, "
    'model_kwargs={"base_model": ...} of SparseEncoder'
)


@dataclass(frozen=True, slots=True)
class BaseSource:
    """Where a model came from."""

    name: str | None
    """Folder or repository; None if no single name leads there, as to a folder of a repository."""
    folder: Path
    """Where its files are, also if they were downloaded."""
    commit: str | None = None
    """The commit of its repository."""


class NamedBase(NamedTuple):
    """A model to be opened."""

    name: str
    revision: str | None = None
    is_repository: bool = False
    """Whether it is no folder, even if one of this name is there."""


def on_base(config: LoraConfig, source: BaseSource | None) -> LoraConfig:
    """Return a config that names as its base where a model came from, if that has a name."""
    if source is None or source.name is None:
        return config
    return replace(config, base_model_name_or_path=source.name, revision=source.commit)


def base_to_open(folder: Path, config: LoraConfig, vouched: Vouched = None) -> NamedBase | None:
    """Return the model that an adapter's file names as its base; None for the one beside it.

    Args:
        folder: Of the adapter.
        config: Of the adapter.
        vouched: What the caller says of bases.

    Raises:
        ConfigError: If the file names a folder outside its own, or no model is beside the adapter though it should.
    """
    named, path = config.base_model_name_or_path, folder / CONFIG_FILE
    if isinstance(vouched, (str, Path)):
        return NamedBase(str(vouched))
    inside = "" if named is None else _inside(folder, named)
    if inside == "":
        if not (folder / _MODEL).exists():
            told = "the adapter names no base" if named is None else f"the adapter names its own folder, {named!r}"
            raise ConfigError(f"{told}, and no model is beside it", path=path, field=_FIELD, hint=_HINT)
        return None
    assert named is not None
    if vouched and (named in vouched or len(set(vouched.values())) == 1):
        return NamedBase(str(vouched[named] if named in vouched else next(iter(vouched.values()))))
    if inside is not None:
        return NamedBase(str(resolve_inside(folder, inside)))
    if not _is_repository(named):
        raise ConfigError(
            f"names a folder outside the adapter's, {named!r:.200}, which no file may",
            path=path,
            field=_FIELD,
            hint=_HINT,
        )
    return NamedBase(named, config.revision, is_repository=True)


def _inside(folder: Path, named: str) -> str | None:
    """Return where in an adapter's folder a name leads, empty for the folder itself; None if it does not."""
    for root in (os.path.abspath(folder), os.path.realpath(folder)):
        if named == root or named.startswith(root + os.sep):
            return named[len(root) + 1 :]
    return named[2:] if named in (".", "./") or named.startswith("./") else None


def _is_repository(named: str) -> bool:
    """Say whether a name can be that of a repository and is none of a path."""
    windows = PureWindowsPath(named)
    is_path = named.startswith(("/", ".", "~")) or windows.drive or windows.root or "\\" in named
    return bool(named.strip()) and not is_path and named.count("/") <= 1 and ".." not in named


def check_base(folder: Path, base: Path) -> None:
    """Refuse a base that is an adapter itself, whose own base would be forgotten.

    Args:
        folder: Of the adapter.
        base: Folder of its base.

    Raises:
        ConfigError: If it holds an adapter.
    """
    if has_adapter(base):
        raise ConfigError(
            f"the base of the adapter, {str(base)!r}, is an adapter itself; adapters do not stand on each other",
            path=folder / CONFIG_FILE,
            field=_FIELD,
            hint="Load that one, call merge_and_unload(), save it, and name what was saved",
        )
