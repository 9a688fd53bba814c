"""The routes of a router as its file has them, and which of them a task takes. Knows modules by their names only."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparse_encoder.checkpoint import ConfigError, read_json_object, resolve_inside

MODALITY = "text"
"""What kind of input a call has unless it names another."""
Modality = str | tuple[str, ...] | None
RouteKey = tuple[str | None, Modality]

ROUTER_FILE = "router_config.json"
OLD_ROUTER_FILE = "config.json"
MAX_MODULES = 64
MAX_KEY_CHARACTERS = 500
_ROUTE_NAME = re.compile(r"[A-Za-z0-9_ -]{1,100}")


def check_route_name(name: object) -> None:
    """Check that a route's name can be part of a folder's.

    Raises:
        ValueError: If it cannot.
    """
    if not isinstance(name, str) or not _ROUTE_NAME.fullmatch(name):
        raise ValueError(f"the name of a route must be letters, digits, blanks, '_' or '-', got {name!r:.120}")


def sorted_key(key: RouteKey) -> RouteKey:
    """Return a key of ``route_mappings`` with several modalities in one order.

    Raises:
        ValueError: If it is not a pair of task and modality.
    """
    if not isinstance(key, tuple) or len(key) != 2:
        raise ValueError(f"a key of route_mappings must be (task, modality), got {key!r:.120}")
    task, modality = key
    several = isinstance(modality, tuple) and all(isinstance(name, str) for name in modality)
    if not isinstance(task, (str, type(None))) or not (several or isinstance(modality, (str, type(None)))):
        raise ValueError(f"task and modality of a key of route_mappings must be names or None, got {key!r:.120}")
    return task, tuple(sorted(modality)) if isinstance(modality, tuple) else modality


class RouterFile(NamedTuple):
    """What ``router_config.json`` says."""

    path: Path
    """The file."""
    types: dict[str, Any]
    """Type of each module by its name; Any: whatever the file has."""
    structure: dict[str, list[str]]
    """Names of the modules of each route, in order."""
    parameters: dict[str, Any]
    """Arguments of the router, ``route_mappings`` read; the others are not checked."""


def read_router_file(folder: Path) -> RouterFile:
    """Read ``router_config.json``, or its older name.

    Raises:
        ConfigError: If it is not what it claims to be.
    """
    path = folder / ROUTER_FILE
    if not path.exists():
        path = folder / OLD_ROUTER_FILE
    values = read_json_object(resolve_inside(folder, path.name))
    types, structure = _object(values, "types", path), _object(values, "structure", path)
    _check_structure(types, structure, path)
    parameters = dict(_object(values, "parameters", path))
    parameters["route_mappings"] = _read_mappings(parameters.get("route_mappings") or {}, path)
    return RouterFile(path, types, structure, parameters)


def choose_route(
    task: str | None,
    modality: Modality,
    *,
    routes: Collection[str],
    mappings: Mapping[RouteKey, str],
    default: str | None,
) -> str:
    """Return the route of a task.

    Args:
        task: Name of the task.
        modality: What kind of input it is.
        routes: Names of the routes.
        mappings: Routes by (task, modality), where ``None`` stands for any.
        default: Taken when no task is given.

    Raises:
        ValueError: If none is found; lists what there is.
    """
    task, modality = sorted_key((task, modality))
    for key in ((task, modality), (task, None), (None, modality), (None, None)):
        if key in mappings:
            return mappings[key]
    for name in (task, modality):
        if isinstance(name, str) and name in routes:
            return name
    if task is None and default is not None:
        return default
    raise ValueError(
        f"no route for task {task!r} and modality {modality!r}; "
        f"there are the routes {list(routes)}, mappings {dict(mappings)} "
        f"and the default {default!r}. In training, router_mapping gives each column its task"
    )


def _object(values: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = values.get(name)
    if not isinstance(value, dict):
        raise ConfigError(f"must be an object, got {value!r:.80}", path=path, field=name)
    return value


def _check_structure(types: Mapping[str, Any], structure: Mapping[str, Any], path: Path) -> None:
    """Check that routes are lists of the modules that have a type, and that each of those is used."""
    if not structure or len(types) > MAX_MODULES or len(structure) > MAX_MODULES:
        raise ConfigError(f"must have 1 to {MAX_MODULES} routes and modules", path=path, field="structure")
    used = set()
    for route, names in structure.items():
        if not isinstance(names, list) or not 0 < len(names) <= MAX_MODULES:
            raise ConfigError(f"route {route!r:.120} must be a list of modules", path=path, field="structure")
        for name in names:
            if not isinstance(name, str) or name not in types:
                raise ConfigError(f"route {route!r:.120} names {name!r:.120}, which has no type", path=path)
        used.update(names)
    if unused := sorted(set(types) - used):
        raise ConfigError(f"no route has {unused[:10]}", path=path, field="types")


def _read_mappings(values: object, path: Path) -> dict[RouteKey, str]:
    """Read ``route_mappings``, whose keys are tuples written as Python literals."""
    if not isinstance(values, dict) or len(values) > MAX_MODULES:
        raise ConfigError(f"must be an object of at most {MAX_MODULES}", path=path, field="route_mappings")
    mappings: dict[RouteKey, str] = {}
    for text, route in values.items():
        try:
            if len(text) > MAX_KEY_CHARACTERS:
                raise ValueError(f"a key must have at most {MAX_KEY_CHARACTERS} characters")
            mappings[sorted_key(ast.literal_eval(text))] = route
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as reason:
            hint = "A key is a tuple of task and modality, for example \"('query', None)\""
            message = f"cannot read {text[:100]!r}: {reason}"
            raise ConfigError(message, path=path, field="route_mappings", hint=hint) from reason
    return mappings
