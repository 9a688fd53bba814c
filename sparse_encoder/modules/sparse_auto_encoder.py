r"""A sparse code of dense embeddings: the k largest of many latents, from which the embedding can be rebuilt.

.. math:: z = \text{relu}(\text{top}_k(W (x - b) + c)), \qquad \hat x = W^\top z + b

Source: Wen et al., 2025, https://arxiv.org/abs/2503.01776.

Axes: B texts, D width of the dense embedding, L latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.checkpoint import CheckpointError, read_tensors, write_tensors
from sparse_encoder.modules.base import (
    LoadSettings,
    Module,
    checked_flag,
    checked_integer,
    load_weights,
    without_values,
)
from sparse_encoder.modules.features import Features
from sparse_encoder.modules.row_linear import row_linear

if TYPE_CHECKING:
    from typing_extensions import Self

ENCODER, DECODER = "encoder.weight", "decoder.linear.weight"
"""One matrix (L, D) under two names; files of sentence-transformers have it under the second."""
STANDARDISE_EPS = 1e-5
FIRED_ABOVE = 1e-5


class _Scale(NamedTuple):
    """What standardising took away from embeddings, (B, 1) each."""

    mean: Tensor
    deviation: Tensor


class SparseAutoEncoder(Module):
    """Encode dense embeddings as the k largest of many latents; the decoder is the transposed encoder.

    A latent is dead when it was not among the k largest of any text for more than ``dead_threshold`` training steps.
    A step begins with the first forward pass after a backward pass, so all columns of a batch are one step. In
    sentence-transformers the count grows by two for each column.

    Args:
        input_dim: Width D of the dense embeddings.
        hidden_dim: Number of latents L.
        k: How many latents are kept.
        k_aux: How many dead latents the auxiliary reconstruction uses; 0 for none. At most L are used.
        normalize: Whether embeddings are standardised first (and their reconstructions scaled back).
        dead_threshold: Steps.

    Raises:
        ValueError: If a number is out of range.
    """

    config_keys: ClassVar[tuple[str, ...]] = (
        "input_dim",
        "hidden_dim",
        "k",
        "k_aux",
        "normalize",
        "dead_threshold",
    )
    forward_kwargs: ClassVar[frozenset[str]] = frozenset({"max_active_dims"})
    smallest_over_processes: ClassVar[tuple[str, ...]] = ("stats_last_nonzero",)
    """Buffers of which, when several processes train, the smallest counts after each step."""
    stats_last_nonzero: Tensor
    """Training steps since a latent was last among the k largest, that step counted, (L,) int64."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 512,
        k: int = 8,
        k_aux: int = 512,
        normalize: bool = False,
        dead_threshold: int = 30,
    ) -> None:
        super().__init__()
        self.input_dim = checked_integer("input_dim", input_dim)
        self.hidden_dim = checked_integer("hidden_dim", hidden_dim)
        self.k = checked_integer("k", k)
        self.k_aux = checked_integer("k_aux", k_aux, minimum=0)
        self.normalize = checked_flag("normalize", normalize)
        self.dead_threshold = checked_integer("dead_threshold", dead_threshold, minimum=0)
        if k > hidden_dim:
            raise ValueError(f"k must be at most hidden_dim, got {k} and {hidden_dim}")
        self.pre_bias = nn.Parameter(torch.zeros(input_dim))
        self.encoder = nn.Linear(input_dim, hidden_dim, bias=False)
        self.latent_bias = nn.Parameter(torch.zeros(hidden_dim))
        self.register_buffer("stats_last_nonzero", torch.zeros(hidden_dim, dtype=torch.long))
        self._step_begins = True

    def forward(self, features: dict[str, Any], max_active_dims: int | None = None) -> dict[str, Any]:
        """Encode ``sentence_embedding``; outside of inference mode also decode, which the loss needs.

        Args:
            features: ``sentence_embedding``, dense, (B, D).
            max_active_dims: How many latents to keep instead of ``k``.

        Returns:
            The features with ``sentence_embedding``, sparse, (B, L); and outside of inference mode those of
            :meth:`_reconstructions`.
        """
        dense: Tensor = features["sentence_embedding"]
        k = min(self.k if max_active_dims is None else max_active_dims, self.hidden_dim)
        inputs, scale = self._standardise(dense)
        latents = row_linear(inputs - self.pre_bias, self.encoder.weight, self.latent_bias)  # (B, L)
        code = _largest(latents, k)
        added = {"sentence_embedding": code}
        if not torch.is_inference_mode_enabled():
            if self.training and torch.is_grad_enabled():
                self._count(code)
            added |= self._reconstructions(dense, latents, code, scale, k)
        return Features({**features, **added})

    def _standardise(self, dense: Tensor) -> tuple[Tensor, _Scale | None]:
        if not self.normalize:
            return dense, None
        mean = dense.mean(dim=1, keepdim=True)
        deviation = (dense - mean).std(dim=1, keepdim=True)
        return (dense - mean) / (deviation + STANDARDISE_EPS), _Scale(mean, deviation)

    def _reconstructions(
        self, dense: Tensor, latents: Tensor, code: Tensor, scale: _Scale | None, k: int
    ) -> dict[str, Any]:
        """Decode k latents, 4 k, and the largest dead ones.

        Returns:
            ``sentence_embedding_backbone`` and ``decoded_embedding_*``, (B, D), ``sentence_embedding_encoded*`` and
            ``auxiliary_embedding``, (B, L); the auxiliary ones are ``None`` without ``k_aux``.
        """
        code_4k = _largest(latents, min(4 * k, self.hidden_dim))
        decoded_k = self._decode(code, scale)
        bias = self.pre_bias if scale is None else self.pre_bias * scale.deviation
        auxiliary = decoded_auxiliary = None
        if self.k_aux:
            dead = self.stats_last_nonzero > self.dead_threshold  # (L,)
            auxiliary = _largest(latents * dead, min(self.k_aux, self.hidden_dim))
            decoded_auxiliary = functional.linear(auxiliary, self.encoder.weight.mT) + self.pre_bias
            if scale is not None:
                decoded_auxiliary = decoded_auxiliary * scale.deviation
        return {
            "sentence_embedding_backbone": dense,
            "sentence_embedding_encoded": latents,
            "sentence_embedding_encoded_4k": code_4k,
            "auxiliary_embedding": auxiliary,
            "decoded_embedding_k": decoded_k,
            "decoded_embedding_4k": self._decode(code_4k, scale),
            "decoded_embedding_aux": decoded_auxiliary,
            "decoded_embedding_k_pre_bias": decoded_k - bias,
        }

    def _decode(self, code: Tensor, scale: _Scale | None) -> Tensor:
        decoded = functional.linear(code, self.encoder.weight.mT) + self.pre_bias
        return decoded if scale is None else decoded * scale.deviation + scale.mean

    @torch.no_grad()
    def _count(self, code: Tensor) -> None:
        """Age all latents once in a step, and make those that fire young again."""
        if self._step_begins:
            self.stats_last_nonzero += 1
            self._step_begins = False
        self.stats_last_nonzero.masked_fill_((code > FIRED_ABOVE).any(dim=0), 1)
        if code.requires_grad:
            code.register_hook(self._end_step)  # type: ignore[no-untyped-call]

    def _end_step(self, gradient: Tensor) -> None:
        """Note that the backward pass has come by."""
        self._step_begins = True

    def get_embedding_dimension(self) -> int | None:
        """Return the number of latents L."""
        return self.hidden_dim

    def save(self, folder: str | Path) -> None:
        """Write configuration and weights."""
        super().save(folder)
        tensors = {DECODER if name == ENCODER else name: tensor for name, tensor in self.state_dict().items()}
        write_tensors(Path(folder), tensors, metadata={ENCODER: DECODER})

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a module from its folder, strictly; the matrix may have either of its names, or both."""
        folder = Path(folder)
        module: Self = without_values(cls.from_config, cls.load_config(folder), folder)
        tensors = read_tensors(folder)
        if DECODER in tensors:
            decoder = tensors.pop(DECODER)
            if not torch.equal(tensors.setdefault(ENCODER, decoder), decoder):
                raise CheckpointError(f"{ENCODER!r} and {DECODER!r} are one matrix and differ", path=folder)
        load_weights(module, folder, tensors)
        return module


def _largest(latents: Tensor, k: int) -> Tensor:
    """Keep the k largest entries of each row as far as they are positive; the rest becomes 0."""
    values, indices = torch.topk(latents, k, dim=1)
    return torch.zeros_like(latents).scatter(1, indices, values.relu())
