"""Texts without a transformer: the weight of each term that a text has, from a table. Numpy only.

Axes: N texts, V terms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sparse_encoder.checkpoint import CheckpointError, open_regular, read_json_object, resolve_inside
from sparse_encoder.embeddings_arrays import ArrayEmbeddings, Arrays
from sparse_encoder.term_weights import WEIGHTS_FILE, find_term_weights, read_term_weights
from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.tokenizer import Tokenizer

TENSORS_FILE = "model.safetensors"


def read_static_weights(folder: Path, root: Path, tokenizer: Tokenizer) -> NDArray[Any]:
    """Read the weights of a ``SparseStaticEmbedding``.

    Args:
        folder: The module's folder; one that it shares with others has no tensors, but an ``idf.json``.
        root: The model's folder, where a file that the configuration names may be too.
        tokenizer: Maps terms to dimensions.

    Returns:
        Weight of each term, (V,) floating.

    Raises:
        LoadError: If there are none, or they are damaged, not finite or fewer than tokens.
    """
    config = folder / "config.json"
    values = read_json_object(resolve_inside(folder, config.name)) if config.exists() else {}
    if "path" in values:
        return read_term_weights(find_term_weights(values["path"], folder, root), tokenizer)
    tensors = resolve_inside(folder, TENSORS_FILE, error=CheckpointError)
    if folder != root and tensors.exists():
        return _read_tensor(tensors, tokenizer.vocab_size)
    listed = resolve_inside(folder, WEIGHTS_FILE)
    if listed.exists():
        return read_term_weights(listed, tokenizer)
    if tensors.exists():
        return _read_tensor(tensors, tokenizer.vocab_size)
    hint = "backend='torch' reads pickles; save_pretrained then writes model.safetensors"
    raise CheckpointError(f"has neither {TENSORS_FILE} nor {WEIGHTS_FILE}", path=folder, hint=hint)


def _read_tensor(path: Path, vocab_size: int) -> NDArray[Any]:
    open_regular(path, error=CheckpointError).close()
    try:
        with safe_open(path, framework="numpy") as file:
            if list(file.keys()) != ["weight"]:
                raise CheckpointError(f"must have one tensor, 'weight', it has {sorted(file.keys())[:10]}", path=path)
            weight: NDArray[Any] = file.get_tensor("weight")
    except (SafetensorError, TypeError) as reason:  # the second: a type that numpy lacks, as bfloat16
        raise CheckpointError(f"cannot be read by numpy: {reason}", path=path) from reason
    if weight.ndim != 1 or weight.dtype.kind != "f" or len(weight) < vocab_size:
        told = f"{weight.dtype} of shape {weight.shape}"
        raise CheckpointError(f"must have a weight for each of {vocab_size} tokens, got {told}", path=path)
    if not np.isfinite(weight).all():
        raise CheckpointError("has weights that are not finite", path=path)
    return weight.astype(np.float32) if weight.itemsize < np.float32().itemsize else weight


def static_embeddings(tokens: TokenBatch, weights: NDArray[Any], *, max_active_dims: int | None) -> ArrayEmbeddings:
    """Look up the weights of texts; a term counts once however often it occurs.

    Args:
        tokens: Of N texts.
        weights: Of each term, (V,).
        max_active_dims: Most entries of a row.

    Returns:
        Term weights, (N, V), float32.
    """
    dim = len(weights)
    rows = np.repeat(np.arange(len(tokens), dtype=np.int64), np.diff(tokens.starts))
    places = np.unique(rows * dim + tokens.flat_ids)
    values = weights[places % dim].astype(np.float32, copy=False)
    places, values = places[values != 0], values[values != 0]
    starts = np.searchsorted(places, np.arange(len(tokens) + 1) * dim)
    arrays = Arrays(starts.astype(np.int64), (places % dim).astype(np.int32), values, dim)
    embeddings = ArrayEmbeddings(arrays)
    return embeddings if max_active_dims is None else embeddings.top_k(max_active_dims)
