"""Describe the graphs of a sparse encoder: one, or one for each route."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.checkpoint.graph_names import (
    EMBEDDING,
    INDICES,
    LONGEST,
    NUM_DIMENSIONS,
    SPARSE_TASK,
    WEIGHTS,
)
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.export.batches import Vocabulary, example_length, text_batch, text_cases, vocabulary_of, with_types
from sparse_encoder.export.graph import Axes, Graph, Tensors
from sparse_encoder.export.metadata import metadata_of
from sparse_encoder.export.sparse_graph import (
    SparseGraph,
    check_modules,
    compare_largest,
    on_route,
    route_names,
)
from sparse_encoder.export.tasks import TEXT_AXES
from sparse_encoder.modules import SparseStaticEmbedding

LONGEST_STATIC = 512
"""Tokens to compare with, where there is no backbone to limit them."""


def sparse_graphs(model: ModuleSequence, top_k: int | None) -> dict[str | None, Graph]:
    """Describe the graphs of an encoder.

    Args:
        model: The encoder.
        top_k: Return only the largest weights of each text; None: all.

    Returns:
        A graph by the name of its route; None for an encoder without routes.

    Raises:
        TypeError: If ``top_k`` is no integer.
        ValueError: If ``top_k`` is no number of terms, or a module cannot be in a graph.
    """
    top_k = None if top_k is None else _count(top_k)
    modules = list(model)
    names: list[str | None] = [*route_names(modules)] or [None]
    return {name: _graph(on_route(modules, name), name, top_k) for name in names}


def _count(top_k: int) -> int:
    """Return a number of terms as Python's integer.

    Raises:
        TypeError: If it is none.
        ValueError: If it is below 1.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)):
        raise TypeError(f"top_k must be an integer or None, got {top_k!r:.80}")
    if top_k < 1:
        raise ValueError(f"top_k must be between 1 and the number of terms, got {top_k}")
    return int(top_k)


def _graph(modules: Sequence[nn.Module], route: str | None, top_k: int | None) -> Graph:
    check_modules(modules)
    inner = (each for module in modules for each in module.modules())
    backbone = next((each for each in inner if isinstance(each, PretrainedModel)), None)
    vocabulary, longest, length, types = _text_facts(modules, backbone)
    example = text_batch((2, length), vocabulary, padding=[length // 2])
    if types:
        example["token_type_ids"] = with_types(example["input_ids"], types)
    num_terms = _run(modules, example)[EMBEDDING].shape[1]
    if top_k is not None and not top_k <= num_terms:
        raise ValueError(f"top_k must be between 1 and the number of terms, {num_terms}, got {top_k}")

    def reference(inputs: Tensors) -> Tensors:
        found = _run(modules, inputs)
        if top_k is None:
            return found
        largest = torch.topk(found[EMBEDDING], top_k, dim=1)
        return {**found, INDICES: largest.indices, WEIGHTS: largest.values}

    outputs: Axes = {EMBEDDING: {0: "batch"}} if top_k is None else {INDICES: {0: "batch"}, WEIGHTS: {0: "batch"}}
    facts = {NUM_DIMENSIONS: num_terms, LONGEST: longest, "top_k": top_k, "route": route}
    return Graph(
        module=SparseGraph(modules, top_k),
        reference=reference,
        inputs=dict.fromkeys(example, TEXT_AXES),
        outputs=outputs,
        example=example,
        cases=text_cases(vocabulary, longest, num_token_types=types, left=_pads_left(modules)),
        compare=None if top_k is None else compare_largest,
        metadata=metadata_of(SPARSE_TASK, facts),
    )


def _text_facts(modules: Sequence[nn.Module], backbone: PretrainedModel | None) -> tuple[Vocabulary, int, int, int]:
    """Return which ids there are, the longest text, the length of an example, and how many token types."""
    if backbone is not None:
        config = backbone.config
        return vocabulary_of(config), config.max_tokens, example_length(config), config.num_token_types
    for module in modules:
        if isinstance(module, SparseStaticEmbedding):
            return Vocabulary(module.num_dimensions, module.tokenizer.pad_token_id or 0), LONGEST_STATIC, 8, 0
    raise ValueError(
        f"a graph needs a Transformer or a SparseStaticEmbedding that reads token ids, got "
        f"{[type(module).__name__ for module in modules]}"
    )


def _pads_left(modules: Sequence[nn.Module]) -> bool:
    """Return whether the tokenizer puts padding before texts, as those of many decoders do."""
    tokenizer = getattr(modules[0], "tokenizer", None)
    return getattr(tokenizer, "padding_side", "right") == "left"


def _run(modules: Sequence[nn.Module], inputs: Tensors) -> Tensors:
    """Run the modules as encoding does, and return the weights, (B, V)."""
    features: dict[str, object] = dict(inputs)
    with torch.no_grad():
        for module in modules:
            features = module(features)
    weights = features[EMBEDDING]
    assert isinstance(weights, torch.Tensor)
    return {EMBEDDING: weights}
