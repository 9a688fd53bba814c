"""Distillation of a ranking's distribution: how a teacher shares out its belief; knows no teacher, only its scores."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_function, check_positive, checked_columns, checked_labels, name_of
from sparse_encoder.losses.scores import ROW_BY_ROW, Similarity, document_scores
from sparse_encoder.similarity import pairwise_dot_score

logger = logging.getLogger(__name__)


class SparseDistillKLDivLoss(EmbeddingLoss):
    r"""Bring the softmax over the documents of a query to that of a teacher.

    .. math:: \frac{T_s^2}{B} \sum_{i,j} t_{ij} \bigl( \log t_{ij} - \log s_{ij} \bigr), \quad
              t_i = \text{softmax}(y_i / T_t), \; s_i = \text{softmax}(s(q_i, d_{i \cdot}) / T_s)

    Columns: (query, document_1, ..., document_N), N of 2 or more. Labels: the teacher's scores of the documents,
    (B, N). The labels of the first batch are looked at: NaN and +inf are refused, and a teacher so sure that documents
    have no probability left is warned of.

    Source: Lin et al., 2020, https://arxiv.org/abs/2010.11386. Unlike the peer's, this loss also works without a
    regulariser.

    Args:
        model: The encoder that is trained.
        similarity_fct: Maps (B, V) and (B, V), row by row, to scores (B,).
        temperature: Divides the scores of both.
        student_temperature: T_s, if other than ``temperature``.
        teacher_temperature: T_t, if other than ``temperature``.

    Raises:
        TypeError: If a temperature is not a number.
        ValueError: If a temperature is not above 0 and finite.
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 2.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(model)
        check_function("similarity_fct", similarity_fct, ROW_BY_ROW)
        self.similarity_fct = similarity_fct
        self.temperature = temperature
        self.student_temperature = temperature if student_temperature is None else student_temperature
        self.teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
        for name in ("temperature", "student_temperature", "teacher_temperature"):
            check_positive(name, getattr(self, name))
        self._has_looked_at_labels = False

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch.

        Args:
            embeddings: Term weights of queries and of two or more documents, (B, V) each.
            labels: The teacher's scores of the documents, (B, N).

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If columns or labels are missing or of another shape, or labels hold NaN or +inf.
        """
        queries, *documents = checked_columns(self, embeddings, 3, "a query and two or more documents")
        given = checked_labels(
            self, labels, "a teacher's scores of the documents", (len(queries), len(documents)), is_bounded=True
        )
        if not self._has_looked_at_labels:
            self._has_looked_at_labels = True
            look_at_teacher(self, given, self.teacher_temperature)
        scores = document_scores(queries, documents, self.similarity_fct)  # (B, N)
        return kl_divergence(scores, given, self.student_temperature, self.teacher_temperature)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        config = {"similarity_fct": name_of(self.similarity_fct), "temperature": self.temperature}
        for name in ("student_temperature", "teacher_temperature"):
            if getattr(self, name) != self.temperature:
                config[name] = getattr(self, name)
        return config

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{lin2020distilling,
    title={Distilling Dense Representations for Ranking using Tightly-Coupled Teachers},
    author={Sheng-Chieh Lin and Jheng-Hong Yang and Jimmy Lin},
    year={2020},
    eprint={2010.11386},
    archivePrefix={arXiv},
    primaryClass={cs.IR},
    url={https://arxiv.org/abs/2010.11386},
}
"""


def kl_divergence(scores: Tensor, teacher: Tensor, student_temperature: float, teacher_temperature: float) -> Tensor:
    """Return the divergence of two rankings, times the square of the student's temperature.

    Args:
        scores: The student's, (B, N).
        teacher: The teacher's, (B, N).
        student_temperature: Divides the student's scores.
        teacher_temperature: Divides the teacher's scores.

    Returns:
        Scalar tensor, the mean over the rows.
    """
    wanted = (teacher.to(scores.dtype) / teacher_temperature).softmax(dim=1)
    found = (scores / student_temperature).log_softmax(dim=1)
    divergence = nn.functional.kl_div(found, wanted, reduction="batchmean")
    return divergence * student_temperature**2


def look_at_teacher(loss: nn.Module, scores: Tensor, temperature: float) -> None:
    """Look at the scores of a teacher; this waits for the device, so once per loss is enough.

    A score of -inf takes a document out on purpose, so scores with one are not warned of.

    Raises:
        ValueError: If there is NaN or +inf among them.
    """
    name = type(loss).__name__
    wide = scores.detach().float()
    if wide.isnan().any():
        raise ValueError(f"the labels of {name}, a teacher's scores, hold NaN")
    if wide.isposinf().any():
        raise ValueError(f"the labels of {name}, a teacher's scores, hold infinity; -inf is what takes a document out")
    if wide.isinf().any():
        return
    lost = int(((wide / temperature).softmax(dim=1) == 0).sum())
    if lost:
        spread = float((wide.amax(dim=1) - wide.amin(dim=1)).max())
        logger.warning(
            "%s: with teacher_temperature=%s, %d of %d of the teacher's scores have a probability of 0 and teach "
            "nothing; scores of one query are up to %.1f apart, for which it should be above %.3g",
            name,
            temperature,
            lost,
            wide.numel(),
            spread,
            spread / 100,
        )
