"""A route that is ready: its tokenizer, and the graph or the table that makes weights of tokens."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.serving.folder import ModelFolder, Route
from sparse_encoder.serving.session import GraphSession
from sparse_encoder.serving.text_settings import positions_of, vocabulary_of
from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.tokenizer import UNLIMITED, Tokenizer
from sparse_encoder.tokenizer_check import check_token_count


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedRoute:
    """Tokens of texts in, weights out, by one graph or one table."""

    route: Route
    num_dimensions: int
    """The number of terms V."""
    positions: int | None = None
    """Most tokens of a text that the graph takes, where padding has to stop; ``None`` for any."""
    session: GraphSession | None = None
    """The graph; ``None`` where there is a table."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of this route."""
        return self.route.tokenizer

    @property
    def weights(self) -> NDArray[Any] | None:
        """The table, (V,), Any: a floating type; ``None`` where there is a graph."""
        return self.route.weights

    @property
    def max_seq_length(self) -> int:
        """The number of tokens at which texts are cut."""
        return self.tokenizer.model_max_length

    def set_max_seq_length(self, value: int | None) -> None:
        """Set the number of tokens at which texts are cut; ``None`` for as many as there are positions.

        Raises:
            TypeError: If it is no integer.
            ValueError: If it is more than there are positions, or not positive.
        """
        limit = self.positions or UNLIMITED
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
            raise TypeError(f"max_seq_length must be an integer or None, got {value!r}")
        value = None if value is None else operator.index(value)
        if value is not None and not 0 < value <= limit:
            raise ValueError(f"max_seq_length must be between 1 and {limit}, the positions of the model, got {value}")
        self.tokenizer.model_max_length = limit if value is None else value

    def tokenize(self, texts: Sequence[str], *, prompt: str, task: str | None, max_length: int | None) -> TokenBatch:
        """Tokenise and cut texts, with a prompt before each."""
        length = self.route.text.length_of(task, max_length)
        limit = self.max_seq_length if length is None else min(length, self.max_seq_length)
        return self.tokenizer.encode_batch(
            [prompt + text for text in texts] if prompt else list(texts),
            max_length=limit,
            add_special_tokens=self.route.text.add_special_tokens,
        )


def serve_routes(
    folder: Path, plan: ModelFolder, sessions: Mapping[str | None, GraphSession]
) -> dict[str | None, ServedRoute]:
    """Put tokenizers and graphs together.

    Args:
        folder: The model's folder.
        plan: Its routes.
        sessions: The graph of each route that needs one.

    Raises:
        TokenizerError: If a tokenizer has more tokens than a graph has terms.
        CheckpointError: If a graph has more terms than its model's vocabulary.
    """
    served = {}
    for name, route in plan.routes.items():
        if route.weights is not None:
            served[name] = ServedRoute(route=route, num_dimensions=len(route.weights))
            continue
        session = sessions[name]
        dim = session.num_dimensions or route.tokenizer.vocab_size
        if route.pooling is not None:  # the terms are the vocabulary
            check_token_count(route.tokenizer.vocab_size, dim, session.path)
            _check_vocabulary(folder, dim, session.path)
        positions = session.longest or positions_of(folder)
        if positions is not None:
            route.tokenizer.model_max_length = min(route.tokenizer.model_max_length, positions)
        served[name] = ServedRoute(route=route, num_dimensions=dim, positions=positions, session=session)
    return served


def _check_vocabulary(folder: Path, num_dimensions: int, graph: Path) -> None:
    """Check the terms of a graph that pools as SPLADE does against what the checkpoint says, where it is there."""
    told = vocabulary_of(folder)
    if told is not None and num_dimensions > told:
        raise CheckpointError(f"has {num_dimensions} terms, and config.json a vocabulary of {told}", path=graph)
