"""One vocabulary for tokenizer, backbone and pooling, also after it was resized."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol, runtime_checkable

from torch import nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.modules.splade_pooling import SpladePooling
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.tokenizer_check import check_token_count


@runtime_checkable
class HasVocabulary(Protocol):
    """A module with something of its own for every token."""

    def check_vocabulary(self) -> None:
        """Raise ``ValueError`` if a token has none."""


def check_vocabulary(tokenizer: Tokenizer, model: PretrainedModel) -> None:
    """Check that the backbone has an embedding for every token.

    Raises:
        ValueError: If it has too few.
    """
    check_token_count(tokenizer.vocab_size, model.config.vocab_size)


def check_routes(routes: nn.ModuleDict) -> None:
    """Check that the modules of every route know every token of their tokenizers.

    Args:
        routes: The modules of each, by its name.

    Raises:
        ValueError: If one does not; it says on which route.
    """
    for name, modules in routes.items():
        for module in modules.children():
            if not isinstance(module, HasVocabulary):
                continue
            try:
                module.check_vocabulary()
            except ValueError as reason:
                raise ValueError(f"route {name!r}: {reason}") from reason


def follow_vocabulary(modules: Iterable[nn.Module]) -> None:
    """Let each ``SpladePooling`` know the vocabulary of the head before it, which may have been resized.

    Args:
        modules: In the order in which they run.
    """
    for before, pooling in pairwise(modules):
        model = getattr(before, "auto_model", None)
        if not isinstance(pooling, SpladePooling) or not isinstance(model, PretrainedModel):
            continue
        if pooling.embedding_dimension is not None and model.get_output_embeddings() is not None:
            pooling.embedding_dimension = model.config.vocab_size
