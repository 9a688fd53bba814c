"""How well a similarity tells pairs of texts that belong together from pairs that do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from numpy.typing import NDArray

from sparse_encoder.evaluation.checks import (
    check_labels,
    check_lengths,
    check_numbers,
    check_texts,
    similarity_names,
)
from sparse_encoder.evaluation.embedding import EncodeOptions, sparsity
from sparse_encoder.evaluation.encoding_evaluator import Encoding, EncodingEvaluator, avg_flops
from sparse_encoder.evaluation.input_examples import InputExample, columns_of
from sparse_encoder.evaluation.pairs_metrics import (
    Labels,
    Scores,
    average_precision,
    best_accuracy,
    best_f1,
    matthews_correlation,
)
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import EncodingModel
from sparse_encoder.similarity import SimilarityFunction

_DISTANCES = {SimilarityFunction.EUCLIDEAN.value, SimilarityFunction.MANHATTAN.value}
_COLUMNS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")


class SparseBinaryClassificationEvaluator(EncodingEvaluator):
    """Call pairs of texts alike or not by a threshold, and measure how often that is right.

    For every similarity ``{name}_accuracy`` and ``{name}_f1`` at the threshold that is best for each,
    ``{name}_accuracy_threshold`` and ``{name}_f1_threshold``, ``{name}_precision``, ``{name}_recall`` and
    ``{name}_mcc`` at that of the F1, and ``{name}_ap``; with several similarities the greatest of each as ``max_...``.
    Thresholds of ``euclidean`` and ``manhattan`` are distances, not negative. ``active_dims`` and ``sparsity_ratio``
    count every text once. The primary metric is ``{name}_ap``, or ``max_ap``.

    What the peer does not have, and neither the table nor the model's card is told: ``avg_flops``, the terms that the
    first and the second text of a pair share by chance, and ``milliseconds_per_text``, the time to encode one.

    With an ``output_path`` a row is added to ``binary_classification_evaluation[_{name}]_results.csv``.

    Args:
        sentences1: The first text of each pair.
        sentences2: The second.
        labels: 1 if they belong together, else 0.
        name: Starts the name of every metric and ends that of the file.
        batch_size: Handed to the model.
        show_progress_bar: Handed to the model.
        write_csv: Write the row of results.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.
        similarity_fn_names: Which similarities are measured; ``None`` is that of the model of each call.

    Raises:
        TypeError: If a text is no text or a label no number, naming the row.
        ValueError: If the columns have different lengths or no rows, a label is neither 0 nor 1, or a similarity
            unknown.
    """

    def __init__(  # house: peer signature
        self,
        sentences1: Iterable[str],
        sentences2: Iterable[str],
        labels: Iterable[int],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        similarity_fn_names: Iterable[str | SimilarityFunction] | None = None,
    ) -> None:
        self.sentences1 = check_texts("sentences1", sentences1)
        self.sentences2 = check_texts("sentences2", sentences2)
        self._labels = check_labels("labels", labels)
        self.labels = self._labels.tolist()
        check_lengths({"sentences1": self.sentences1, "sentences2": self.sentences2, "labels": self.labels})
        self.similarity_fn_names = similarity_names(similarity_fn_names, None)
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        self.name, self.write_csv = name, write_csv
        self.csv_file = f"binary_classification_evaluation{'_' + name if name else ''}_results.csv"

    @classmethod
    def from_input_examples(  # house: peer signature
        cls,
        examples: Iterable[InputExample],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        similarity_fn_names: Iterable[str | SimilarityFunction] | None = None,
    ) -> Self:
        """Make one of examples with two ``texts`` and a ``label``; else as the constructor.

        Raises:
            TypeError: As the constructor.
            ValueError: If an example has not two texts, naming it.
        """
        columns = columns_of(examples, 2)
        first, second = columns.texts
        return cls(
            first,
            second,
            columns.labels,
            name=name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            max_active_dims=max_active_dims,
            similarity_fn_names=similarity_fn_names,
        )

    def __call__(
        self, model: EncodingModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`."""
        call = Call(output_path, epoch, steps)
        announce(self, call)
        found = self.compute_metrics(model)
        metrics = {f"{name}_{metric}": value for name, values in found.items() for metric, value in values.items()}
        if len(found) > 1:
            measured = next(iter(found.values()))
            metrics |= {f"max_{metric}": max(values[metric] for values in found.values()) for metric in measured}
        self.primary_metric = "max_ap" if len(found) > 1 else f"{next(iter(found))}_ap"
        terms = self.sparsity_stats
        columns = {f"{name}_{column}": values[column] for name, values in found.items() for column in _COLUMNS}
        return report(self, model, call, metrics | terms, columns | terms, costs=self.costs)

    def compute_metrics(self, model: EncodingModel) -> dict[str, dict[str, float]]:
        """Measure a model without a row of results.

        Returns:
            By similarity, by metric. Active terms are kept in ``sparsity_stats``, costs in ``costs``.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys([*self.sentences1, *self.sentences2]))}
        encode = Encoding(self, model)
        embeddings = encode("all different sentences", list(places))
        first, second = (
            embeddings[torch.tensor([places[text] for text in texts])] for texts in (self.sentences1, self.sentences2)
        )
        self.sparsity_stats = sparsity(embeddings)
        self.costs = {**avg_flops([first], [second]), **encode.costs()}
        found: dict[str, dict[str, float]] = {}
        for name in self.similarity_fn_names or [str(model.similarity_fn_name)]:
            scores = SimilarityFunction.to_similarity_pairwise_fn(name)(first, second).cpu().numpy()
            found[name] = measure_pairs(scores, self._labels, as_distance=name in _DISTANCES)
        return found

    @staticmethod
    def find_best_acc_and_threshold(
        scores: Iterable[float], labels: Iterable[int], high_score_more_similar: bool
    ) -> tuple[float, float]:
        """Return the best accuracy and the cut it is reached at; see :func:`~.pairs_metrics.best_accuracy`.

        Args:
            scores: Of pairs.
            labels: 0 or 1 for each.
            high_score_more_similar: Whether pairs above the cut are called alike, or those below it.

        Raises:
            TypeError: If a score or a label is no number, naming the row.
            ValueError: If they are not as many, or one is out of range, likewise.
        """
        best = best_accuracy(*_scored(scores, labels), higher_is_positive=high_score_more_similar)
        return best.accuracy, best.threshold

    @staticmethod
    def find_best_f1_and_threshold(
        scores: Iterable[float], labels: Iterable[int], high_score_more_similar: bool
    ) -> tuple[float, float, float, float]:
        """Return the best F1, its precision, its recall and the cut; arguments and errors as before."""
        best = best_f1(*_scored(scores, labels), higher_is_positive=high_score_more_similar)
        return best.f1, best.precision, best.recall, best.threshold

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return self.options.settings()


def _scored(scores: Iterable[float], labels: Iterable[int]) -> tuple[Scores, Labels]:
    """Check scores and their labels."""
    numbers, kinds = check_numbers("scores", scores), check_labels("labels", labels)
    check_lengths({"scores": numbers.tolist(), "labels": kinds.tolist()})
    if not len(numbers):
        raise ValueError("scores must not be empty")
    return numbers, kinds


def measure_pairs(scores: Scores, labels: Labels, *, as_distance: bool = False) -> dict[str, float]:
    """Measure how well scores tell labels apart.

    Args:
        scores: Greater for pairs that are more alike, (N).
        labels: 0 or 1, (N).
        as_distance: Take the scores for negative distances, and give thresholds as distances.

    Returns:
        Metrics by name.
    """
    cut: NDArray[Any] = -scores if as_distance else scores  # Any: the floating type of the scores
    accuracy = best_accuracy(cut, labels, higher_is_positive=not as_distance)
    f1 = best_f1(cut, labels, higher_is_positive=not as_distance)
    predicted = cut <= f1.threshold if as_distance else cut >= f1.threshold
    return {
        "accuracy": accuracy.accuracy,
        "accuracy_threshold": accuracy.threshold,
        "f1": f1.f1,
        "f1_threshold": f1.threshold,
        "precision": f1.precision,
        "recall": f1.recall,
        "ap": average_precision(scores, labels),
        "mcc": matthews_correlation(predicted.astype(labels.dtype), labels),
    }
