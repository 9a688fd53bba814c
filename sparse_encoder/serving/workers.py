"""Worker processes that each hold a session of a served model. They need no torch.

Axes: N texts, V terms.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

from sparse_encoder.checkpoint.onnx_packages import quiet_options
from sparse_encoder.embeddings_arrays import ArrayEmbeddings, Arrays
from sparse_encoder.encoding.pool import Job, Packed, ProcessPool, leave_interrupts_to_the_parent, serve_jobs
from sparse_encoder.serving.batches import encode_texts
from sparse_encoder.serving.options import BackendOptions, choose_providers, read_options, same_device
from sparse_encoder.serving.session import onnxruntime

if TYPE_CHECKING:
    from sparse_encoder.serving.encoder import OnnxSparseEncoder
    from sparse_encoder.serving.habits import Recipe

DEFAULT_WORKERS = 4
"""So many there are on the CPU, as of torch models."""


class ServedPool(ProcessPool[ArrayEmbeddings]):
    """Worker processes with a session each; made by :meth:`OnnxSparseEncoder.start_multi_process_pool`.

    Args:
        model: The model that each worker opens as it is now. It stays until the pool is stopped, and so do graphs that
            were exported when it was opened.
        devices: One device per worker; a device may come more than once. Workers on the CPU share its cores.

    Raises:
        ValueError: If there are no devices, onnxruntime has not one of them, or the model has ``session_options``.
        FileNotFoundError: If the graphs that were exported for the model are gone.
    """

    def __init__(self, model: OnnxSparseEncoder, devices: Sequence[str]) -> None:
        recipe = model.recipe()
        options = read_options(recipe.arguments.model_kwargs)
        if options.session_options is not None:
            raise ValueError(
                "session_options in model_kwargs cannot be sent to worker processes; open the model without them"
            )
        for device in devices:
            choose_providers(onnxruntime(), options, _asked(options, device, model.device))
        _check_graphs(recipe)
        paths = [route.session.path for route in model.routes.values() if route.session is not None]
        if gone := [path for path in paths if not path.exists()]:
            raise FileNotFoundError(f"{gone[0]} is gone, which workers would open; open the model again")
        kwargs = {**(recipe.arguments.model_kwargs or {}), "export": False}
        own = replace(recipe.arguments, name=str(model.folder), local_files_only=True, model_kwargs=kwargs)
        threads = max(1, _num_cores() // max(1, list(devices).count("cpu")))
        serve = partial(_serve, recipe=recipe._replace(arguments=own), own=model.device, threads=threads)
        self._model: OnnxSparseEncoder | None = model  # with it, its graphs
        super().__init__(devices, serve, _join)

    def serves(self, model: OnnxSparseEncoder) -> bool:
        """Say whether the workers have this model, or one of the same files; a stopped pool has none to differ."""
        return self._model is None or self._model is model or self._model.fingerprint == model.fingerprint

    def stop(self) -> None:
        """End all workers, and let go of the model. A second call does nothing."""
        super().stop()
        self._model = None


def default_devices(model: OnnxSparseEncoder) -> list[str]:
    """Return a device for each worker: that of the model if it is a GPU, else four times the CPU."""
    return [model.device] if model.device != "cpu" else ["cpu"] * DEFAULT_WORKERS


def _asked(options: BackendOptions, device: str, own: str) -> str | None:
    """Return the device to ask for; none where it is the model's and the options say what runs there."""
    return None if options.names_providers and same_device(device, own) else device


def _check_graphs(recipe: Recipe) -> None:
    """Check that the graphs that were exported when the model was opened are there still: no worker makes its own.

    Raises:
        FileNotFoundError: If they are not.
    """
    if recipe.graphs is not None and not recipe.graphs.is_dir():
        raise FileNotFoundError(
            f"the graphs of this model were exported into {recipe.graphs} when it was opened, and are gone; keep the "
            "model that made them, or write them with its save_pretrained(folder) and open that folder"
        )


def _num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection, device: str, *, recipe: Recipe, own: str, threads: int) -> None:
    """Encode what comes through the pipe; the life of a worker."""
    leave_interrupts_to_the_parent()
    serve_jobs(connection, partial(_prepare, device, recipe, own, threads))


def _prepare(device: str, recipe: Recipe, own: str, threads: int) -> Callable[[Job], Packed]:
    """Open the model on a device, with the graphs that are there, and return what does one job."""
    options = quiet_options(onnxruntime())
    if device == "cpu":
        options.intra_op_num_threads = threads
    kwargs = {**(recipe.arguments.model_kwargs or {}), "session_options": options}
    asked = _asked(read_options(kwargs), device, own)
    _check_graphs(recipe)
    model = recipe._replace(arguments=replace(recipe.arguments, device=asked, model_kwargs=kwargs)).open()

    def encode(job: Job) -> Packed:
        route = model.route(job.settings.task)
        rows = encode_texts(route, job.texts, job.settings, on_done=int, first_text=job.first_text)
        starts, columns, values, dim = rows.arrays
        return starts, columns, values, np.array(dim)

    return encode


def _join(parts: list[Packed]) -> ArrayEmbeddings:
    """Put the rows of all jobs below each other, (N, V)."""
    rows = [ArrayEmbeddings(Arrays(starts, columns, values, int(dim))) for starts, columns, values, dim in parts]  # type: ignore[arg-type]
    return ArrayEmbeddings.concatenate(rows, rows[0].arrays.dim)
