"""Imports run one way between the rooms, and what is slow to import is imported late."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
MAPPED = ("evaluation", "losses", "samplers")
PEERS = {"sentence_transformers", "transformers"}

ROOMS = {
    "aliases": {
        "backend",
        "base",
        "callbacks",
        "data_collator",
        "models",
        "sampler",
        "similarity_functions",
        "trainer",
        "training_args",
    },
    "tokenizer": {
        "module_entries",
        "renamed",
        "routes",
        "term_weights",
        "token_batch",
        "token_batches",
        "token_rows",
        "tokenizer",
        "tokenizer_build",
        "tokenizer_call",
        "tokenizer_check",
        "tokenizer_decoding",
        "tokenizer_ends",
        "tokenizer_engine",
        "tokenizer_files",
        "tokenizer_growth",
        "tokenizer_options",
        "tokenizer_publishing",
        "tokenizer_vocabulary",
        "tokenizer_windows",
        "tokenizer_words",
    },
    "embeddings": {"csr", "embeddings", "embeddings_arrays", "embeddings_torch", "embeddings_vocabulary"},
    "similarity": {"similarity", "similarity_names"},
    "model": {
        "comparing",
        "loading",
        "model",
        "model_card",
        "model_card_base",
        "model_card_classes",
        "model_card_columns",
        "model_card_datasets",
        "model_card_losses",
        "model_card_markdown",
        "model_card_results",
        "model_card_sections",
        "model_card_usage",
        "onnx_methods",
        "publishing",
        "settings",
    },
}
"""Rooms of several files; every other room is the folder or file it is named after."""

BELOW = {
    "checkpoint": set(),
    "kernels": set(),
    "samplers": set(),
    "backbone": {"checkpoint"},
    "tokenizer": {"checkpoint"},
    "embeddings": {"checkpoint"},
    "similarity": {"embeddings"},
    "losses": {"similarity"},
    "search": {"checkpoint", "embeddings", "similarity"},
    "evaluation": {"checkpoint", "embeddings", "search", "similarity"},
    "modules": {"backbone", "checkpoint", "kernels", "tokenizer"},
    "encoding": {"backbone", "embeddings", "modules", "similarity", "tokenizer"},
    "front": set(),
    "model": {"backbone", "checkpoint", "embeddings", "encoding", "front", "modules", "similarity", "tokenizer"},
    "util": {"embeddings", "encoding", "similarity"},
}
"""What each room may import besides itself; a room that is not here does not exist."""
BELOW["training"] = {*BELOW["model"], "evaluation", "losses", "model", "samplers", "search"}
BELOW["token_classification"] = {"backbone", "checkpoint", "tokenizer"}
BELOW["generation"] = {"backbone", "checkpoint", "tokenizer"}
BELOW["export"] = {*BELOW["model"], "generation", "kernels", "model", "token_classification"}
BELOW["serving"] = {*BELOW["export"], "evaluation", "export", "search"}
BELOW["aliases"] = {"evaluation", "modules", "samplers", "serving", "similarity", "training"}
BELOW["cli"] = {*BELOW, "training"}

TYPES_ONLY = {"evaluation": {"model"}, "losses": {"model"}, "model": {"evaluation", "export"}}
"""What a room may name in annotations and not load."""

LATE = {"front": {"model", "serving"}, "model": {"export"}}
"""What a room may import in functions only."""

AT_LOAD = {"numpy", "packaging", "safetensors", "scipy", "tokenizers", "torch", "tqdm"}
"""What any file may import while it is loaded, besides the standard library."""
ALSO_AT_LOAD = {"training": {"accelerate", "datasets"}}


class Import(NamedTuple):
    """One name that a file imports."""

    file: str
    module: str
    line: int
    types_only: bool
    at_load: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def sources() -> dict[str, Path]:
    """Return the files of the library by the name they are imported under."""
    files = {}
    for folder in ("sparse_encoder", *MAPPED):
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if relative.parts[0] == "sparse_encoder" and relative.parts[1] in MAPPED:
                continue  # a link, or its copy: each file once
            parts = relative.with_suffix("").parts
            parts = parts if parts[0] == "sparse_encoder" else ("sparse_encoder", *parts)
            files[".".join(parts).removesuffix(".__init__")] = path
    return files


SOURCES = sources()


def imports_of(module: str) -> Iterator[Import]:
    """Yield what a file imports, each name once, under the module it comes from."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    typed = {inner for node in guards for part in node.body for inner in ast.walk(part)}
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    late = {inner for node in functions for inner in ast.walk(node)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in SOURCES else str(node.module) for name in full]
        for name in names:
            yield Import(module, name, node.lineno, node in typed, node not in typed and node not in late)


def room_of(module: str) -> str:
    """Return the room of a module; the package's own ``__init__`` is the room ``""``."""
    name = module.split(".")[1] if "." in module else ""
    return next((room for room, files in ROOMS.items() if name in files), name)


def test_every_file_has_a_room() -> None:
    rooms = {module: room_of(module) for module in SOURCES}
    assert {module: room for module, room in rooms.items() if room not in BELOW and room} == {}
    assert set(rooms.values()) == {"", *BELOW}


def test_the_rooms_are_ordered() -> None:
    order = list(graphlib.TopologicalSorter(BELOW).static_order())
    assert set(order) == set(BELOW)


@pytest.mark.parametrize("room", sorted(BELOW))
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    strays = []
    for module in SOURCES:
        if room_of(module) == room:
            for found in imports_of(module):
                if found.module.partition(".")[0] == "sparse_encoder":
                    target = room_of(found.module)
                    allowed = BELOW[room] | {room, ""} | (TYPES_ONLY.get(room, set()) if found.types_only else set())
                    allowed |= set() if found.at_load else LATE.get(room, set())
                    strays += [str(found)] if target not in allowed else []
    assert strays == []


@pytest.mark.parametrize("room", ["search", "evaluation", "samplers", "losses"])
def test_nothing_a_trainer_uses_knows_the_trainer(room: str) -> None:
    assert "training" not in BELOW[room] | TYPES_ONLY.get(room, set())
    assert "cli" not in BELOW[room]


def test_the_package_itself_loads_nothing() -> None:
    loaded = [found for found in imports_of("sparse_encoder") if found.at_load]
    assert {found.module for found in loaded} <= {"__future__", "importlib", "sys", "typing"}


def test_no_file_imports_one_that_imports_it() -> None:
    graph = {
        module: {found.module for found in imports_of(module) if found.at_load and found.module in SOURCES} - {module}
        for module in SOURCES
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the files
    assert set(order) == set(SOURCES)


def test_the_peers_are_never_imported() -> None:
    strays = [str(found) for module in SOURCES for found in imports_of(module) if found.module.split(".")[0] in PEERS]
    assert strays == []


def test_what_is_slow_is_imported_where_it_is_used() -> None:
    strays = []
    for module in SOURCES:
        allowed = AT_LOAD | ALSO_AT_LOAD.get(room_of(module), set()) | sys.stdlib_module_names | {"sparse_encoder"}
        strays += [str(f) for f in imports_of(module) if f.at_load and f.module.split(".")[0] not in allowed]
    assert strays == []
