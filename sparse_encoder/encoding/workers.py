"""Worker processes that each hold a copy of a torch model on one device. How they are kept is :mod:`.pool`'s."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.encode import EncodeSettings, encode_texts
from sparse_encoder.encoding.pool import (
    Job,
    Packed,
    ProcessPool,
    RemoteTracebackError,
    leave_interrupts_to_the_parent,
    portable,
    serve_jobs,
)
from sparse_encoder.encoding.sequence import ModuleSequence

__all__ = ["EncodeSettings", "RemoteTracebackError", "WorkerPool", "default_devices", "portable"]

logger = logging.getLogger(__name__)


class WorkerPool(ProcessPool[SparseEmbeddings]):
    """Worker processes with a torch model; made by :meth:`SparseEncoder.start_multi_process_pool`.

    Args:
        model: The model that each worker gets a copy of. It is not moved, and later changes of it do not arrive.
        devices: One device per worker; a device may come more than once.

    Raises:
        ValueError: If there are no devices.
    """

    def __init__(self, model: ModuleSequence, devices: Sequence[str]) -> None:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        threads = max(1, torch.get_num_threads() // max(1, list(devices).count("cpu")))
        super().__init__(devices, partial(_serve, model_bytes=buffer.getvalue(), threads=threads), _join)


def default_devices() -> list[str]:
    """List one device per worker: all CUDA devices, else all NPUs, else four times the CPU."""
    for kind in ("cuda", "npu"):
        accelerator = getattr(torch, kind, None)
        if accelerator is not None and accelerator.is_available():
            return [f"{kind}:{number}" for number in range(accelerator.device_count())]
    logger.info("no accelerator found: starting 4 workers on the CPU")
    return ["cpu"] * 4


def _serve(connection: Connection, device: str, *, model_bytes: bytes, threads: int) -> None:
    """Encode what comes through the pipe; the life of a worker."""
    leave_interrupts_to_the_parent()
    torch.set_num_threads(threads)

    def prepare() -> Callable[[Job], Packed]:
        # The bytes come from the parent process, not from a file.
        model: ModuleSequence = torch.load(io.BytesIO(model_bytes), map_location="cpu", weights_only=False)
        model.to(device)
        return lambda job: _pack(encode_texts(model, job.texts, job.settings, first_text=job.first_text).cpu())

    serve_jobs(connection, prepare)


def _join(parts: list[Packed]) -> SparseEmbeddings:
    """Put the rows of all jobs below each other, on the CPU."""
    return SparseEmbeddings.concatenate([_unpack(part) for part in parts])


def _pack(rows: SparseEmbeddings) -> Packed:
    """Take CSR rows apart into arrays."""
    shape = np.array(rows.shape, dtype=np.int64)
    return rows.crow_indices().numpy(), rows.col_indices().numpy(), rows.values().numpy(), shape


def _unpack(arrays: Packed) -> SparseEmbeddings:
    """Put CSR rows together again."""
    crow, col, values, shape = arrays
    return SparseEmbeddings(
        torch.from_numpy(crow), torch.from_numpy(col), torch.from_numpy(values), torch.Size(shape), validate=False
    )
