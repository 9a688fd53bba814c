"""Distillation over all documents of a batch: those of the other queries are negatives that the teacher scores too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, check_positive, checked_columns, checked_labels, name_of
from sparse_encoder.losses.distill_kl_div import kl_divergence
from sparse_encoder.losses.guides import TeacherEnsemble
from sparse_encoder.losses.scores import ALL_WITH_ALL, Similarity
from sparse_encoder.losses.taught import seen
from sparse_encoder.similarity import dot_score


class _InBatchDistillation(EmbeddingLoss):
    """Score all queries with all documents, by the student and by the teacher."""

    def __init__(self, model: nn.Module, teacher: TeacherEnsemble | None, similarity_fct: Similarity) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ALL_WITH_ALL)
        self.teacher = teacher
        self.similarity_fct = similarity_fct
        self._scores: Tensor | None = None

    def look_at(self, columns: list[dict[str, Tensor]]) -> None:
        """Let the teacher, if there is one, score the texts of a batch."""
        if self.teacher is not None:
            self._scores = self.teacher.scores(columns)

    def _both_scores(self, embeddings: list[Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the scores of student and teacher, (B, N) each, N the documents of all columns and rows."""
        queries, *documents = checked_columns(self, embeddings, 2, "a query and its document")
        shape = (len(queries), len(queries) * len(documents))
        if self.teacher is not None:
            labels, self._scores = seen(self, self._scores), None
        given = checked_labels(
            self, labels, "a teacher's scores of all queries with all documents", shape, is_bounded=True
        )
        scores = self.similarity_fct(queries, torch.cat(documents))
        return scores, given.to(scores.dtype)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        teachers = [] if self.teacher is None else [type(guide.encoder).__name__ for guide in self.teacher.guides]
        return {"teachers": teachers, "similarity_fct": name_of(self.similarity_fct)}


class SparseInBatchMarginMSELoss(_InBatchDistillation):
    r"""Bring the margins between a query's document and all other documents of the batch to those of a teacher.

    .. math:: \frac{1}{B (N - 1)} \sum_i \sum_{j \ne i}
              \bigl( (s(q_i, d_i) - s(q_i, d_j)) - (y_{ii} - y_{ij}) \bigr)^2

    Columns: (query, positive, negative_1, ..., negative_k), any k. Labels: none with a teacher; without one its scores,
    (B, N) with N = B (k + 1), the positives of all rows first.

    Source: Hofstätter et al., 2021, https://arxiv.org/abs/2104.06967.

    Args:
        model: The encoder that is trained.
        teacher: Scores the texts of the batch.
        similarity_fct: Maps (B, V) and (N, V) to scores (B, N).
    """

    def __init__(
        self, model: nn.Module, teacher: TeacherEnsemble | None = None, *, similarity_fct: Similarity = dot_score
    ) -> None:
        super().__init__(model, teacher, similarity_fct)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare all queries and documents of one batch.

        Args:
            embeddings: Term weights of queries, positives and negatives, (B, V) each.
            labels: Scores of all pairs, (B, N), if there is no teacher.

        Returns:
            Scalar tensor.

        Raises:
            RuntimeError: If there is a teacher that was not shown the batch.
            ValueError: If columns or labels are missing or of another shape.
        """
        scores, given = self._both_scores(embeddings, labels)
        missed = scores - given
        missed = missed.diagonal().unsqueeze(1) - missed  # (B, N), 0 for the positive itself
        return missed.square().sum() / (missed.numel() - len(missed)) if missed.shape[1] > 1 else missed.sum()


class SparseInBatchDistillKLDivLoss(_InBatchDistillation):
    r"""Bring the softmax over all documents of the batch to that of a teacher.

    As :class:`SparseDistillKLDivLoss`, with the documents of all rows. Columns: (query, document_1, ..., document_k).
    Labels: none with a teacher; without one its scores, (B, B k), the first documents of all rows first.

    Source: Lin et al., 2020, https://arxiv.org/abs/2010.11386.

    Args:
        model: The encoder that is trained.
        teacher: Scores the texts of the batch.
        similarity_fct: Maps (B, V) and (N, V) to scores (B, N).
        student_temperature: Divides the student's scores.
        teacher_temperature: Divides the teacher's scores.

    Raises:
        TypeError: If a temperature is not a number.
        ValueError: If a temperature is not above 0 and finite.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: TeacherEnsemble | None = None,
        *,
        similarity_fct: Similarity = dot_score,
        student_temperature: float = 2.0,
        teacher_temperature: float = 2.0,
    ) -> None:
        super().__init__(model, teacher, similarity_fct)
        check_positive("student_temperature", student_temperature)
        check_positive("teacher_temperature", teacher_temperature)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare all queries and documents of one batch.

        Args:
            embeddings: Term weights of queries and documents, (B, V) each.
            labels: Scores of all pairs, (B, N), if there is no teacher.

        Returns:
            Scalar tensor.

        Raises:
            RuntimeError: If there is a teacher that was not shown the batch.
            ValueError: If columns or labels are missing or of another shape.
        """
        scores, given = self._both_scores(embeddings, labels)
        return kl_divergence(scores, given, self.student_temperature, self.teacher_temperature)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        temperatures = {name: getattr(self, name) for name in ("student_temperature", "teacher_temperature")}
        return super().get_config_dict() | temperatures
