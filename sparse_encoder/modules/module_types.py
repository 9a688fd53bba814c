"""The class of each module type that ``modules.json`` and ``router_config.json`` may name, and nothing else."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sparse_encoder.module_entries import CLASS_NAMES, SPELLINGS, class_name_of
from sparse_encoder.modules.base import Module
from sparse_encoder.modules.dense import Dense
from sparse_encoder.modules.dropout import Dropout
from sparse_encoder.modules.normalize import Normalize
from sparse_encoder.modules.pooling import Pooling
from sparse_encoder.modules.router import Router
from sparse_encoder.modules.sparse_auto_encoder import SparseAutoEncoder
from sparse_encoder.modules.sparse_static_embedding import SparseStaticEmbedding
from sparse_encoder.modules.splade_pooling import SpladePooling
from sparse_encoder.modules.transformer import MLMTransformer, Transformer

MODULE_CLASSES: dict[str, type[Module]] = {
    kind.__name__: kind
    for kind in (
        Transformer,
        MLMTransformer,
        SpladePooling,
        SparseAutoEncoder,
        SparseStaticEmbedding,
        Router,
        Pooling,
        Dense,
        Normalize,
        Dropout,
    )
}
"""By the names that :data:`SPELLINGS` has for them."""

MODULE_TYPES: dict[str, type[Module]] = {name: MODULE_CLASSES[kind] for name, kind in CLASS_NAMES.items()}
"""Every name that is understood."""

_WRITTEN: dict[type[nn.Module], type[Module]] = {
    **{kind: kind for kind in MODULE_CLASSES.values()},
    MLMTransformer: Transformer,
}
"""Under which class a module is saved."""


def module_class(name: object, *, path: Path) -> type[Module]:
    """Return the class of a type's name.

    Args:
        name: What a file says.
        path: The file, for errors.

    Raises:
        ConfigError: If it is not in the table.
    """
    return MODULE_CLASSES[class_name_of(name, path=path)]


def type_name(module: nn.Module) -> str:
    """Return the name under which a module is saved.

    Raises:
        TypeError: If it is none of the library's.
    """
    return SPELLINGS[_written(module).__name__][0]


def folder_class_name(module: nn.Module) -> str:
    """Return the part of a folder's name that says what module is in it; raises as :func:`type_name`."""
    return _written(module).__name__


def _written(module: nn.Module) -> type[Module]:
    if type(module) not in _WRITTEN:
        kinds = sorted(MODULE_CLASSES)
        raise TypeError(f"a {type(module).__name__} cannot be saved: only modules of {kinds} could be loaded again")
    return _WRITTEN[type(module)]
