"""Distillation of margins: how much better the positive is than each negative; knows no teacher, only its scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, checked_columns, checked_labels, name_of
from sparse_encoder.losses.scores import ROW_BY_ROW, Similarity, document_scores
from sparse_encoder.similarity import pairwise_dot_score


class SparseMarginMSELoss(EmbeddingLoss):
    r"""Bring the margins between positive and negatives to those of a teacher.

    .. math:: \frac{1}{Bk} \sum_{i,j} \bigl( s(q_i, p_i) - s(q_i, n_{ij}) - y_{ij} \bigr)^2

    Columns: (query, positive, negative_1, ..., negative_k). Labels: the teacher's margins, (B, k), or (B,) with one
    negative; or its scores of the positive and the negatives, (B, k + 1).

    Source: Hofstätter et al., 2020, https://arxiv.org/abs/2010.02666. Unlike the peer's, this loss also works without
    a regulariser.

    Args:
        model: The encoder that is trained.
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).
    """

    def __init__(self, model: nn.Module, similarity_fct: Similarity = pairwise_dot_score) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ROW_BY_ROW)
        self.similarity_fct = similarity_fct

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch.

        Args:
            embeddings: Term weights of queries, positives and negatives, (B, V) each.
            labels: Margins (B, k) or, with one negative, (B,); or scores (B, k + 1).

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If columns or labels are missing or of another shape.
        """
        queries, *documents = checked_columns(self, embeddings, 3, "a query, a positive and negatives")
        rows, negatives = len(queries), len(documents) - 1
        shapes = [(rows, negatives), (rows, negatives + 1), *([(rows,)] if negatives == 1 else [])]
        given = checked_labels(self, labels, "a teacher's margins, or its scores of all documents", *shapes)
        if given.shape == (rows, negatives + 1):
            given = given[:, :1] - given[:, 1:]
        scores = document_scores(queries, documents, self.similarity_fct)  # (B, k + 1)
        return functional.mse_loss(scores[:, :1] - scores[:, 1:], given.reshape(rows, negatives).to(scores.dtype))

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"similarity_fct": name_of(self.similarity_fct)}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{hofstaetter2020improving,
    title={Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation},
    author={Sebastian Hofst{\\"a}tter and Sophia Althammer and Michael Schr{\\"o}der and Mete Sertkan
        and Allan Hanbury},
    year={2020},
    eprint={2010.02666},
    archivePrefix={arXiv},
    primaryClass={cs.IR},
    url={https://arxiv.org/abs/2010.02666},
}
"""
