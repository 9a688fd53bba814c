"""The arguments of ``SparseEncoder`` and of its ``encode``, judged for a backend without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.encoding.inputs import check_positive
from sparse_encoder.similarity_names import SimilarityFunction


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelArguments:
    """What a caller says when a model is opened; ``SparseEncoder`` explains the names."""

    name: str
    device: object = None
    prompts: Mapping[str, str | None] | None = None
    default_prompt_name: str | None = None
    cache_folder: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    token: bool | str | None = None
    model_kwargs: Mapping[str, Any] | None = None
    """Options of the backend; Any: :class:`BackendOptions` has their types."""
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the tokenizer; Any: numbers and texts."""
    similarity_fn_name: str | SimilarityFunction | None = None
    max_active_dims: int | None = None

    def __post_init__(self) -> None:
        """Check the number; numpy's becomes Python's."""
        if self.max_active_dims is not None:
            object.__setattr__(self, "max_active_dims", check_positive("max_active_dims", self.max_active_dims))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedCall:
    """How one call encodes, and what it returns."""

    batch_size: int = 32
    prompt: str = ""
    task: str | None = None
    max_length: int | None = None
    max_active_dims: int | None = None
    as_tensor: bool | None = None
    """``None`` for rows of arrays, true for a torch tensor, false for a list of rows."""
    as_sparse: bool = True
    """Whether values stay sparse; dense ones are torch tensors."""

    def __post_init__(self) -> None:
        """Check the numbers, numpy's become Python's; and that torch is there if it is asked for."""
        object.__setattr__(self, "batch_size", check_positive("batch_size", self.batch_size))
        if self.max_active_dims is not None:
            object.__setattr__(self, "max_active_dims", check_positive("max_active_dims", self.max_active_dims))
        if self.as_tensor or not self.as_sparse:
            need_torch("convert_to_tensor=True" if self.as_tensor else "convert_to_sparse_tensor=False")

    def present(self, rows: ArrayEmbeddings, *, single: bool) -> Any:  # noqa: ANN401 - rows, a tensor, or a list
        """Bring rows into the form that was asked for."""
        form = rows[0] if single else rows
        in_list = self.as_tensor is False and not single
        if not self.as_sparse:
            return list(form.to_dense()) if in_list else form.to_dense()
        if self.as_tensor:
            return form.to_torch()
        return list(form) if in_list else form


def need_torch(what: str) -> None:
    """Check that torch is there.

    Raises:
        ImportError: If it is not; says what needs it.
    """
    try:
        import_module("torch")
    except ImportError as reason:
        raise ImportError(
            f"{what} gives tensors of torch, which is not installed: pip install torch, or leave it out for rows in "
            "numpy arrays, whose numpy() is dense"
        ) from reason
