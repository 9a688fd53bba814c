"""What every evaluator offers to a trainer; knows nothing of what is measured."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class BaseEvaluator(ABC):
    """Measure a model.

    Attributes:
        primary_metric: The key of the result that stands for the whole, once it is known.
        greater_is_better: Whether it should rise.
    """

    primary_metric: str | None = None
    greater_is_better: bool = True

    @abstractmethod
    def __call__(
        self,
        model: Any,  # noqa: ANN401  (each evaluator says what it needs of a model)
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> float | dict[str, float]:
        """Measure a model.

        Args:
            model: What to measure.
            output_path: Folder for what is written, made if it does not exist; ``None`` writes nothing.
            epoch: When in training this is, for what is written; -1 outside of it.
            steps: Likewise.

        Returns:
            Metrics by name, :attr:`primary_metric` among them, or one number.
        """

    def prefix_name_to_metrics(self, metrics: Mapping[str, float], name: str) -> dict[str, float]:
        """Put ``name_`` before every key and before :attr:`primary_metric`; an empty name changes nothing.

        Returns:
            The metrics as plain floats.
        """
        if not name:
            return {key: float(value) for key, value in metrics.items()}
        if self.primary_metric is not None and not self.primary_metric.startswith(f"{name}_"):
            self.primary_metric = f"{name}_{self.primary_metric}"
        return {f"{name}_{key}": float(value) for key, value in metrics.items()}

    def store_metrics_in_model_card_data(
        self,
        model: Any,  # noqa: ANN401  (only its card is asked for)
        metrics: Mapping[str, float],
        epoch: float = 0,
        step: int = 0,
    ) -> None:
        """Hand the metrics to the model's card, if it has one that keeps them."""
        keep = getattr(getattr(model, "model_card_data", None), "set_evaluation_metrics", None)
        if keep is not None:
            keep(self, metrics, epoch, step)

    @property
    def description(self) -> str:
        """What is evaluated, in words: of ``BinaryClassificationEvaluator`` "Binary Classification"."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__.partition("Evaluator")[0])

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {}


SentenceEvaluator = BaseEvaluator
SparseEvaluator = BaseEvaluator
