"""In-batch contrastive loss: the other documents of the batch are the negatives; knows nothing of sparsity."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, check_not_negative
from sparse_encoder.losses.checks import check_function, check_positive, checked_columns, name_of
from sparse_encoder.losses.gather import gather_rows
from sparse_encoder.losses.scores import ALL_WITH_ALL
from sparse_encoder.similarity import dot_score

logger = logging.getLogger(__name__)

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
HardnessMode = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
PartitionMode = Literal["joint", "per_direction"]

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
PARTITION_MODES = ("joint", "per_direction")
HARDNESS_MODES = ("in_batch_negatives", "hard_negatives", "all_negatives")


class _Batch(NamedTuple):
    """What one process compares: its own rows among those of all processes (R * B = W rows a column)."""

    queries: Tensor  # (W, V)
    documents: list[Tensor]  # the positives, then one column per hard negative, (W, V) each
    own: Tensor  # positions of this process's rows, (B,)

    def is_own(self, num_columns: int) -> Tensor:
        """Mark the documents of the same query: (B, W * num_columns)."""
        positions = torch.arange(len(self.queries), device=self.own.device)
        return (self.own.unsqueeze(1) == positions).repeat(1, num_columns)


class SparseMultipleNegativesRankingLoss(EmbeddingLoss):
    r"""Raise the score of the paired document above those of all other documents in the batch.

    With similarities :math:`s`, of N queries q and their positives p,

    .. math:: \frac{1}{N} \sum_i \bigl( \log Z_i - \text{scale} \cdot s(q_i, p_i) \bigr)

    where :math:`Z_i` adds up ``exp(scale * s)`` over the chosen directions: query i with all documents
    (``query_to_doc``), query i with all other queries (``query_to_query``), document i with all queries
    (``doc_to_query``), document i with all documents of other queries (``doc_to_doc``).

    Columns: (query, positive) or (query, positive, negative_1, ..., negative_k). Labels: none.

    Source: van den Oord et al., 2018, https://arxiv.org/abs/1807.03748; all four directions: Li et al., 2023,
    https://arxiv.org/abs/2308.03281; hardness: Lan et al., 2025, https://arxiv.org/abs/2503.04812, and Schechter Vera
    et al., 2025, https://arxiv.org/abs/2509.20354. Unlike the peer's, this loss also works without a regulariser.

    Args:
        model: The encoder that is trained.
        scale: Multiplies the similarities; the inverse of a temperature.
        similarity_fct: Maps (A, V) and (B, V) to similarities (A, B).
        gather_across_devices: Compare with the rows of all processes, which need batches of one size.
        directions: What goes into Z; ``query_to_doc`` must be in it.
        partition_mode: ``joint``: one Z over all directions. ``per_direction``: the mean of each direction's log Z;
            not for ``query_to_query`` and ``doc_to_doc``, whose sums do not hold the positive.
        hardness_mode: Which negatives of ``query_to_doc`` are made harder by ``hardness_strength * s``, a constant for
            the gradient: those of other queries, the query's own, or both.
        hardness_strength: Not negative. One of the two without the other has no effect and is warned of.

    Raises:
        TypeError: If ``scale`` or ``hardness_strength`` is not a number, or ``directions`` is a single text.
        ValueError: If an option is unknown or contradicts another.
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module,
        scale: float = 1.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = dot_score,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ALL_WITH_ALL)
        check_positive("scale", scale)
        check_not_negative("hardness_strength", hardness_strength)
        if partition_mode not in PARTITION_MODES:
            raise ValueError(f"unknown partition_mode {partition_mode!r}; choose from {PARTITION_MODES}")
        if hardness_mode is not None and hardness_mode not in HARDNESS_MODES:
            raise ValueError(f"unknown hardness_mode {hardness_mode!r}; choose from {HARDNESS_MODES} or None")
        _check_directions(directions, partition_mode)
        if hardness_mode is not None and hardness_strength == 0:
            logger.warning("hardness_mode=%r has no effect with hardness_strength=0", hardness_mode)
        if hardness_mode is None and hardness_strength > 0:
            logger.warning("hardness_strength=%s has no effect without a hardness_mode", hardness_strength)
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.gather_across_devices = gather_across_devices
        self.directions = tuple(directions)
        self.partition_mode = partition_mode
        self.hardness_mode = hardness_mode
        self.hardness_strength = hardness_strength

    @property
    def temperature(self) -> float:
        """What the similarities are divided by: 1 / scale."""
        return 1.0 / self.scale

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch.

        Args:
            embeddings: Term weights of queries, positives and any number of hard negatives, (B, V) each.
            labels: Not used.

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If there are fewer than two columns, or they differ in shape.
        """
        batch = self._batch(checked_columns(self, embeddings, 2, "a query and a document"))
        logits = self._logits(batch)
        positive = logits["query_to_doc"].gather(1, batch.own.unsqueeze(1)).squeeze(1)  # (B,)
        if self.partition_mode == "joint":
            log_z = torch.cat(list(logits.values()), dim=1).logsumexp(dim=1)
        else:
            log_z = torch.stack([scores.logsumexp(dim=1) for scores in logits.values()]).mean(dim=0)
        return (log_z - positive).mean()

    def _batch(self, columns: list[Tensor]) -> _Batch:
        """Gather the columns of all processes, or take this process's alone."""
        first = 0
        num_rows, device = len(columns[0]), columns[0].device
        if self.gather_across_devices:
            gathered = [gather_rows(column) for column in columns]
            columns, first = [rows for rows, _ in gathered], gathered[0][1]
        return _Batch(columns[0], columns[1:], torch.arange(first, first + num_rows, device=device))

    def _logits(self, batch: _Batch) -> dict[str, Tensor]:
        """Score every direction: (B, number of candidates) each, -inf where there is nothing to compare."""
        queries, all_documents = batch.queries, torch.cat(batch.documents)
        own_queries, own_documents = queries[batch.own], batch.documents[0][batch.own]
        similarities = self.similarity_fct(own_queries, all_documents)  # (B, W * columns)
        logits = {"query_to_doc": self.scale * similarities + self._hardness(similarities, batch)}
        if "query_to_query" in self.directions:
            scores = self.scale * self.similarity_fct(own_queries, queries)  # (B, W)
            logits["query_to_query"] = scores.masked_fill(batch.is_own(1), -torch.inf)
        if "doc_to_query" in self.directions:
            logits["doc_to_query"] = self.scale * self.similarity_fct(queries, own_documents).mT  # (B, W)
        if "doc_to_doc" in self.directions:
            scores = self.scale * self.similarity_fct(all_documents, own_documents).mT  # (B, W * columns)
            logits["doc_to_doc"] = scores.masked_fill(batch.is_own(len(batch.documents)), -torch.inf)
        return logits

    def _hardness(self, similarities: Tensor, batch: _Batch) -> Tensor:
        """Return what is added to the logits of the chosen negatives, (B, W * columns) or a zero."""
        if self.hardness_mode is None or self.hardness_strength == 0:
            return similarities.new_zeros(())
        own = batch.is_own(len(batch.documents))
        is_positive = own.clone()
        is_positive[:, len(batch.queries) :] = False
        chosen = {"in_batch_negatives": ~own, "hard_negatives": own & ~is_positive, "all_negatives": ~is_positive}
        return (self.hardness_strength * similarities.detach()).masked_fill(~chosen[self.hardness_mode], 0.0)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {
            "scale": self.scale,
            "similarity_fct": name_of(self.similarity_fct),
            "gather_across_devices": self.gather_across_devices,
            "directions": self.directions,
            "partition_mode": self.partition_mode,
            "hardness_mode": self.hardness_mode,
            "hardness_strength": self.hardness_strength,
        }

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{oord2018representation,
    title={Representation Learning with Contrastive Predictive Coding},
    author={A{\\"a}ron van den Oord and Yazhe Li and Oriol Vinyals},
    year={2018},
    eprint={1807.03748},
    archivePrefix={arXiv},
    primaryClass={cs.LG},
    url={https://arxiv.org/abs/1807.03748},
}
"""


def _check_directions(directions: Sequence[str], partition_mode: str) -> None:
    """Refuse directions that are unknown, lack the positive pair, or cannot stand alone."""
    if isinstance(directions, str):
        raise TypeError(f"directions must be a list of directions, as [{directions!r}], got the text {directions!r}")
    unknown = sorted(set(directions) - set(DIRECTIONS))
    if unknown:
        raise ValueError(f"unknown directions {unknown}; choose from {DIRECTIONS}")
    if "query_to_doc" not in directions:
        raise ValueError(f"directions must contain 'query_to_doc', which has the positive pair, got {directions!r}")
    without_positive = sorted(set(directions) & {"query_to_query", "doc_to_doc"})
    if partition_mode == "per_direction" and without_positive:
        raise ValueError(f"{without_positive} never contain the positive pair; they need partition_mode='joint'")
