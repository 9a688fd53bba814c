"""What models of every backend share beside encoding: how they compare, and that they are evaluated. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.similarity_names import SimilarityFunction

if TYPE_CHECKING:
    from sparse_encoder.evaluation import SentenceEvaluator


class ComparingModel:
    """Name the function that compares embeddings, and be evaluated; a base of models of both backends."""

    _similarity_fn_name: str | None

    if TYPE_CHECKING:

        def get_backend(self) -> str:
            """Return what runs the model."""

    @property
    def backend(self) -> str:
        """What runs the model, as :meth:`get_backend` says."""
        return self.get_backend()

    @property
    def similarity_fn_name(self) -> str:
        """How embeddings are compared: ``"dot"`` unless it was set; asking does not set it, as it does in the peer."""
        return self._similarity_fn_name or SimilarityFunction.DOT.value

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        """Set it; ``None`` for the usual one."""
        self._similarity_fn_name = None if value is None else SimilarityFunction(value).value

    def evaluate(self, evaluator: SentenceEvaluator, output_path: str | None = None) -> dict[str, float] | float:
        """Call an evaluator on this model; makes the folder ``output_path`` first, for what it writes."""
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)
