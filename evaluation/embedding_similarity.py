"""How well the similarity of two texts follows what people say of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from sparse_encoder.evaluation.checks import (
    check_lengths,
    check_numbers,
    check_texts,
    similarity_name,
    similarity_names,
)
from sparse_encoder.evaluation.embedding import EncodeOptions, sparsity
from sparse_encoder.evaluation.encoding_evaluator import Encoding, EncodingEvaluator, avg_flops
from sparse_encoder.evaluation.input_examples import InputExample, columns_of
from sparse_encoder.evaluation.pairs_metrics import pearson, spearman
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import EncodingModel
from sparse_encoder.similarity import SimilarityFunction


class SparseEmbeddingSimilarityEvaluator(EncodingEvaluator):
    """Correlate the similarities of pairs of texts with given scores.

    For every similarity ``pearson_{name}`` and ``spearman_{name}``, with several also their best, ``pearson_max`` and
    ``spearman_max``; ``active_dims`` and ``sparsity_ratio`` of all texts. A correlation is NaN if all similarities, or
    all scores, are equal. The primary metric is ``spearman_{name}`` of the main similarity, without one that of the
    only similarity or ``spearman_max``.

    What the peer does not have, and neither the table nor the model's card is told: ``avg_flops``, the terms that the
    first and the second text of a pair share by chance, and ``milliseconds_per_text``, the time to encode one.

    With an ``output_path`` a row is added to ``similarity_evaluation[_{name}]_results.csv``.

    Args:
        sentences1: The first text of each pair.
        sentences2: The second.
        scores: How alike they are, on any scale that rises.
        batch_size: Handed to the model.
        main_similarity: Which similarity the primary metric is about.
        similarity_fn_names: Which are measured; ``None`` is the main one, or that of the model of each call.
        name: Starts the name of every metric and ends that of the file.
        show_progress_bar: Handed to the model.
        write_csv: Write the row of results.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.

    Raises:
        TypeError: If a text is no text or a score no number, naming the row.
        ValueError: If the columns have different lengths or no rows, a score is not finite, or a similarity unknown.
    """

    def __init__(  # house: peer signature
        self,
        sentences1: Iterable[str],
        sentences2: Iterable[str],
        scores: Iterable[float],
        batch_size: int = 16,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: Iterable[str | SimilarityFunction] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> None:
        self.sentences1 = check_texts("sentences1", sentences1)
        self.sentences2 = check_texts("sentences2", sentences2)
        self.scores = check_numbers("scores", scores).tolist()
        check_lengths({"sentences1": self.sentences1, "sentences2": self.sentences2, "scores": self.scores})
        self.main_similarity = similarity_name(main_similarity)
        self.similarity_fn_names = similarity_names(similarity_fn_names, self.main_similarity)
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        self.name, self.write_csv = name, write_csv
        self.csv_file = f"similarity_evaluation{'_' + name if name else ''}_results.csv"

    @classmethod
    def from_input_examples(  # house: peer signature
        cls,
        examples: Iterable[InputExample],
        batch_size: int = 16,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: Iterable[str | SimilarityFunction] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> Self:
        """Make one of examples with two ``texts`` and a ``label``, the score; else as the constructor.

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
            batch_size=batch_size,
            main_similarity=main_similarity,
            similarity_fn_names=similarity_fn_names,
            name=name,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            max_active_dims=max_active_dims,
        )

    def __call__(
        self, model: EncodingModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`."""
        call = Call(output_path, epoch, steps)
        announce(self, call)
        encode = Encoding(self, model)
        first, second = encode("sentences1", self.sentences1), encode("sentences2", self.sentences2)
        names = self.similarity_fn_names or [str(model.similarity_fn_name)]
        metrics: dict[str, float] = {}
        columns: dict[str, float] = {}
        wanted = check_numbers("scores", self.scores)
        for name in names:
            found = SimilarityFunction.to_similarity_pairwise_fn(name)(first, second).cpu().numpy()
            metrics[f"pearson_{name}"] = columns[f"{name}_pearson"] = pearson(wanted, found)
            metrics[f"spearman_{name}"] = columns[f"{name}_spearman"] = spearman(wanted, found)
        if len(names) > 1:
            for kind in ("pearson", "spearman"):
                metrics[f"{kind}_max"] = float(np.fmax.reduce([metrics[f"{kind}_{name}"] for name in names]))
        self.primary_metric = f"spearman_{self.main_similarity or ('max' if len(names) > 1 else names[0])}"
        self.sparsity_stats = terms = sparsity(first, second)
        self.costs = {**avg_flops([first], [second]), **encode.costs()}
        return report(self, model, call, metrics | terms, columns | terms, costs=self.costs)

    @property
    def description(self) -> str:
        """What is evaluated, in words."""
        return "Semantic Similarity"

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return self.options.settings()
