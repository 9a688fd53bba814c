"""What evaluators that encode texts have in common: settings, and what encoding costs; knows no metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sparse_encoder.csr import NotFiniteError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.base import BaseEvaluator
from sparse_encoder.evaluation.embedding import EncodeOptions, check_finite

Kind = Literal["query", "document"]


class EncodingEvaluator(BaseEvaluator):
    """An evaluator that asks a model for embeddings.

    Args:
        options: How.

    Attributes:
        sparsity_stats: Active terms of the last call by name, without the evaluator's.
        costs: What the last call cost, likewise: neither the table nor the model's card is told.
    """

    def __init__(self, options: EncodeOptions) -> None:
        self.options = options
        self.sparsity_stats: dict[str, float] = {}
        self.costs: dict[str, float] = {}

    @property
    def batch_size(self) -> int:
        """Texts that a model encodes at a time."""
        return self.options.batch_size

    @property
    def show_progress_bar(self) -> bool:
        """Whether to show progress."""
        return self.options.show_progress_bar

    @property
    def max_active_dims(self) -> int | None:
        """Most active terms of a text; ``None`` leaves it to the model."""
        return self.options.max_active_dims

    def embed_inputs(
        self,
        model: Any,  # noqa: ANN401  (each evaluator says what it needs of a model)
        sentences: str | Sequence[str],
        encode_fn_name: Kind | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> SparseEmbeddings:
        """Encode texts as this evaluator does; a subclass may encode in another way.

        Args:
            model: What encodes.
            sentences: Texts, at least one, or one text.
            encode_fn_name: Whether they are queries or documents; ``None``: neither.
            prompt_name: Name of a prompt of the model.
            prompt: Text before each of them.

        Returns:
            (N, V), on the CPU (the peer returns a torch sparse tensor).

        Raises:
            ValueError: If ``encode_fn_name`` is something else, or the model returns another number of rows.
        """
        if encode_fn_name not in (None, "query", "document"):
            raise ValueError(f"encode_fn_name must be 'query', 'document' or None, got {encode_fn_name!r}")
        encode: Callable[..., Any] = getattr(model, "encode" if encode_fn_name is None else f"encode_{encode_fn_name}")
        prompts = {"prompt_name": prompt_name, "prompt": prompt}
        given = {name: value for name, value in prompts.items() if value is not None}
        return self.options.embed(encode, [sentences] if isinstance(sentences, str) else list(sentences), given)


class Encoding:
    """Encode the columns of one call of an evaluator, and take the time.

    Args:
        evaluator: Says how.
        model: What encodes.
    """

    def __init__(self, evaluator: EncodingEvaluator, model: object) -> None:
        self._evaluator, self._model = evaluator, model
        self._seconds, self._num_texts = 0.0, 0

    def __call__(self, name: str, texts: Sequence[str], encode_fn_name: Kind | None = None) -> SparseEmbeddings:
        """Encode a column, (N, V).

        Args:
            name: Of the column, for errors.
            texts: At least one.
            encode_fn_name: As for :meth:`EncodingEvaluator.embed_inputs`.

        Raises:
            ValueError: If an embedding is not finite, naming the row.
        """
        started = time.perf_counter()
        evaluator, model = self._evaluator, self._model
        found = embed_finite(
            lambda asked: evaluator.embed_inputs(model, asked, encode_fn_name),
            texts,
            lambda row: f"row {row} of {name}, {texts[row]!r:.60},",
        )
        self._seconds += time.perf_counter() - started
        self._num_texts += len(texts)
        return found

    def costs(self) -> dict[str, float]:
        """Return the mean time to encode a text, by name."""
        return {"milliseconds_per_text": 1000 * self._seconds / self._num_texts}


def embed_finite(
    embed: Callable[[Sequence[str]], SparseEmbeddings], texts: Sequence[str], name_of: Callable[[int], str]
) -> SparseEmbeddings:
    """Encode texts, and refuse embeddings that cannot be compared.

    Args:
        embed: Encodes them.
        texts: At least one.
        name_of: Says which text is at a position.

    Returns:
        (N, V).

    Raises:
        ValueError: If a weight is NaN or infinite, naming its text.
    """
    try:
        found = embed(texts)
    except NotFiniteError as error:
        row = error.row
        if row is None or row >= len(texts) or not _is_not_finite(embed, texts[row]):
            raise  # the position was one among the texts of a helper
        raise ValueError(f"embeddings must be finite, those of {name_of(row)} are not: {error}") from error
    check_finite(found, name_of)
    return found


def _is_not_finite(embed: Callable[[Sequence[str]], SparseEmbeddings], text: str) -> bool:
    try:
        embed([text])
    except NotFiniteError:
        return True
    return False


def avg_flops(first: Sequence[SparseEmbeddings], second: Sequence[SparseEmbeddings]) -> Mapping[str, float]:
    """Return how many terms a text of one side shares with a text of the other on average, by name.

    It is the number of multiplications that a comparison of two such texts costs.

    Args:
        first: (N, V) each, at least one row in all.
        second: (M, V) each, likewise.
    """
    counts = []
    for side in (first, second):
        terms = ActiveTerms()
        for matrix in side:
            terms.add(matrix)
        counts.append(terms)
    return {"avg_flops": counts[0].flops(counts[1])}
