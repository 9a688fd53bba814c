"""An evaluation in several processes: the first one evaluates, the others encode texts for it and hear its result.

Knows neither evaluators nor metrics: what the first process does is a function, and the model is asked to ``encode``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist
from torch import nn

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.encode import EncodeSettings, encode_texts
from sparse_encoder.encoding.workers import WorkerPool, portable
from sparse_encoder.model import SparseEncoder
from sparse_encoder.training.processes import world_size

Result = TypeVar("Result")
_PATIENCE = timedelta(days=7)  # whoever waits cannot know how long scoring takes; a dead process ends the launcher
_FEWEST_PER_PROCESS = 2


class _Job(NamedTuple):
    """Texts of one process."""

    texts: list[str]
    settings: EncodeSettings


class _End(NamedTuple):
    """What came of the evaluation."""

    result: object = None
    error: Exception | None = None


def evaluate_together(evaluate: Callable[[], Result], model: nn.Module) -> Result:
    """Evaluate in the first process with the help of all; returns its result in all of them.

    Texts that the evaluation gives to ``model.encode`` are shared out among the processes, which hold the same weights.
    A text's weights do not depend on which texts are encoded with it, so the result is that of one process.

    Args:
        evaluate: Called in the first process only.
        model: Encodes. Another one than a SparseEncoder is used in the first process alone.

    Returns:
        What ``evaluate`` returned, sent to the other processes by pickle.

    Raises:
        Exception: In all processes, whatever ``evaluate`` or an encoding process raises.
    """
    if world_size() == 1:
        return evaluate()
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        return _lead(evaluate, model, group) if dist.get_rank() == 0 else _serve(model, group)
    finally:
        dist.destroy_process_group(group)


def _lead(evaluate: Callable[[], Result], model: nn.Module, group: dist.ProcessGroup) -> Result:
    """Evaluate, and tell the others what came of it."""
    try:
        with _shared_encoding(model, group):
            result = evaluate()
    except BaseException as error:
        known = error if isinstance(error, Exception) else RuntimeError(f"the evaluation was ended by {error!r}")
        _tell([_End(error=portable(known))] * dist.get_world_size(), group)
        raise
    _tell([_End(result)] * dist.get_world_size(), group)
    return result


def _serve(model: nn.Module, group: dist.ProcessGroup) -> Any:  # noqa: ANN401  (as the first process's result)
    """Encode for the first process until it has its result."""
    while True:
        message = _tell(None, group)
        if isinstance(message, _End):
            if message.error is not None:
                raise message.error
            return message.result
        assert isinstance(model, SparseEncoder)
        dist.gather_object(_answer(model, message), dst=0, group=group)


def _tell(messages: Sequence[_Job | _End] | None, group: dist.ProcessGroup) -> _Job | _End:
    """Send each process its message, from the first; returns this process's own."""
    received: list[Any] = [None]  # torch wants a list to fill
    dist.scatter_object_list(received, None if messages is None else list(messages), src=0, group=group)
    message: _Job | _End = received[0]
    return message


def _answer(model: SparseEncoder, job: _Job) -> SparseEmbeddings | Exception:
    """Do a job; an error is the first process's to raise."""
    try:
        return encode_texts(model, job.texts, job.settings).cpu()
    except Exception as error:  # whatever it is, the first process raises it
        return portable(error)


class _Processes(WorkerPool):
    """All processes of a run as workers of the first.

    Args:
        model: Of this process.
        group: Of all processes.
    """

    def __init__(self, model: SparseEncoder, group: dist.ProcessGroup) -> None:
        self._workers = []  # none of its own
        self._model = model
        self._group = group

    def encode(
        self,
        texts: Sequence[str],
        settings: EncodeSettings,
        *,
        chunk_size: int | None = None,
        on_done: Callable[[int], object] = int,
    ) -> SparseEmbeddings:
        """Encode every n-th text in each of n processes; few are encoded here.

        Args:
            texts: At least one text.
            settings: How to encode them.
            chunk_size: Of no use here: each process takes its texts at once.
            on_done: Called with the number of texts when they are encoded.

        Returns:
            CSR rows in the order of the texts; on the CPU if others have helped.
        """
        processes = dist.get_world_size(self._group)
        if len(texts) < _FEWEST_PER_PROCESS * processes:
            return encode_texts(self._model, texts, settings, on_done=on_done)
        jobs = [_Job(list(texts[rank::processes]), settings) for rank in range(processes)]
        own = _tell(jobs, self._group)
        assert isinstance(own, _Job)
        answers: list[Any] = [None] * processes  # torch wants a list to fill
        dist.gather_object(_answer(self._model, own), answers, dst=0, group=self._group)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        order = [place for rank in range(processes) for place in range(rank, len(texts), processes)]
        back = sorted(range(len(texts)), key=order.__getitem__)
        on_done(len(texts))
        return SparseEmbeddings.concatenate(answers)[back]


@contextmanager
def _shared_encoding(model: nn.Module, group: dist.ProcessGroup) -> Iterator[None]:
    """Let ``model.encode`` use all processes for a while, unless a call says where to encode."""
    if not isinstance(model, SparseEncoder):
        yield
        return
    alone = model.encode
    pool = _Processes(model, group)

    def encode(*inputs: Any, **options: Any) -> Any:  # noqa: ANN401  (what encode takes and gives)
        if options.get("pool") is None and options.get("device") is None:
            options["pool"] = pool
        return alone(*inputs, **options)

    vars(model)["encode"] = encode  # in front of the method, also for encode_query and encode_document
    try:
        yield
    finally:
        del vars(model)["encode"]
