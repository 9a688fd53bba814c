"""What stands on top of the transformer. Knows nothing of pooling and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.feed_forward import ACTIVATIONS
from sparse_encoder.backbone.few_rows import linear


class Factors(NamedTuple):
    """Logits that are still to be computed: ``hidden @ weight.T + bias``."""

    hidden: Tensor
    """(.., E)."""
    weight: Tensor
    """(V, E)."""
    bias: Tensor | None
    """(V,)."""


class VocabularyHead(nn.Module, ABC):
    """What a head with a table of the vocabulary has, whatever it does before."""

    weight: nn.Parameter
    """Of the decoder, (V, E)."""
    bias: nn.Parameter | None
    """Of the decoder, (V,); None for a model without."""

    @abstractmethod
    def transform(self, hidden: Tensor) -> Tensor:
        """Return what the decoder reads: hidden states (.., D) become (.., E)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (.., V) of hidden states (.., D)."""
        return F.linear(self.transform(hidden), self.weight, self.bias)

    def factors(self, hidden: Tensor) -> Factors:
        """Return what the logits of hidden states (.., D) are a product of, for those who reduce them at once."""
        return Factors(self.transform(hidden), self.weight, self.bias)

    @property
    def in_features(self) -> int:
        """Columns of the table, E."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Rows of the table, V."""
        return self.weight.shape[0]


class MaskedLanguageHead(VocabularyHead):
    r"""Score every word of the vocabulary at every place.

    .. math:: W \, n(a(D h)) + b

    Source: Devlin et al., 2018, https://arxiv.org/abs/1810.04805.

    Args:
        config: Which head. The model that owns it ties :attr:`weight` to the word embeddings.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.word_size, bias=config.head_bias)
        self.activate = ACTIVATIONS[config.head_activation].new
        self.norm = nn.LayerNorm(config.word_size, eps=config.norm_eps, bias=config.norm_bias)
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.word_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None

    def transform(self, hidden: Tensor) -> Tensor:
        """Return what the decoder reads: hidden states (.., D) become (.., E)."""
        transformed: Tensor = self.norm(self.activate(self.dense(hidden)))
        return transformed


class LinearHead(VocabularyHead):
    r"""Score every word of the vocabulary by the table alone.

    .. math:: W (s h) + b

    Args:
        config: Which head. The model that owns it ties :attr:`weight` to the word embeddings.
    """

    logits_bias: Tensor | None
    """Added to the logits and not trained, (1, V); None for a model without."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.word_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.decoder_bias else None
        self.scale = config.head_scale
        self.register_buffer("logits_bias", torch.zeros(1, config.vocab_size) if config.logits_bias else None)

    def transform(self, hidden: Tensor) -> Tensor:
        """Return the hidden states, multiplied with the family's scale."""
        return hidden if self.scale == 1 else hidden * self.scale

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (.., V) of hidden states (.., D)."""
        logits = linear(self.transform(hidden), self.weight, self.bias)
        return logits if self.logits_bias is None else logits + self.logits_bias


def build_head(config: TransformerConfig) -> VocabularyHead:
    """Build the head that a config describes."""
    return LinearHead(config) if config.head_kind == "linear" else MaskedLanguageHead(config)
