"""How often a text is more like one that belongs to it than like one that does not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Self

from sparse_encoder.evaluation.checks import check_lengths, check_texts, similarity_name, similarity_names
from sparse_encoder.evaluation.embedding import EncodeOptions, sparsity
from sparse_encoder.evaluation.encoding_evaluator import Encoding, EncodingEvaluator, avg_flops
from sparse_encoder.evaluation.input_examples import InputExample, columns_of
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import RetrievalModel
from sparse_encoder.similarity import SimilarityFunction

logger = logging.getLogger(__name__)


class SparseTripletEvaluator(EncodingEvaluator):
    """Count the anchors that are more like their positive than like their negative, by more than a margin.

    For every similarity ``{name}_accuracy``, with several the best as ``max_accuracy``; ``active_dims`` and
    ``sparsity_ratio`` of anchors, positives and negatives. Anchors are encoded as queries, the others as documents. The
    primary metric is the accuracy of the main similarity, without one that of the only similarity or ``max_accuracy``.

    What the peer does not have, and neither the table nor the model's card is told: ``avg_flops``, the terms that an
    anchor shares by chance with a positive or a negative, and ``milliseconds_per_text``, the time to encode one.

    With an ``output_path`` a row is added to ``triplet_evaluation[_{name}]_results.csv``.

    Args:
        anchors: Texts.
        positives: A text that belongs to each.
        negatives: A text that does not.
        main_similarity_function: Which similarity the primary metric is about.
        margin: By how much the positive must be more alike, 0 if ``None``; or a number by similarity, 0 for those that
            are not there.
        name: Starts the name of every metric and ends that of the file.
        batch_size: Handed to the model.
        show_progress_bar: Handed to the model.
        write_csv: Write the row of results.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.
        similarity_fn_names: Which similarities are measured; ``None`` is the main one, or that of the model of each
            call.
        main_distance_function: The former name of ``main_similarity_function``, used if that is ``None``.

    Raises:
        TypeError: If a text is no text, naming the row, or the margin no number.
        ValueError: If the columns have different lengths or no rows, or a similarity is unknown.
    """

    def __init__(  # house: peer signature
        self,
        anchors: Iterable[str],
        positives: Iterable[str],
        negatives: Iterable[str],
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | Mapping[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        similarity_fn_names: Iterable[str | SimilarityFunction] | None = None,
        main_distance_function: str | SimilarityFunction | None = "deprecated",
    ) -> None:
        self.anchors = check_texts("anchors", anchors)
        self.positives = check_texts("positives", positives)
        self.negatives = check_texts("negatives", negatives)
        check_lengths({"anchors": self.anchors, "positives": self.positives, "negatives": self.negatives})
        if main_distance_function != "deprecated" and main_similarity_function is None:
            logger.warning("main_distance_function is deprecated, use main_similarity_function")
            main_similarity_function = main_distance_function
        self.main_similarity_function = similarity_name(main_similarity_function)
        self.similarity_fn_names = similarity_names(similarity_fn_names, self.main_similarity_function)
        self.margin = _margins(margin)
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        self.name, self.write_csv = name, write_csv
        self.csv_file = f"triplet_evaluation{'_' + name if name else ''}_results.csv"

    @classmethod
    def from_input_examples(  # house: peer signature
        cls,
        examples: Iterable[InputExample],
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | Mapping[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        similarity_fn_names: Iterable[str | SimilarityFunction] | None = None,
    ) -> Self:
        """Make one of examples whose ``texts`` are an anchor, a positive and a negative; else as the constructor.

        Raises:
            TypeError: As the constructor.
            ValueError: If an example has not three texts, naming it.
        """
        anchors, positives, negatives = columns_of(examples, 3).texts
        return cls(
            anchors,
            positives,
            negatives,
            main_similarity_function=main_similarity_function,
            margin=margin,
            name=name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            max_active_dims=max_active_dims,
            similarity_fn_names=similarity_fn_names,
        )

    def __call__(
        self, model: RetrievalModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`."""
        call = Call(output_path, epoch, steps)
        announce(self, call)
        encode = Encoding(self, model)
        anchors = encode("anchors", self.anchors, "query")
        positives = encode("positives", self.positives, "document")
        negatives = encode("negatives", self.negatives, "document")
        accuracies: dict[str, float] = {}
        for name in self.similarity_fn_names or [str(model.similarity_fn_name)]:
            similarity = SimilarityFunction.to_similarity_pairwise_fn(name)
            right = similarity(anchors, positives) > similarity(anchors, negatives) + self.margin[name]
            accuracies[name] = int(right.sum()) / len(self.anchors)
        metrics = {f"{name}_accuracy": accuracy for name, accuracy in accuracies.items()}
        if len(accuracies) > 1:
            metrics["max_accuracy"] = max(accuracies.values())
        best = "max" if len(accuracies) > 1 else next(iter(accuracies))
        self.primary_metric = f"{self.main_similarity_function or best}_accuracy"
        self.sparsity_stats = terms = {
            **sparsity(anchors, prefix="anchor_"),
            **sparsity(positives, prefix="positive_"),
            **sparsity(negatives, prefix="negative_"),
        }
        columns = {f"accuracy_{name}": accuracy for name, accuracy in accuracies.items()}
        self.costs = {**avg_flops([anchors], [positives, negatives]), **encode.costs()}
        return report(self, model, call, metrics | terms, columns | terms, costs=self.costs)

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return ({"margin": self.margin} if any(self.margin.values()) else {}) | self.options.settings()


def _margins(margin: float | Mapping[str, float] | None) -> dict[str, float]:
    """Return the margin of each similarity."""
    names = SimilarityFunction.possible_values()
    by_name = dict(margin) if isinstance(margin, Mapping) else dict.fromkeys(names, 0 if margin is None else margin)
    if unknown := sorted(set(by_name) - set(names)):
        raise ValueError(f"margin must be by similarity, unknown are {unknown}; choose from {names}")
    for name, value in by_name.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"margin must be a number or a dict of numbers, got {value!r} for {name}")
        if not isfinite(value):
            raise ValueError(f"margin must be finite, got {value} for {name}")
    return {**dict.fromkeys(names, 0), **by_name}
