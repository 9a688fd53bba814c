"""Worker processes that each hold a model and encode texts; whichever model that is. Needs no torch.

Workers are spawned. Each has a pipe of its own and at most one job, so nothing can lock up; whoever waits for a reply
also waits for the end of the process, so a killed worker is noticed at once. Texts go out and numpy arrays come back.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

STOP_SECONDS = 5.0
"""How long an idle worker may take to end by itself before it is terminated."""

Packed = tuple[NDArray[np.generic], ...]
"""Rows on their way through a pipe."""
RowsT = TypeVar("RowsT")


@dataclass(frozen=True, slots=True)
class Job:
    """Texts of one worker at a time."""

    run: int
    """Which call of :meth:`WorkerPool.encode` it belongs to: replies to a call that failed are dropped by it."""
    index: int
    """Which piece of that call's texts it is."""
    texts: list[str]
    """The texts of the piece."""
    settings: Any  # of the model's kind
    """How to encode them."""
    first_text: int = 0
    """Position of the first of them among the call's texts, for errors that name a text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker sends back: rows, or an error."""

    run: int
    index: int
    rows: Packed | None = None
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
    failure: Reply | None = None
    """Why it could not open its model and ended."""


class RemoteTracebackError(RuntimeError):
    """Carry the traceback of an error in a worker, as the cause of the error that is raised again in the parent."""


class ProcessPool(Mapping[str, list[Any]], Generic[RowsT]):  # the values are processes or connections
    """Worker processes; models of each kind make their own by ``start_multi_process_pool``.

    It answers the keys ``"input"``, ``"output"`` and ``"processes"`` of the pool of sentence-transformers.

    Args:
        devices: One device per worker; a device may come more than once.
        serve: What a worker does, given its end of the pipe and its device; it must survive a pickle.
        join: Puts the rows of all jobs below each other.

    Raises:
        ValueError: If there are no devices.
    """

    def __init__(
        self,
        devices: Sequence[str],
        serve: Callable[[Connection, str], None],
        join: Callable[[list[Packed]], RowsT],
    ) -> None:
        if not devices:
            raise ValueError("a pool needs at least one device, got none")
        context = multiprocessing.get_context("spawn")
        self._join = join
        self._runs = 0
        self._workers: list[Worker] = []
        for device in devices:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, device), daemon=True)
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

    def __enter__(self) -> Self:
        """Return the pool; leaving the block stops it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the workers, also in the middle of a job."""
        self.stop()

    def encode(
        self,
        texts: Sequence[str],
        settings: Any,  # noqa: ANN401 - of the model's kind
        *,
        chunk_size: int | None = None,
        on_done: Callable[[int], object] = int,
    ) -> RowsT:
        """Encode texts, a chunk at a time per worker.

        Args:
            texts: At least one text.
            settings: How to encode them.
            chunk_size: Texts per job; by default a tenth of a worker's share, at most 5000.
            on_done: Called with the number of texts of each finished job.

        Returns:
            The rows, in the order of the texts.

        Raises:
            RuntimeError: If a worker has ended, or the pool was stopped.
            Exception: Whatever opening the model or encoding raises in a worker, raised again here with the worker's
                traceback as its cause.
        """
        if not self._workers:
            raise RuntimeError("the pool was stopped; start another one")
        size = chunk_size or max(1, min(-(-len(texts) // (10 * len(self._workers))), 5000))
        self._runs += 1
        starts = range(0, len(texts), size)
        todo = [
            Job(self._runs, at, list(texts[start : start + size]), settings, start) for at, start in enumerate(starts)
        ]
        done: dict[int, Packed] = {}
        waiting = todo[::-1]
        while len(done) < len(todo):
            for worker in self._workers:
                if waiting and worker.ready:
                    self._send(worker, waiting.pop())
            for reply in self._replies():
                if reply.run != self._runs:
                    continue
                _raise_error_of(reply)
                if reply.rows is not None:
                    done[reply.index] = reply.rows
                    on_done(len(todo[reply.index].texts))
        return self._join([done[index] for index in range(len(todo))])

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
                if reply.run == 0 and reply.error is not None:
                    worker.failure = reply
                    raise self._ended(worker)
                worker.ready = True
                yield reply
            elif worker.process.sentinel in spoke:
                raise self._ended(worker)

    def _ended(self, worker: Worker) -> RuntimeError:
        """Say that a worker is gone.

        Raises:
            Exception: What kept it from opening its model, if it said so before it ended.
        """
        if worker.failure is not None:
            _raise_error_of(worker.failure)
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


def serve_jobs(connection: Connection, prepare: Callable[[], Callable[[Job], Packed]]) -> None:
    """Open a model and do what comes through the pipe until the pipe ends; without a model, say why and end.

    Args:
        connection: The worker's end.
        prepare: Opens the model and returns what does one job.
    """
    try:
        try:
            encode = prepare()
        except Exception as error:  # whatever it is, it is the parent's, which raises it again
            connection.send(Reply(0, 0, error=portable(error), report=traceback.format_exc()))
            return
        connection.send(Reply(0, 0))
        while True:
            job: Job = connection.recv()
            connection.send(_answer(encode, job))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _raise_error_of(reply: Reply) -> None:
    """Raise the error of a worker again, if there is one."""
    if reply.error is not None:
        raise reply.error from RemoteTracebackError(f"in a worker process:\n{reply.report}")


def leave_interrupts_to_the_parent() -> None:
    """Let Ctrl-C reach the parent only, which stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answer(encode: Callable[[Job], Packed], job: Job) -> Reply:
    """Do one job; an error becomes part of the reply."""
    try:
        rows = encode(job)
    except Exception as error:  # whatever it is, it is the parent's, which raises it again
        return Reply(job.run, job.index, error=portable(error), report=traceback.format_exc())
    return Reply(job.run, job.index, rows=rows)


def portable(error: Exception) -> Exception:
    """Return the error if it survives the way through the pipe, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as reason:  # an error's own code runs here, so anything may come
        return RuntimeError(f"{type(error).__name__}: {error} (it could not be sent as it is: {reason!r})")
    return error
