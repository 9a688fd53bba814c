"""Worker processes that each hold a copy of the model on one device.

Workers are spawned. Each has a pipe of its own and at most one job, so nothing can lock up; whoever waits for a reply
also waits for the end of the process, so a killed worker is noticed at once. Texts go out and CSR arrays come back.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.encode import EncodeSettings, encode_texts
from sparse_encoder.encoding.sequence import ModuleSequence

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""How long an idle worker may take to end by itself before it is terminated."""


@dataclass(frozen=True, slots=True)
class Job:
    """Texts of one worker at a time."""

    run: int
    """Which call of :meth:`WorkerPool.encode` it belongs to: replies to a call that failed are dropped by it."""
    index: int
    """Which piece of that call's texts it is."""
    texts: list[str]
    """The texts of the piece."""
    settings: EncodeSettings
    """How to encode them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker sends back: rows, or an error."""

    run: int
    index: int
    rows: tuple[NDArray[np.generic], ...] | None = None
    """Row ends, columns and values: numpy arrays, because tensors would travel through shared memory."""
    error: Exception | None = None
    report: str = ""
    """The worker's own traceback, as text."""


@dataclass(slots=True)
class Worker:
    """One process, as its parent sees it."""

    process: SpawnProcess
    connection: Connection
    device: str
    ready: bool = False
    """Whether it can take a job: it is up, and it has answered the last one."""


class RemoteTracebackError(RuntimeError):
    """Carry the traceback of an error in a worker, as the cause of the error that is raised again in the parent."""


class WorkerPool(Mapping[str, list[Any]]):  # the values are processes or connections
    """Worker processes; made by :meth:`SparseEncoder.start_multi_process_pool`.

    It answers the keys ``"input"``, ``"output"`` and ``"processes"`` of the pool of sentence-transformers.

    Args:
        model: The model that each worker gets a copy of. It is not moved, and later changes of it do not arrive.
        devices: One device per worker; a device may come more than once.

    Raises:
        ValueError: If there are no devices.
    """

    def __init__(self, model: ModuleSequence, devices: Sequence[str]) -> None:
        if not devices:
            raise ValueError("a pool needs at least one device, got none")
        buffer = io.BytesIO()
        torch.save(model, buffer)
        context = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // max(1, list(devices).count("cpu")))
        self._runs = 0
        self._workers: list[Worker] = []
        for device in devices:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, buffer.getvalue(), device, threads), daemon=True)
            process.start()
            theirs.close()  # or the end of the worker would not end the pipe
            self._workers.append(Worker(process, ours, device))

    def __getitem__(self, key: str) -> list[Any]:
        """Return the connections or the processes."""
        if key in ("input", "output"):
            return [worker.connection for worker in self._workers]
        if key == "processes":
            return [worker.process for worker in self._workers]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys."""
        return iter(("input", "output", "processes"))

    def __len__(self) -> int:
        """Return the number of keys."""
        return 3

    def __enter__(self) -> WorkerPool:
        """Return the pool; leaving the block stops it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the workers, also in the middle of a job."""
        self.stop()

    def encode(
        self,
        texts: Sequence[str],
        settings: EncodeSettings,
        *,
        chunk_size: int | None = None,
        on_done: Callable[[int], object] = int,
    ) -> SparseEmbeddings:
        """Encode texts, a chunk at a time per worker.

        Args:
            texts: At least one text.
            settings: How to encode them.
            chunk_size: Texts per job; by default a tenth of a worker's share, at most 5000.
            on_done: Called with the number of texts of each finished job.

        Returns:
            CSR rows on the CPU, in the order of the texts.

        Raises:
            RuntimeError: If a worker has ended, or the pool was stopped.
            Exception: Whatever an encode call raises, raised again here with the worker's traceback as its cause.
        """
        if not self._workers:
            raise RuntimeError("the pool was stopped; start another one")
        size = chunk_size or max(1, min(-(-len(texts) // (10 * len(self._workers))), 5000))
        self._runs += 1
        starts = range(0, len(texts), size)
        todo = [Job(self._runs, at, list(texts[start : start + size]), settings) for at, start in enumerate(starts)]
        done: dict[int, SparseEmbeddings] = {}
        waiting = todo[::-1]
        while len(done) < len(todo):
            for worker in self._workers:
                if waiting and worker.ready:
                    self._send(worker, waiting.pop())
            for reply in self._replies():
                if reply.run != self._runs:
                    continue
                if reply.error is not None:
                    raise reply.error from RemoteTracebackError(f"in a worker process:\n{reply.report}")
                if reply.rows is not None:
                    done[reply.index] = _unpack(reply.rows)
                    on_done(len(todo[reply.index].texts))
        return SparseEmbeddings.concatenate([done[index] for index in range(len(todo))])

    def _send(self, worker: Worker, job: Job) -> None:
        worker.ready = False
        try:
            worker.connection.send(job)
        except OSError as error:
            raise self._ended(worker) from error
        except BaseException:  # interrupted half-way: what is in the pipe is of no use any more
            worker.process.terminate()
            raise

    def _replies(self) -> Iterator[Reply]:
        """Wait until at least one worker says something, or ends."""
        by_handle: dict[object, Worker] = {worker.connection: worker for worker in self._workers}
        by_handle |= {worker.process.sentinel: worker for worker in self._workers}
        spoke = wait(list(by_handle))  # type: ignore[arg-type]  # connections and sentinels, which are integers
        for worker in self._workers:
            if worker.connection in spoke:
                try:
                    reply = worker.connection.recv()
                except (EOFError, OSError) as error:
                    raise self._ended(worker) from error
                except BaseException:  # interrupted half-way: what is in the pipe is of no use any more
                    worker.process.terminate()
                    raise
                worker.ready = True
                yield reply
            elif worker.process.sentinel in spoke:
                raise self._ended(worker)

    def _ended(self, worker: Worker) -> RuntimeError:
        """Say that a worker is gone."""
        worker.process.join(STOP_SECONDS)
        return RuntimeError(
            f"worker process {worker.process.pid} on {worker.device} ended with exit code {worker.process.exitcode}. "
            "A negative code is a signal: -9 usually means that memory ran out. A script that starts workers must run "
            'under `if __name__ == "__main__":`'
        )

    def stop(self) -> None:
        """End all workers; one that is busy is terminated. A second call does nothing."""
        for worker in self._workers:
            if not worker.ready:
                worker.process.terminate()
            worker.connection.close()  # an idle worker ends by itself when its pipe does
        for worker in self._workers:
            worker.process.join(STOP_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def default_devices() -> list[str]:
    """List one device per worker: all CUDA devices, else all NPUs, else four times the CPU."""
    for kind in ("cuda", "npu"):
        accelerator = getattr(torch, kind, None)
        if accelerator is not None and accelerator.is_available():
            return [f"{kind}:{number}" for number in range(accelerator.device_count())]
    logger.info("no accelerator found: starting 4 workers on the CPU")
    return ["cpu"] * 4


def _serve(connection: Connection, model_bytes: bytes, device: str, threads: int) -> None:
    """Encode what comes through the pipe until the pipe ends; the life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops its workers
    torch.set_num_threads(threads)
    # The bytes come from the parent process, not from a file.
    model: ModuleSequence = torch.load(io.BytesIO(model_bytes), map_location="cpu", weights_only=False)
    model.to(device)
    try:
        connection.send(Reply(0, 0))
        while True:
            job: Job = connection.recv()
            connection.send(_answer(model, job))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _answer(model: ModuleSequence, job: Job) -> Reply:
    """Do one job; an error becomes part of the reply."""
    try:
        rows = encode_texts(model, job.texts, job.settings).cpu()
    except Exception as error:  # whatever it is, it is the parent's, which raises it again
        return Reply(job.run, job.index, error=portable(error), report=traceback.format_exc())
    return Reply(job.run, job.index, rows=_pack(rows))


def _pack(rows: SparseEmbeddings) -> tuple[NDArray[np.generic], ...]:
    """Take CSR rows apart into arrays."""
    shape = np.array(rows.shape, dtype=np.int64)
    return rows.crow_indices().numpy(), rows.col_indices().numpy(), rows.values().numpy(), shape


def _unpack(arrays: tuple[NDArray[np.generic], ...]) -> SparseEmbeddings:
    """Put CSR rows together again."""
    crow, col, values, shape = arrays
    return SparseEmbeddings(
        torch.from_numpy(crow), torch.from_numpy(col), torch.from_numpy(values), torch.Size(shape), validate=False
    )


def portable(error: Exception) -> Exception:
    """Return the error if it survives the way through the pipe, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as reason:  # an error's own code runs here, so anything may come
        return RuntimeError(f"{type(error).__name__}: {error} (it could not be sent as it is: {reason!r})")
    return error
