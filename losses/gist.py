"""Contrastive loss without the negatives that another encoder takes for positives; knows nothing of sparsity."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_finite, check_function, check_positive, checked_columns, name_of
from sparse_encoder.losses.gather import gather_rows
from sparse_encoder.losses.guides import Encoder, Guide, check_answers
from sparse_encoder.losses.scores import ALL_WITH_ALL, Similarity
from sparse_encoder.losses.taught import seen
from sparse_encoder.similarity import cos_sim, dot_score

MarginStrategy = Literal["absolute", "relative"]
MARGIN_STRATEGIES = ("absolute", "relative")


class SparseGISTEmbedLoss(EmbeddingLoss):
    r"""Raise the score of the paired document above those of others, except those that a guide finds as good.

    .. math:: \frac{1}{B} \sum_i \bigl( \log Z_i - \text{scale} \cdot s(q_i, p_i) \bigr)

    where Z adds up ``exp(scale * s)`` over the positives and negatives of all rows and, if they are contrasted, query i
    with other queries and positive i with other positives. Left out is what the guide gives a similarity above that of
    query i and its positive, less the margin.

    Columns: (query, positive, negative_1, ..., negative_k), any k. Labels: none.

    Source: Solatorio, 2024, https://arxiv.org/abs/2402.16829. With ``scale=1 / temperature`` and ``cos_sim`` this is
    the loss that sentence-transformers has for dense embeddings, but that it never contrasts a text with itself, which
    happens there where a negative margin lets the limit exceed 1.

    Args:
        model: The encoder that is trained.
        guide: Another encoder, as :class:`sparse_encoder.losses.Guide` takes it.
        scale: Multiplies the similarities.
        margin_strategy: ``absolute``: the margin is a similarity. ``relative``: a part of the positive's magnitude.
        margin: How much less similar than the positive a negative must be to count.
        contrast_anchors: Contrast queries with queries.
        contrast_positives: Contrast positives with positives.
        gather_across_devices: Compare with the documents of all processes, which need batches of one size.
        similarity_fct: Maps (A, V) and (B, V) to similarities (A, B); the guide's are cosines.

    Raises:
        TypeError: If the guide is no encoder, or a setting is not a number.
        ValueError: If ``scale`` is not above 0, ``margin`` is not finite, or ``margin_strategy`` is unknown.
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module,
        guide: Encoder,
        scale: float = 1.0,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
        *,
        similarity_fct: Similarity = dot_score,
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ALL_WITH_ALL)
        check_positive("scale", scale)
        check_finite("margin", margin)
        if margin_strategy not in MARGIN_STRATEGIES:
            raise ValueError(f"unknown margin_strategy {margin_strategy!r}; choose from {MARGIN_STRATEGIES}")
        self.guide = Guide(guide, model)
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.margin_strategy = margin_strategy
        self.margin = margin
        self.contrast_anchors = contrast_anchors
        self.contrast_positives = contrast_positives
        self.gather_across_devices = gather_across_devices
        self._guided: list[Tensor] | None = None

    def look_at(self, columns: list[dict[str, Tensor]]) -> None:
        """Let the guide embed the texts of a batch.

        Raises:
            ValueError: If the guide's embeddings are infinite or NaN.
        """
        self._guided = self.guide.embed(columns)
        who = f"the guide of {type(self).__name__}, {type(self.guide.encoder).__name__},"
        check_answers(who, self._guided)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch, which must have been looked at.

        Args:
            embeddings: Term weights of queries, positives and any number of negatives, (B, V) each.
            labels: Not used.

        Returns:
            Scalar tensor.

        Raises:
            RuntimeError: If the features of the batch were not shown by :meth:`look_at`.
            ValueError: If there are fewer than two columns, or they differ in shape.
        """
        columns = checked_columns(self, embeddings, 2, "a query and a positive")
        guided, self._guided = seen(self, self._guided), None
        (queries, *documents), first = self._gathered(columns)
        (guide_queries, *guide_documents), _ = self._gathered(guided)
        num_rows = len(columns[0])
        own = torch.arange(first, first + num_rows, device=queries.device)  # places of the positives, (B,)
        is_own = functional.one_hot(own, len(documents[0])).bool()  # (B, W)
        limit = cos_sim(guide_queries, guide_documents[0])[is_own].unsqueeze(1)  # (B, 1)
        limit = limit - self.margin * (1.0 if self.margin_strategy == "absolute" else limit.abs())

        def logits(left: Tensor, right: Tensor, guide_left: Tensor, guide_right: Tensor) -> Tensor:
            too_good = cos_sim(guide_left, guide_right) > limit
            return (self.scale * self.similarity_fct(left, right)).masked_fill(too_good, -torch.inf)

        positive = self.scale * self.similarity_fct(queries, documents[0])
        kept = logits(queries, documents[0], guide_queries, guide_documents[0])
        parts = [torch.where(is_own, positive, kept)]
        if self.contrast_anchors:
            among = logits(queries, queries, guide_queries, guide_queries)
            parts.append(among.masked_fill(torch.eye(num_rows, dtype=torch.bool, device=among.device), -torch.inf))
        if self.contrast_positives:
            mine, guide_mine = documents[0][own], guide_documents[0][own]
            parts.append(logits(mine, documents[0], guide_mine, guide_documents[0]).masked_fill(is_own, -torch.inf))
        for negatives, guide_negatives in zip(documents[1:], guide_documents[1:], strict=True):
            parts.append(logits(queries, negatives, guide_queries, guide_negatives))
        return functional.cross_entropy(torch.cat(parts, dim=1), own)

    def _gathered(self, columns: list[Tensor]) -> tuple[list[Tensor], int]:
        """Return the queries of this process and the documents of all, and where its own documents begin."""
        if not self.gather_across_devices:
            return columns, 0
        gathered = [gather_rows(column) for column in columns[1:]]
        return [columns[0], *(rows for rows, _ in gathered)], gathered[0][1]

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {
            "guide": type(self.guide.encoder).__name__,
            "scale": self.scale,
            "similarity_fct": name_of(self.similarity_fct),
            "margin_strategy": self.margin_strategy,
            "margin": self.margin,
            "contrast_anchors": self.contrast_anchors,
            "contrast_positives": self.contrast_positives,
            "gather_across_devices": self.gather_across_devices,
        }

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{solatorio2024gistembed,
    title={GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning},
    author={Aivin V. Solatorio},
    year={2024},
    eprint={2402.16829},
    archivePrefix={arXiv},
    primaryClass={cs.LG},
    url={https://arxiv.org/abs/2402.16829},
}
"""
