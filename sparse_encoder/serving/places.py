"""Where a call of a served model encodes: in this process, or in workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.encoding.inputs import check_positive
from sparse_encoder.serving.arguments import ServedCall
from sparse_encoder.serving.batches import encode_texts
from sparse_encoder.serving.options import same_device
from sparse_encoder.serving.workers import ServedPool

if TYPE_CHECKING:
    from sparse_encoder.serving.encoder import OnnxSparseEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodePlace:
    """Where texts are encoded; in this process if nothing is said."""

    devices: tuple[str, ...] = ()
    """One for each worker that is started for this call."""
    pool: ServedPool | None = None
    """Workers that are there."""
    chunk_size: int | None = None
    """Texts per job of a worker."""

    @classmethod
    def of(cls, model: OnnxSparseEncoder, *, device: object, pool: object, chunk_size: int | None) -> EncodePlace:
        """Judge what a call says.

        Args:
            model: What encodes.
            device: The same, or several, for as many workers; ``None`` for the same.
            pool: Workers that are there, or ``None``.
            chunk_size: Texts per job of a worker, or ``None``.

        Raises:
            TypeError: If the pool is something else, or of a torch model.
            ValueError: If it is another device, an empty list of them or one beside a pool, the pool of another model,
                or a number that is not positive.
        """
        if pool is not None and not isinstance(pool, ServedPool):
            raise TypeError(
                f"pool must come from start_multi_process_pool of a served model, got {type(pool).__name__}"
            )
        several = isinstance(device, Sequence) and not isinstance(device, str)
        devices = tuple(map(str, device)) if isinstance(device, Sequence) and several else ()
        if several and not devices:
            raise ValueError("device must name at least one device, or be None for that of the model, got none")
        if several and pool is not None:
            raise ValueError(f"give pool or several devices, not both: the pool's are chosen, got {list(devices)}")
        if pool is not None and not pool.serves(model):
            raise ValueError("pool has the workers of another model; give one of this model's start_multi_process_pool")
        if device is not None and not several and not same_device(device, model.device):
            raise ValueError(
                f"device must be {model.device!r}, where this model was opened, got {device!r}; "
                "give device to SparseEncoder, or providers in model_kwargs"
            )
        size = None if chunk_size is None else check_positive("chunk_size", chunk_size)
        return cls(devices=devices, pool=pool, chunk_size=size)


def encode_at(
    model: OnnxSparseEncoder,
    place: EncodePlace,
    texts: Sequence[str],
    call: ServedCall,
    on_done: Callable[[int], object],
) -> ArrayEmbeddings:
    """Encode texts at a place.

    Args:
        model: The model.
        place: Where.
        texts: Any number.
        call: How.
        on_done: Called with the number of texts of each finished batch or job.

    Raises:
        ValueError: If no route is for the task, or a weight is not finite.
        RuntimeError: If a worker has ended, or the pool was stopped.
    """
    route = model.route(call.task)
    if not texts or (place.pool is None and not place.devices):
        return encode_texts(route, texts, call, on_done=on_done)
    if place.pool is not None:
        return place.pool.encode(texts, call, chunk_size=place.chunk_size, on_done=on_done)
    with ServedPool(model, place.devices) as pool:
        return pool.encode(texts, call, chunk_size=place.chunk_size, on_done=on_done)
