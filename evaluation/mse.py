"""How far a student's term weights are from a teacher's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.checks import check_lengths, check_texts
from sparse_encoder.evaluation.embedding import EncodeOptions, sparsity
from sparse_encoder.evaluation.encoding_evaluator import Encoding, EncodingEvaluator, avg_flops
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import EncodingModel


class SparseMSEEvaluator(EncodingEvaluator):
    """Compare the embeddings of a model with those that a teacher gives to the same, or translated, texts.

    ``negative_mse`` is -100 times the mean squared difference over all texts and terms; it is computed on sparse rows
    (the peer's are dense). Besides, ``active_dims`` and ``sparsity_ratio`` of the model measured.

    What the peer does not have, and neither the table nor the model's card is told: ``avg_flops``, the terms that two
    texts share by chance in the model measured, and ``milliseconds_per_text``, the time to encode one.

    With an ``output_path`` a row is added to ``mse_evaluation_{name}_results.csv``.

    Args:
        source_sentences: What the teacher embeds, once, now.
        target_sentences: What the model embeds.
        teacher_model: Has ``encode``.
        show_progress_bar: Handed to the models.
        batch_size: Handed to the models.
        name: Starts the name of every metric and ends that of the file.
        write_csv: Write the row of results.
        max_active_dims: Most active terms of a text, also of the teacher's; ``None`` leaves it to the models.

    Raises:
        TypeError: If there is no teacher, or a text is no text, naming the row.
        ValueError: If the columns have different lengths or no rows.
    """

    def __init__(  # house: peer signature
        self,
        source_sentences: Iterable[str],
        target_sentences: Iterable[str],
        teacher_model: EncodingModel | None = None,
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> None:
        source = check_texts("source_sentences", source_sentences)
        self.target_sentences = check_texts("target_sentences", target_sentences)
        check_lengths({"source_sentences": source, "target_sentences": self.target_sentences})
        if teacher_model is None or isinstance(teacher_model, str):
            raise TypeError(
                "teacher_model must be a model, and opened: what it makes of source_sentences is the measure"
            )
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        self.name, self.write_csv = name, write_csv
        self.csv_file = f"mse_evaluation_{name}_results.csv"
        self.primary_metric = "negative_mse"
        self.source_embeddings = Encoding(self, teacher_model)("source_sentences", source)

    def __call__(
        self, model: EncodingModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`.

        Raises:
            ValueError: If it has other terms than the teacher.
        """
        call = Call(output_path, epoch, steps)
        announce(self, call)
        encode = Encoding(self, model)
        target = encode("target_sentences", self.target_sentences)
        mse = 100 * mean_squared_error(self.source_embeddings, target)
        self.sparsity_stats = terms = sparsity(target)
        self.costs = {**avg_flops([target], [target]), **encode.costs()}
        return report(self, model, call, {"negative_mse": -mse} | terms, {"MSE": mse} | terms, costs=self.costs)

    @property
    def description(self) -> str:
        """What is evaluated, in words."""
        return "Knowledge Distillation"

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return self.options.settings()


def mean_squared_error(a: SparseEmbeddings, b: SparseEmbeddings) -> float:
    """Return the mean squared difference of all weights, those that are 0 included, (N, V) both.

    Raises:
        ValueError: If the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"teacher and model must have the same terms and texts, got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    difference = a.to_scipy() - b.to_scipy()
    return float(np.square(difference.data.astype(np.float64)).sum()) / (a.shape[0] * a.shape[1])
