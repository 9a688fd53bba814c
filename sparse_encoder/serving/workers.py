"""Worker processes that each hold a session of a served model. They need no torch.

Axes: N texts, V terms.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

from sparse_encoder.checkpoint.onnx_packages import quiet_options
from sparse_encoder.embeddings_arrays import ArrayEmbeddings, Arrays
from sparse_encoder.encoding.pool import Job, Packed, ProcessPool, leave_interrupts_to_the_parent, serve_jobs
from sparse_encoder.serving.batches import encode_texts
from sparse_encoder.serving.options import choose_providers, read_options
from sparse_encoder.serving.session import onnxruntime

if TYPE_CHECKING:
    from sparse_encoder.serving.encoder import OnnxSparseEncoder
    from sparse_encoder.serving.habits import Recipe

DEFAULT_WORKERS = 4
"""So many there are on the CPU, as of torch models."""


class ServedPool(ProcessPool[ArrayEmbeddings]):
    """Worker processes with a session each; made by :meth:`OnnxSparseEncoder.start_multi_process_pool`.

    Args:
        model: The model that each worker opens as it is now.
        devices: One device per worker; a device may come more than once. Workers on the CPU share its cores.

    Raises:
        ValueError: If there are no devices, onnxruntime has not one of them, or the model has ``session_options``.
    """

    def __init__(self, model: OnnxSparseEncoder, devices: Sequence[str]) -> None:
        recipe = model.recipe()
        options = read_options(recipe.arguments.model_kwargs)
        if options.session_options is not None:
            raise ValueError(
                "session_options in model_kwargs cannot be sent to worker processes; open the model without them"
            )
        for device in devices:
            choose_providers(onnxruntime(), options, device)
        own = replace(recipe.arguments, name=str(model.folder), local_files_only=True)
        threads = max(1, _num_cores() // max(1, list(devices).count("cpu")))
        serve = partial(_serve, recipe=recipe._replace(arguments=own), threads=threads)
        super().__init__(devices, serve, _join)


def default_devices(model: OnnxSparseEncoder) -> list[str]:
    """Return a device for each worker: that of the model if it is a GPU, else four times the CPU."""
    return [model.device] if model.device != "cpu" else ["cpu"] * DEFAULT_WORKERS


def _num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection, device: str, *, recipe: Recipe, threads: int) -> None:
    """Encode what comes through the pipe; the life of a worker."""
    leave_interrupts_to_the_parent()
    options = quiet_options(onnxruntime())
    if device == "cpu":
        options.intra_op_num_threads = threads
    kwargs = {**(recipe.arguments.model_kwargs or {}), "session_options": options}
    arguments = replace(recipe.arguments, device=device, model_kwargs=kwargs)
    model = recipe._replace(arguments=arguments).open()

    def encode(job: Job) -> Packed:
        rows = encode_texts(model.route(job.settings.task), job.texts, job.settings, on_done=int)
        starts, columns, values, dim = rows.arrays
        return starts, columns, values, np.array(dim)

    serve_jobs(connection, encode)


def _join(parts: list[Packed]) -> ArrayEmbeddings:
    """Put the rows of all jobs below each other, (N, V)."""
    rows = [ArrayEmbeddings(Arrays(starts, columns, values, int(dim))) for starts, columns, values, dim in parts]  # type: ignore[arg-type]
    return ArrayEmbeddings.concatenate(rows, rows[0].arrays.dim)
