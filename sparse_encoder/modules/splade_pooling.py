r"""SPLADE pooling: from the vocabulary logits of a text's tokens to one weight per term.

.. math:: w_v = \max_t f(z_{tv}) \quad \text{or} \quad w_v = \sum_t f(z_{tv}), \qquad f(z) = \log(1 + \max(0, z))

Sources: Formal et al., 2021, https://arxiv.org/abs/2107.05720 (sum) and https://arxiv.org/abs/2109.10086 (max).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_encoder.kernels import activation_named, max_projection, sum_projection
from sparse_encoder.modules.base import Module, checked_integer
from sparse_encoder.modules.features import PROJECTION, TOKEN_EMBEDDINGS, Features, VocabularyProjection
from sparse_encoder.renamed import renamed_argument

POOLING_STRATEGIES = ("max", "sum")


class SpladePooling(Module):
    """Pool vocabulary logits over the tokens of each text.

    After a ``Transformer`` for ``fill-mask`` the logits are never held: they are computed in tiles and pooled at once.
    Features that hold ``token_embeddings`` (logits, from a module in between) are pooled as they are.

    Weights are float32 whatever the dtype of the model, since the activation follows the maximum. Every unmasked token
    takes part, also special ones and those of a prompt. A text without any token has no weights.

    Args:
        pooling_strategy: ``"max"`` or ``"sum"``.
        activation_function: ``"relu"`` for log(1 + relu(z)), ``"log1p_relu"`` for log(1 + log(1 + relu(z))), as in
            https://arxiv.org/abs/2504.14839.
        embedding_dimension: Number of terms V; learnt from the first batch if it is not given. After a
            ``Transformer`` it follows the vocabulary, which may be resized.
        chunk_size: Tokens that are pooled at a time where ``token_embeddings`` are; it saves memory there. ``None`` or
            0 takes all at once.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("pooling_strategy", "activation_function", "embedding_dimension")
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}

    @renamed_argument("word_embedding_dimension", "embedding_dimension")
    def __init__(
        self,
        pooling_strategy: str = "max",
        activation_function: str = "relu",
        embedding_dimension: int | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        if pooling_strategy not in POOLING_STRATEGIES:
            raise ValueError(f"unknown pooling_strategy {pooling_strategy!r}; choose from {list(POOLING_STRATEGIES)}")
        activation_named(activation_function)
        if embedding_dimension is not None:
            checked_integer("embedding_dimension", embedding_dimension)
        self.pooling_strategy = pooling_strategy
        self.activation_function = activation_function
        self.embedding_dimension = embedding_dimension
        self.chunk_size = chunk_size

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Pool a batch.

        Args:
            features: ``attention_mask`` (B, T), and ``vocabulary_projection`` or ``token_embeddings``, logits
                (B, T, V).

        Returns:
            The features with ``sentence_embedding``, term weights, (B, V).

        Raises:
            ValueError: If the number of terms is not ``embedding_dimension``.
        """
        mask: Tensor = features["attention_mask"]
        if TOKEN_EMBEDDINGS in features or PROJECTION not in features:
            weights = self._pool_logits(features[TOKEN_EMBEDDINGS], mask)
            self._check_dimension(weights.shape[1])
        else:
            weights = self._pool_projection(features[PROJECTION], mask)
            self.embedding_dimension = weights.shape[1]  # of the vocabulary as it is now
        return Features({**features, "sentence_embedding": weights})

    def _pool_projection(self, projection: VocabularyProjection, mask: Tensor) -> Tensor:
        hidden, weight, bias = projection
        if self.pooling_strategy == "sum":
            return sum_projection(hidden, weight, bias, mask, self.activation_function)
        return self._activate(max_projection(hidden, weight, bias, mask))

    def _activate(self, logits: Tensor) -> Tensor:
        return activation_named(self.activation_function).apply(logits)

    def _check_dimension(self, dim: int) -> None:
        if self.embedding_dimension is None:
            self.embedding_dimension = dim
        elif self.embedding_dimension != dim:
            raise ValueError(f"embedding_dimension is {self.embedding_dimension}, but the logits are of {dim} terms")

    def _pool_logits(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Pool logits (B, T, V) that are there already, some tokens at a time."""
        chunk_size = self.chunk_size or max(1, logits.shape[1])
        padding = ~mask.bool().unsqueeze(2)  # (B, T, 1)
        pooled: Tensor | None = None
        for start in range(0, logits.shape[1], chunk_size):
            chunk = logits[:, start : start + chunk_size].masked_fill(
                padding[:, start : start + chunk_size], float("-inf")
            )
            if self.pooling_strategy == "max":
                largest = chunk.amax(dim=1)
                pooled = largest if pooled is None else torch.maximum(pooled, largest)
            else:
                summed = self._activate(_at_least_float32(chunk)).sum(dim=1)
                pooled = summed if pooled is None else pooled + summed
        if pooled is None:
            raise ValueError("token_embeddings must hold at least one token per text, padding included")
        return self._activate(_at_least_float32(pooled)) if self.pooling_strategy == "max" else pooled

    def get_embedding_dimension(self) -> int | None:
        """Return the number of terms V, once it is known."""
        return self.embedding_dimension


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
