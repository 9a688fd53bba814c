"""The closed table of module types: what ``modules.json`` and ``router_config.json`` may name, and nothing else.

Names are those of sentence-transformers, of every generation from 5.0 on; nothing is imported by name.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sparse_encoder.checkpoint import ConfigError
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

_PACKAGE = "sentence_transformers."
_SPARSE = f"{_PACKAGE}sparse_encoder."
_DENSE = f"{_PACKAGE}sentence_transformer."


def _spellings(*, written: str, also: tuple[str, ...]) -> tuple[str, ...]:
    return written, *also


_TYPES: dict[type[Module], tuple[str, ...]] = {
    Transformer: _spellings(
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
    MLMTransformer: (
        f"{_SPARSE}models.MLMTransformer",
        f"{_SPARSE}models.MLMTransformer.MLMTransformer",
        f"{_SPARSE}modules.mlm_transformer.MLMTransformer",
        f"{_SPARSE}modules.MLMTransformer",
    ),
    SpladePooling: _spellings(
        written=f"{_SPARSE}modules.splade_pooling.SpladePooling",
        also=(
            f"{_SPARSE}models.SpladePooling",
            f"{_SPARSE}models.SpladePooling.SpladePooling",
            f"{_SPARSE}modules.SpladePooling",
        ),
    ),
    SparseAutoEncoder: _spellings(
        written=f"{_SPARSE}modules.sparse_auto_encoder.SparseAutoEncoder",
        also=(
            f"{_SPARSE}models.SparseAutoEncoder",
            f"{_SPARSE}models.SparseAutoEncoder.SparseAutoEncoder",
            f"{_SPARSE}modules.SparseAutoEncoder",
            f"{_SPARSE}models.CSRSparsity",
            f"{_SPARSE}models.CSRSparsity.CSRSparsity",
        ),
    ),
    SparseStaticEmbedding: _spellings(
        written=f"{_SPARSE}modules.sparse_static_embedding.SparseStaticEmbedding",
        also=(
            f"{_SPARSE}models.SparseStaticEmbedding",
            f"{_SPARSE}models.SparseStaticEmbedding.SparseStaticEmbedding",
            f"{_SPARSE}modules.SparseStaticEmbedding",
            f"{_SPARSE}models.IDF",
            f"{_SPARSE}models.IDF.IDF",
        ),
    ),
    Router: _spellings(
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
    Pooling: _spellings(
        written=f"{_DENSE}modules.pooling.Pooling",
        also=(f"{_DENSE}modules.Pooling", f"{_PACKAGE}models.Pooling", f"{_PACKAGE}models.Pooling.Pooling"),
    ),
    Dense: _spellings(
        written=f"{_PACKAGE}base.modules.dense.Dense",
        also=(
            f"{_PACKAGE}base.modules.Dense",
            f"{_DENSE}modules.Dense",
            f"{_PACKAGE}models.Dense",
            f"{_PACKAGE}models.Dense.Dense",
        ),
    ),
    Normalize: _spellings(
        written=f"{_PACKAGE}base.modules.normalize.Normalize",
        also=(
            f"{_PACKAGE}base.modules.Normalize",
            f"{_DENSE}modules.Normalize",
            f"{_DENSE}modules.normalize.Normalize",
            f"{_PACKAGE}models.Normalize",
            f"{_PACKAGE}models.Normalize.Normalize",
        ),
    ),
    Dropout: _spellings(
        written=f"{_DENSE}modules.dropout.Dropout",
        also=(f"{_DENSE}modules.Dropout", f"{_PACKAGE}models.Dropout", f"{_PACKAGE}models.Dropout.Dropout"),
    ),
}

MODULE_TYPES: dict[str, type[Module]] = {name: kind for kind, names in _TYPES.items() for name in names}
"""Every name that is understood."""

_WRITTEN: dict[type[nn.Module], type[Module]] = {**{kind: kind for kind in _TYPES}, MLMTransformer: Transformer}
"""Under which class a module is saved."""


def module_class(name: object, *, path: Path) -> type[Module]:
    """Return the class of a type's name.

    Args:
        name: What a file says.
        path: The file, for errors.

    Raises:
        ConfigError: If it is not in the table.
    """
    if not isinstance(name, str) or name not in MODULE_TYPES:
        kinds = sorted({kind.__name__ for kind in _TYPES})
        hint = "Code that comes with a model is never run"
        raise ConfigError(f"unknown module type {name!r:.200}; there are {kinds}", path=path, field="type", hint=hint)
    return MODULE_TYPES[name]


def type_name(module: nn.Module) -> str:
    """Return the name under which a module is saved.

    Raises:
        TypeError: If it is none of the library's.
    """
    return _TYPES[_written(module)][0]


def folder_class_name(module: nn.Module) -> str:
    """Return the part of a folder's name that says what module is in it; raises as :func:`type_name`."""
    return _written(module).__name__


def _written(module: nn.Module) -> type[Module]:
    if type(module) not in _WRITTEN:
        kinds = sorted({kind.__name__ for kind in _TYPES})
        raise TypeError(f"a {type(module).__name__} cannot be saved: only modules of {kinds} could be loaded again")
    return _WRITTEN[type(module)]
