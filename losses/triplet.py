"""A query nearer to its positive than to its negative, by a margin; knows distances, not scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sparse_encoder.losses.base import EmbeddingLoss
from sparse_encoder.losses.checks import check_finite, check_function, exact_columns, name_of
from sparse_encoder.similarity import pairwise_cos_sim, pairwise_euclidean_sim, pairwise_manhattan_sim

Distance = Callable[[Tensor, Tensor], Tensor]


class TripletDistanceMetric:
    """Distances, row by row: (B, V) and (B, V) to (B,)."""

    @staticmethod
    def COSINE(x: Tensor, y: Tensor) -> Tensor:  # names of the peer
        """Return ``1 - cos``."""
        return 1 - pairwise_cos_sim(x, y)

    @staticmethod
    def EUCLIDEAN(x: Tensor, y: Tensor) -> Tensor:
        """Return the length of the difference."""
        return -pairwise_euclidean_sim(x, y)

    @staticmethod
    def MANHATTAN(x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of absolute differences."""
        return -pairwise_manhattan_sim(x, y)


NAMES = {
    getattr(TripletDistanceMetric, name): f"TripletDistanceMetric.{name}"
    for name in ("COSINE", "EUCLIDEAN", "MANHATTAN")
}


class SparseTripletLoss(EmbeddingLoss):
    r"""Let the positive be nearer than the negative by a margin.

    .. math:: \frac{1}{B} \sum_i \max \bigl( 0, d(q_i, p_i) - d(q_i, n_i) + \text{margin} \bigr)

    Columns: (query, positive, negative). Labels: none.

    Source: Hermans et al., 2017, https://arxiv.org/abs/1703.07737. Unlike the peer's, this loss also works without a
    regulariser.

    Args:
        model: The encoder that is trained.
        distance_metric: d, one of :class:`TripletDistanceMetric` or another function of two matrices.
        triplet_margin: In units of the distance.

    Raises:
        TypeError: If ``triplet_margin`` is not a number.
        ValueError: If it is infinite or NaN, or ``distance_metric`` is no function, such as a name.
    """

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Distance = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__(model)
        check_finite("triplet_margin", triplet_margin)
        names = ", ".join(NAMES.values())
        check_function("distance_metric", distance_metric, f"{names} or another function of two matrices")
        self.distance_metric = distance_metric
        self.triplet_margin = triplet_margin

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compare the columns of one batch.

        Args:
            embeddings: Term weights of queries, positives and negatives, (B, V) each.
            labels: Not used.

        Returns:
            Scalar tensor.

        Raises:
            ValueError: If there are not three columns.
        """
        queries, positives, negatives = exact_columns(self, embeddings, 3, "a query, a positive and a negative")
        nearer = self.distance_metric(queries, positives) - self.distance_metric(queries, negatives)
        return (nearer + self.triplet_margin).relu().mean()

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        name = NAMES.get(self.distance_metric) or name_of(self.distance_metric)
        return {"distance_metric": name, "triplet_margin": self.triplet_margin}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{hermans2017defense,
    title={In Defense of the Triplet Loss for Person Re-Identification},
    author={Alexander Hermans and Lucas Beyer and Bastian Leibe},
    year={2017},
    eprint={1703.07737},
    archivePrefix={arXiv},
    primaryClass={cs.CV},
    url={https://arxiv.org/abs/1703.07737},
}
"""
