"""One call of ``encode``: where it runs, its progress bar, and the form of what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.encode import EncodeSettings, encode_texts
from sparse_encoder.encoding.inputs import Inputs, check_positive
from sparse_encoder.encoding.progress import progress
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.encoding.workers import WorkerPool

Encoded = SparseEmbeddings | Tensor | list[SparseEmbeddings] | list[Tensor]
"""What a call returns: rows of CSR, a tensor, or a list of rows of one of the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeCall:
    """Where a call runs and what it returns."""

    settings: EncodeSettings
    """How the texts are encoded."""
    device: str | torch.device | Sequence[str | torch.device] | None = None
    """One device, several for as many temporary workers, or ``None`` for where the model is."""
    pool: WorkerPool | None = None
    """Workers to use instead."""
    chunk_size: int | None = None
    """Texts per job of a worker."""
    show_progress_bar: bool | None = None
    """``None`` shows it when the library's logger tells INFO or DEBUG."""
    convert_to_tensor: bool | None = None
    """``None`` for :class:`SparseEmbeddings`, true for a torch tensor, false for a list of rows."""
    convert_to_sparse_tensor: bool = True
    """Whether the values stay sparse."""

    def __post_init__(self) -> None:
        """Check the number of texts and where they go."""
        if self.chunk_size is not None:
            object.__setattr__(self, "chunk_size", check_positive("chunk_size", self.chunk_size))
        if self.pool is not None and not isinstance(self.pool, WorkerPool):
            raise TypeError(f"pool must come from start_multi_process_pool, got {type(self.pool).__name__}")


def run_call(model: ModuleSequence, inputs: Inputs, call: EncodeCall) -> Encoded:
    """Encode the inputs of a call.

    Args:
        model: The modules.
        inputs: The texts.
        call: Where and how.

    Returns:
        Embeddings in the form asked for, in the order of the texts; without the first axis for a single text. No texts
        give (0, V); in sentence-transformers (0,).
    """
    if inputs.texts:
        with progress(len(inputs.texts), call.show_progress_bar) as on_done:
            rows = _rows(model, inputs.texts, call, on_done)
    else:
        rows = SparseEmbeddings.empty(model.get_embedding_dimension() or 0).to(device=model.device)
    return _present(rows, single=inputs.single, call=call)


def _rows(
    model: ModuleSequence, texts: Sequence[str], call: EncodeCall, on_done: Callable[[int], object]
) -> SparseEmbeddings:
    """Encode texts here, or in workers."""
    if call.pool is not None:
        return call.pool.encode(texts, call.settings, chunk_size=call.chunk_size, on_done=on_done)
    if isinstance(call.device, Sequence) and not isinstance(call.device, str):
        with WorkerPool(model, [str(device) for device in call.device]) as pool:
            return pool.encode(texts, call.settings, chunk_size=call.chunk_size, on_done=on_done)
    if call.device is not None:
        model.to(call.device)
    return encode_texts(model, texts, call.settings, on_done=on_done)


def _present(rows: SparseEmbeddings, *, single: bool, call: EncodeCall) -> Encoded:
    """Bring rows into the form that the caller asked for."""
    form: SparseEmbeddings = rows[0] if single else rows
    in_list = call.convert_to_tensor is False and not single
    if not call.convert_to_sparse_tensor:
        return list(form.to_dense()) if in_list else form.to_dense()
    if call.convert_to_tensor:
        return form.to_torch(layout=torch.sparse_coo)
    return list(form) if in_list else form
