"""The modules of a sparse encoder as one graph: token ids in, pooled weights out.

Axes: B texts, T tokens, E width of what the vocabulary projection reads, V vocabulary, k largest weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.checkpoint.graph_names import EMBEDDING, INDICES, WEIGHTS
from sparse_encoder.export.graph import Difference, Tensors
from sparse_encoder.kernels import activation_named
from sparse_encoder.modules import Pooling, Router, SpladePooling
from sparse_encoder.modules.features import PROJECTION, TOKEN_EMBEDDINGS, Features, VocabularyProjection

TERMS_PER_TILE = 1008
"""Terms whose logits a graph holds at a time: (B, T, 1008) and not (B, T, V).

With a power of two the numbers of one term would meet in few lines of a cache, which makes their maximum slow.
"""


class SparseGraph(nn.Module):
    """Run modules on ids and a mask.

    Args:
        modules: In order; routers have been replaced by one of their routes.
        top_k: Return only the largest weights of each text and their terms; None returns all.
    """

    def __init__(self, modules: Sequence[nn.Module], top_k: int | None = None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(modules)
        self.top_k = top_k

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return weights (B, V); or the terms of the largest and these, (B, k) both."""
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            features["token_type_ids"] = token_type_ids
        features = Features(features)
        for stage in self.stages:
            if isinstance(stage, SpladePooling):
                features = Features({**features, EMBEDDING: _pool(stage, features)})
            else:
                features = stage(features)
        weights: Tensor = features[EMBEDDING].float()
        if self.top_k is None:
            return (weights,)
        largest = torch.topk(weights, self.top_k, dim=1)
        return largest.indices, largest.values


def _pool(pooling: SpladePooling, features: dict[str, Any]) -> Tensor:
    """Pool the logits of the tokens that count; a text without any has no weights."""
    padding = ~features["attention_mask"].bool().unsqueeze(2)  # (B, T, 1)
    if TOKEN_EMBEDDINGS in features or PROJECTION not in features:
        return _pool_logits(features[TOKEN_EMBEDDINGS], padding, pooling)
    hidden, weight, bias = features[PROJECTION]
    if pooling.pooling_strategy == "max":
        return _pool_largest(hidden, weight, bias, padding, pooling)
    parts = []
    for start in range(0, weight.shape[0], TERMS_PER_TILE):
        terms = slice(start, start + TERMS_PER_TILE)
        tile = VocabularyProjection(hidden, weight[terms], None if bias is None else bias[terms])
        parts.append(_pool_logits(tile.logits(), padding, pooling))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _pool_largest(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, padding: Tensor, pooling: SpladePooling
) -> Tensor:
    """Pool by the maximum without a pass over the logits for padding, nor one for the bias.

    Padding takes the state of a token of its text, which changes no maximum; a bias is one for all tokens of a term.
    """
    tokens = (~padding).to(hidden.dtype)  # (B, T, 1)
    token = tokens.argmax(dim=1, keepdim=True).expand(-1, -1, hidden.shape[2])  # (B, 1, D)
    hidden = torch.where(padding, hidden.gather(1, token), hidden)
    parts = [
        functional.linear(hidden, weight[start : start + TERMS_PER_TILE]).amax(dim=1).float()
        for start in range(0, weight.shape[0], TERMS_PER_TILE)
    ]
    largest = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    if bias is not None:
        largest = largest + bias
    empty = padding.all(dim=1)  # (B, 1): a text without tokens has no weights
    return activation_named(pooling.activation_function).apply(largest.masked_fill(empty, float("-inf")))


def _pool_logits(logits: Tensor, padding: Tensor, pooling: SpladePooling) -> Tensor:
    activate = activation_named(pooling.activation_function).apply
    logits = logits.masked_fill(padding, float("-inf"))
    if pooling.pooling_strategy == "max":
        return activate(logits.amax(dim=1).float())
    return activate(logits.float()).sum(dim=1)


def route_names(modules: Sequence[nn.Module]) -> list[str]:
    """Return the names of all routes, in order; none where there is no router."""
    routers = [module for module in modules if isinstance(module, Router)]
    return list(dict.fromkeys(name for router in routers for name in router.sub_modules))


def on_route(modules: Sequence[nn.Module], route: str | None) -> list[nn.Module]:
    """Replace routers by the modules that a task takes.

    Args:
        modules: In order.
        route: Name of a route, or a task that leads to one.

    Raises:
        ValueError: If a router has none.
    """
    found: list[nn.Module] = []
    for module in modules:
        if isinstance(module, Router):
            found += on_route(_way(module, route), route)
        else:
            found.append(module)
    return found


def _way(router: Router, route: str | None) -> list[nn.Module]:
    if route is not None and route in router.sub_modules:
        return list(router.sub_modules[route].children())
    return router.route(route)


def check_modules(modules: Sequence[nn.Module]) -> None:
    """Refuse modules that need more than ids and a mask.

    Raises:
        ValueError: If dense pooling leaves out prompts, whose length a graph does not know.
    """
    for module in modules:
        if isinstance(module, Pooling) and not module.include_prompt:
            raise ValueError(
                "a graph takes no prompt_length, which Pooling needs for include_prompt=False; call"
                " model.set_pooling_include_prompt(True), and compare the embeddings"
            )


def compare_largest(expected: Tensors, found: Tensors) -> list[Difference]:
    """Compare the largest weights, and what the model gives the terms that were found.

    Terms of one weight may come in any order.

    Args:
        expected: ``weights`` and ``indices`` of the model, and all its weights as ``sentence_embedding``.
        found: Those of the graph.
    """
    dense = expected[EMBEDDING]
    named = dense.gather(1, found[INDICES])
    pairs = {WEIGHTS: (expected[WEIGHTS], found[WEIGHTS]), INDICES: (named, found[WEIGHTS])}
    return [
        Difference(name, float((one.double() - other.double()).abs().max()) if one.numel() else 0.0)
        for name, (one, other) in pairs.items()
    ]
