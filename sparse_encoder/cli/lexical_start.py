r"""Weights with which an untrained BERT already ranks like BM25. Knows no texts, only how rare each term is.

Random weights would have to learn first that a word stands for itself. Here that is where training starts from:

* Each term has a direction of its own; the decoder is tied to the embeddings, so a state along a term's direction gives
  that term a logit, and all others one that their bias brings below zero.
* The first attention layer looks for the token's own copies: with the score s for a copy, 0 for another token and c
  for ``[CLS]``, a token that a text of l tokens has f times pays its copies the share

  .. math:: a = \frac{f}{f + e^{c - s} + e^{-s} (l - f)}

  which is BM25's :math:`f / (f + k_1 (1 - b + b \, l / L))` with :math:`e^{c - s} = k_1 (1 - b)` and
  :math:`e^{-s} = k_1 b / L`. The layer adds :math:`\kappa a` times the token's direction to its state, so that the
  logit of a term grows with a.
* The norms of a term's embedding make its weight the square root of its idf where a is 1/2: query and document
  multiply to the idf.

Layer norms would undo all of this. A few dimensions are therefore set aside for constants so large that they decide
the norm of every state; layer norms then only scale. All other weights are small and random, as in any BERT.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import torch
from torch import Tensor, nn

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.heads import MaskedLanguageHead
from sparse_encoder.backbone.layer import Layer

TYPICAL_SHARE = 0.5
"""The attention share a at which a weight is what it should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LexicalStart:
    """The numbers of the construction.

    Raises:
        ValueError: If one is out of range.
    """

    k1: float = 1.2
    b: float = 0.75
    mean_length: float = 100.0
    """Tokens of a typical document, L."""
    strength: float = 0.4
    """Weight of a term whose idf is 1."""
    threshold: float = 1.6
    """What a logit loses before it counts, in the length of a state that no attention has added to."""
    gain: float = 4.0
    """What a share of 1 adds to a state, in the same unit."""
    constant: float = 64.0
    """Size of the constants; states have 1 per dimension."""
    noise: float = 0.3
    """Size of the weights that carry no meaning yet, against BERT's own."""

    def __post_init__(self) -> None:
        """Check what would divide by zero or leave no term active."""
        if not (self.k1 > 0 and 0 < self.b < 1 and self.mean_length > 0):
            raise ValueError(
                f"k1 and mean_length must be > 0 and b between 0 and 1, got {self.k1}, {self.mean_length} and {self.b}"
            )
        if not 0 < self.threshold < self.typical_size:
            raise ValueError(f"threshold must be between 0 and {self.typical_size}, got {self.threshold}")

    @property
    def typical_size(self) -> float:
        """Size of a state along its own term where the share is typical."""
        return 1 + self.gain * TYPICAL_SHARE

    @property
    def copy_score(self) -> float:
        """Attention score s of a copy."""
        return log(self.mean_length / (self.k1 * self.b))

    @property
    def sink_score(self) -> float:
        """Attention score c of ``[CLS]``."""
        return self.copy_score + log(self.k1 * (1 - self.b))


@dataclass(frozen=True, slots=True)
class _Axes:
    """Which dimensions of a state mean what; every head has the same number of each kind."""

    size: int
    num_heads: int

    @property
    def head_size(self) -> int:
        return self.size // self.num_heads

    @property
    def signs(self) -> Tensor:
        """1 and -1 on the dimensions of the constants, else 0, (D,); their sum is 0."""
        return torch.tensor([1.0, -1.0, *[0.0] * (self.head_size - 2)]).repeat(self.num_heads)

    @property
    def sink(self) -> Tensor:
        """1 on the dimension of each head that says "this is [CLS]", else 0, (D,)."""
        return torch.tensor([0.0, 0.0, 1.0, *[0.0] * (self.head_size - 3)]).repeat(self.num_heads)

    @property
    def terms(self) -> Tensor:
        """1 on the dimensions that hold the directions of terms, else 0, (D,)."""
        return 1 - self.signs.abs() - self.sink


@torch.no_grad()
def start_lexically(
    model: MaskedLanguageModel,
    rarity: Tensor,
    directions: Tensor,
    *,
    cls_id: int,
    special_ids: list[int],
    start: LexicalStart,
) -> None:
    """Give a BERT of random weights those of the construction above.

    Args:
        model: Of the family ``bert``, tied; its parameters are overwritten.
        rarity: idf of each term, (V,).
        directions: Of each term, (V, D).
        cls_id: Id of the token that every text begins with.
        special_ids: Ids of all special tokens; they are not active.
        start: The numbers.

    Raises:
        ValueError: If the model is of another family, or its heads have less than 8 dimensions.
    """
    config = model.config
    if model.hf_config.get("model_type") != "bert" or not config.tie_word_embeddings:
        raise ValueError(f"model must be a BERT with tied embeddings, got {model.hf_config.get('model_type')!r}")
    axes = _Axes(config.hidden_size, config.num_heads)
    if axes.head_size < 8:
        raise ValueError(f"heads must have at least 8 dimensions, got {axes.head_size}")
    norms = _set_terms(model, rarity, directions, axes, cls_id, start)
    assert model.head.bias is not None  # every BERT has one
    model.head.bias.copy_(-start.threshold * norms)
    model.head.bias[special_ids] = -5.0
    _set_norm(model.backbone.embeddings.norm, axes, 1.0, start.constant)
    state = start.typical_size * sqrt(axes.size)
    gain = sqrt(state**2 + 2 * axes.num_heads * start.constant**2) / sqrt(axes.size)
    for number, layer in enumerate(model.backbone.layers):
        assert isinstance(layer, Layer)
        _calm(layer, axes, start.noise)
        if number == 0:
            _look_for_copies(layer.attention, axes, start)
        _set_norm(layer.attention_norm, axes, gain, start.constant)
        _set_norm(layer.feed_forward_norm, axes, gain, start.constant)
    _set_head(model, axes, start)


def _set_terms(
    model: MaskedLanguageModel,
    rarity: Tensor,
    directions: Tensor,
    axes: _Axes,
    cls_id: int,
    start: LexicalStart,
) -> Tensor:
    """Set the directions of terms and make the embeddings as long as idf asks; returns their lengths, (V,)."""
    weights = start.strength * rarity.clamp_min(0).sqrt()
    norms = (weights.expm1() / (start.typical_size - start.threshold)).clamp_min(0.02)
    embeddings = model.backbone.embeddings
    means = (directions * axes.terms).sum(dim=1, keepdim=True) / axes.terms.sum()  # layer norms would take them away
    slices = ((directions - means) * axes.terms).view(len(rarity), axes.num_heads, axes.head_size)
    slices = slices / slices.norm(dim=2, keepdim=True).clamp_min(1e-9) / sqrt(axes.num_heads)  # each head sees as much
    embeddings.word.weight.copy_(slices.flatten(1) * norms[:, None])
    embeddings.word.weight[cls_id] = axes.sink
    for table in (embeddings.position, embeddings.token_type):
        assert table is not None  # every BERT has both
        table.weight.zero_()
    return norms


def _set_norm(norm: nn.Module | None, axes: _Axes, gain: float, constant: float) -> None:
    """Let a layer norm scale by ``gain`` what comes in beside the constants, and put these back."""
    assert isinstance(norm, nn.LayerNorm)
    norm.weight.copy_(gain * (1 - axes.signs.abs()))
    norm.bias.copy_(constant * axes.signs)


def _calm(layer: Layer, axes: _Axes, noise: float) -> None:
    """Make a layer of random weights change little, and blind to the constants."""
    attention, feed_forward = layer.attention, layer.feed_forward
    for linear in (attention.q, attention.k, attention.v, feed_forward.up):
        linear.weight.mul_(1 - axes.signs.abs())
    for linear in (attention.output, feed_forward.down):
        linear.weight.mul_(noise)


def _look_for_copies(attention: Attention, axes: _Axes, start: LexicalStart) -> None:
    """Let each token attend to its copies and to ``[CLS]``, and add what it finds there to its state."""
    per_head = sqrt(axes.head_size)  # a state has length sqrt(K) in each head, and scores are divided by sqrt(K)
    size = sqrt(start.copy_score / per_head)
    for linear in (attention.q, attention.k):
        linear.weight.copy_(torch.diag(size * axes.terms))
    attention.k.weight += torch.diag(axes.sink)
    attention.q.bias.copy_(start.sink_score * axes.sink)  # the key of [CLS] is sqrt(K) there
    attention.v.weight.copy_(torch.diag(axes.terms))
    attention.output.weight.copy_(start.gain * torch.eye(axes.size))


def _set_head(model: MaskedLanguageModel, axes: _Axes, start: LexicalStart) -> None:
    """Hand states on to the decoder as they are, scaled so that the first of a token has length 1.

    A shift by which GELU is a straight line goes in, and comes off again as the mean that the norm subtracts.
    """
    small, straight = 0.4, 5.0
    constant = small * start.constant
    head = model.head
    assert isinstance(head, MaskedLanguageHead)  # a BERT's
    head.dense.weight.copy_(torch.diag(small * axes.terms))
    head.dense.bias.copy_(straight + constant * (1 + axes.signs))
    state = small * start.typical_size * sqrt(axes.size)
    length = sqrt(state**2 + 2 * axes.num_heads * constant**2)
    head.norm.weight.copy_(axes.terms * length / (small * axes.size))
    head.norm.bias.zero_()
