"""Texts in, rows out: in length buckets, so that a text's row is its own.

The buckets are those of torch. A batch has at most ``batch_size`` texts; and on a CPU at most :data:`CPU_TOKENS` padded
tokens, elsewhere the token budget of torch.

Axes: N texts, V terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparse_encoder.checkpoint.onnx_packages import CPU
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.serving.arguments import ServedCall
from sparse_encoder.serving.routes import ServedRoute
from sparse_encoder.serving.session import GraphSession
from sparse_encoder.serving.static_terms import static_embeddings
from sparse_encoder.token_batches import CHUNK_TEXTS, TOKEN_BUDGET, plan_batches

CPU_TOKENS = 1_024
"""Most padded tokens that a processor gets at a time: more leave its caches, and need more memory."""


def encode_texts(
    route: ServedRoute,
    texts: Sequence[str],
    call: ServedCall,
    *,
    on_done: Callable[[int], object],
    first_text: int = 0,
) -> ArrayEmbeddings:
    """Encode texts.

    Args:
        route: What makes weights of them.
        texts: Any number.
        call: How; a CPU is given at most :data:`CPU_TOKENS` tokens at a time, whatever ``batch_size`` is.
        on_done: Called with the number of texts of each finished batch.
        first_text: Position of the first text in the caller's list, for errors that name a text.

    Returns:
        Term weights, (N, V), in the order of the texts.

    Raises:
        ValueError: If a weight is not finite; names the text.
    """
    parts = [
        _encode_chunk(route, texts[start : start + CHUNK_TEXTS], call, first_text + start, on_done)
        for start in range(0, len(texts), CHUNK_TEXTS)
    ]
    return ArrayEmbeddings.concatenate(parts, route.num_dimensions)


def _encode_chunk(
    route: ServedRoute, texts: Sequence[str], call: ServedCall, first_text: int, on_done: Callable[[int], object]
) -> ArrayEmbeddings:
    """Encode texts that are tokenised, and sorted by length, together."""
    tokens = route.tokenize(texts, prompt=call.prompt, task=call.task, max_length=call.max_length)
    if route.weights is not None:
        on_done(len(texts))
        return static_embeddings(tokens, route.weights, max_active_dims=call.max_active_dims)
    assert route.session is not None  # a route has a table or a graph
    parts, order = [], []
    for batch in plan_batches(
        tokens.lengths, max_length=route.positions, batch_size=call.batch_size, token_budget=_most_tokens(route.session)
    ):
        features = tokens.pad_arrays(batch.rows, batch.length)
        rows = route.session.run(features, max_active_dims=call.max_active_dims)
        _check_finite(rows, [first_text + row for row in batch.rows])
        parts.append(rows)
        order += batch.rows
        on_done(len(batch.rows))
    sorted_rows: ArrayEmbeddings = ArrayEmbeddings.concatenate(parts, route.num_dimensions)[np.argsort(order)]
    return sorted_rows


def _most_tokens(session: GraphSession) -> int:
    return CPU_TOKENS if session.providers[0] == CPU else TOKEN_BUDGET


def _check_finite(rows: ArrayEmbeddings, texts: Sequence[int]) -> None:
    fine = np.isfinite(rows.arrays.values)
    if not fine.all():
        row = int(np.searchsorted(rows.arrays.starts, int(np.flatnonzero(~fine)[0]), side="right")) - 1
        raise ValueError(
            f"texts[{texts[row]}] has weights that are not finite; the graph was written in float16 or is damaged: "
            "export the model again in float32"
        )
