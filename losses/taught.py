"""Labels that other encoders make while training runs, for any loss that learns from a teacher's scores."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss, LossValue
from sparse_encoder.losses.checks import check_ranking_loss
from sparse_encoder.losses.guides import TeacherEnsemble

Answer = TypeVar("Answer")  # scores, or embeddings of columns


class TaughtLoss(EmbeddingLoss):
    """Give a loss a teacher's scores of each query's own documents, (B, N), as labels; the batch's own are not used.

    Columns: (query, document_1, ..., document_N). Labels: none. Scores stored with the data cost less; those of
    several teachers become one by :func:`ensemble_scores`.

    Args:
        model: The encoder that is trained.
        loss: Learns from scores, as :class:`SparseMarginMSELoss` and :class:`SparseDistillKLDivLoss` do.
        teacher: Scores the texts of the batch.

    Raises:
        ValueError: If ``loss`` does not compute from embeddings.
    """

    def __init__(self, model: nn.Module, loss: EmbeddingLoss, teacher: TeacherEnsemble) -> None:
        super().__init__(model)
        check_ranking_loss(loss)
        self.loss = loss
        self.teacher = teacher
        self._scores: Tensor | None = None

    def look_at(self, columns: list[dict[str, Tensor]]) -> None:
        """Let the teacher score the texts of a batch."""
        super().look_at(columns)
        self._scores = self.teacher.scores(columns)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> LossValue:
        """Compare the columns of one batch, which must have been looked at.

        Args:
            embeddings: Term weights of queries and documents, (B, V) each.
            labels: Not used.

        Returns:
            What the loss returns.

        Raises:
            RuntimeError: If the features of the batch were not shown by :meth:`look_at`.
        """
        scores, self._scores = seen(self, self._scores), None
        own = scores.view(len(scores), -1, len(scores)).diagonal(dim1=0, dim2=2)  # (N, B)
        return self.loss.compute_loss_from_embeddings(embeddings, own.mT)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        teachers = [type(guide.encoder).__name__ for guide in self.teacher.guides]
        return {"loss": self.loss, "teachers": teachers, "score_scale": self.teacher.score_scale}


def seen(loss: nn.Module, answer: Answer | None) -> Answer:
    """Return what another encoder said of a batch.

    Raises:
        RuntimeError: If it was not asked.
    """
    if answer is None:
        raise RuntimeError(
            f"{type(loss).__name__} asks another encoder about the texts of a batch: call the loss itself, or a loss "
            "that is made of it, with features, or look_at(features) before"
        )
    return answer
