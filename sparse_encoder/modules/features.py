"""The features of a batch on their way through the modules, and a projection on the vocabulary still to be done.

Axes: B texts, T tokens, E width of what the projection reads, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

PROJECTION = "vocabulary_projection"
TOKEN_EMBEDDINGS = "token_embeddings"


class VocabularyProjection(NamedTuple):
    """Logits that are still to be computed: ``hidden @ weight.T + bias``."""

    hidden: Tensor
    """Token states, (B, T, E)."""
    weight: Tensor
    """Term vectors, (V, E)."""
    bias: Tensor | None
    """Added to every logit of a term, (V,)."""

    def logits(self) -> Tensor:
        """Compute the logits of all tokens, (B, T, V): large."""
        return functional.linear(self.hidden, self.weight, self.bias)


class Features(dict[str, Any]):
    """Features by name; ``token_embeddings`` of a masked language model are computed each time they are asked for.

    A module that reduces them at once takes ``vocabulary_projection`` instead. Once ``token_embeddings`` are set, they
    stand as they are, and the modules that follow read them.
    """

    def __missing__(self, name: str) -> Any:  # noqa: ANN401
        """Compute ``token_embeddings`` from the projection, if there is one."""
        if name == TOKEN_EMBEDDINGS and PROJECTION in self:
            return self[PROJECTION].logits()
        raise KeyError(name)
