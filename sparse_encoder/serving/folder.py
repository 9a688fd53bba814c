"""A saved model's folder as a server sees it: its routes, their tokenizers, and what needs no graph. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sparse_encoder.checkpoint import ConfigError, read_json_object, resolve_inside
from sparse_encoder.module_entries import MODULES_FILE, TRANSFORMERS, ModuleEntry, class_name_of, read_entries
from sparse_encoder.routes import MODALITY, RouteKey, choose_route, read_router_file
from sparse_encoder.serving.pooling import LogitPooling
from sparse_encoder.serving.static_terms import read_static_weights
from sparse_encoder.serving.text_settings import TextSettings, read_text_settings
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.tokenizer_options import warn_of_remote_code

_STATIC, _ROUTER, _TRANSFORMER = "SparseStaticEmbedding", "Router", "Transformer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One way from texts to weights."""

    name: str | None
    """``None`` in a model without routes."""
    tokenizer: Tokenizer
    text: TextSettings
    """How texts are cut, apart from the tokenizer's own limit."""
    weights: NDArray[Any] | None = None
    """Weight of each term (V,), Any: a floating type, where there is no transformer; such a route needs no graph."""
    pooling: LogitPooling | None = None
    """How logits become weights, if the graph leaves that to others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """The routes of a model."""

    routes: Mapping[str | None, Route]
    """By name; a model without routes has one, ``None``."""
    mappings: Mapping[RouteKey, str] = field(default_factory=dict)
    default: str | None = None

    @property
    def has_routes(self) -> bool:
        """Whether the task of a call decides."""
        return None not in self.routes

    def route(self, task: str | None) -> Route:
        """Return the route of a task.

        Raises:
            ValueError: If there is none.
        """
        if not self.has_routes:
            return self.routes[None]
        names = [name for name in self.routes if name is not None]
        return self.routes[choose_route(task, MODALITY, routes=names, mappings=self.mappings, default=self.default)]


def read_folder(folder: Path, processor_kwargs: Mapping[str, Any]) -> ModelFolder:
    """Read what a folder says of its modules; weights are left alone but for those of single terms.

    Args:
        folder: A saved model, or a plain checkpoint.
        processor_kwargs: Options of the tokenizers; Any: a number or a text.

    Raises:
        LoadError: If a file is not what it claims to be.
    """
    warn_of_remote_code(processor_kwargs)
    entries = _read_modules(folder)
    first = entries[0]
    if first.kind != _ROUTER:
        return ModelFolder(routes={None: _read_route(None, entries, folder, processor_kwargs)})
    path, types, structure, parameters = read_router_file(first.folder)
    modules = {
        name: ModuleEntry(class_name_of(value, path=path), _module_folder(first.folder, name))
        for name, value in types.items()
    }
    routes: dict[str | None, Route] = {}
    for name, parts in structure.items():
        own = [modules[part] for part in parts]
        routes[name] = _read_route(name, [*own, *entries[1:]], folder, processor_kwargs)
    default = parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True):
        default = next(iter(structure))
    mappings: dict[RouteKey, str] = parameters["route_mappings"]
    if wrong := [route for route in (default, *mappings.values()) if route is not None and route not in structure]:
        raise ConfigError(f"{wrong[0]!r:.120} is no route, there are {sorted(structure)}", path=path)
    return ModelFolder(routes=routes, mappings=mappings, default=default)


def _read_modules(folder: Path) -> list[ModuleEntry]:
    """Read ``modules.json``; without it the folder is a checkpoint, which is pooled as SPLADE does."""
    return read_entries(folder) if (folder / MODULES_FILE).exists() else [ModuleEntry(_TRANSFORMER, folder)]


def _module_folder(router: Path, name: str) -> Path:
    """Return where a module of a router is: in its own folder, or beside others in the router's."""
    own = resolve_inside(router, name)
    return own if own.is_dir() else router


def _read_route(name: str | None, entries: list[ModuleEntry], root: Path, processor_kwargs: Mapping[str, Any]) -> Route:
    first, rest = entries[0], entries[1:]
    if first.kind not in (_STATIC, *TRANSFORMERS):
        raise ConfigError(f"a model must begin with a module that reads texts, a {first.kind} does not", path=root)
    tokenizer = Tokenizer.from_pretrained(first.folder)
    if first.kind == _STATIC:
        text = TextSettings(add_special_tokens=False).applied(tokenizer, processor_kwargs)
        if rest:
            kinds = [entry.kind for entry in rest]
            raise ConfigError(f"nothing may follow a {first.kind} for backend='onnx', there are {kinds}", path=root)
        weights = read_static_weights(first.folder, root, tokenizer)
        return Route(name=name, tokenizer=tokenizer, text=text, weights=weights)
    settings = read_text_settings(first.folder)
    text = settings.applied(tokenizer, processor_kwargs)
    return Route(name=name, tokenizer=text.cased(tokenizer), text=text, pooling=_read_pooling(rest))


def _read_pooling(entries: list[ModuleEntry]) -> LogitPooling | None:
    """Return how a SPLADE model pools logits; ``None`` if something else follows its transformer."""
    if not entries:
        return LogitPooling()
    if [entry.kind for entry in entries] != ["SpladePooling"]:
        return None
    path = resolve_inside(entries[0].folder, "config.json")
    values = read_json_object(path) if path.exists() else {}
    try:
        return LogitPooling(
            strategy=values.get("pooling_strategy", "max"), activation=values.get("activation_function", "relu")
        )
    except ValueError as reason:
        raise ConfigError(str(reason), path=path) from reason
