"""One description of a transformer for every family: plain values, checked when they arrive.

Knows neither files nor names of families; `families` reads it out of a `config.json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, get_args

from sparse_encoder.backbone.feed_forward import ACTIVATIONS, GateLayout
from sparse_encoder.backbone.normalization import NormKind
from sparse_encoder.backbone.published_names import published_value, published_values, told_when_changed

if TYPE_CHECKING:
    from sparse_encoder.backbone.convolution import ConvolutionConfig
    from sparse_encoder.backbone.disentangled import DisentangledConfig
    from sparse_encoder.backbone.relative_bias import RelativeBiasConfig
    from sparse_encoder.backbone.rope_scaling import Llama3Scaling, YarnScaling

PositionKind = Literal["absolute", "after_padding", "rotary", "none"]
LayerType = Literal["global", "local"]
HeadKind = Literal["masked_language", "linear"]
"""A head that transforms before it scores the vocabulary, or one that is its table alone."""

LARGEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 16,
    "embedding_size": 1 << 16,
    "intermediate_size": 1 << 20,
    "num_layers": 1 << 8,
    "num_heads": 1 << 10,
    "num_kv_heads": 1 << 10,
    "head_width": 1 << 16,
    "max_positions": 1 << 24,
    "local_window": 1 << 24,
    "num_token_types": 1 << 16,
    "first_position": 1 << 16,
}
"""Upper bounds far above any published model: a config beyond them is damaged, and is refused before it allocates."""

ROTARY_NUMBERS = ("rotary_theta", "local_rotary_theta", "rotary_stretch")
MAY_BE_ZERO = ("first_position", "local_window", "num_token_types")
POSITIVE_NUMBERS = (
    "norm_eps",
    "initializer_range",
    "initializer_cutoff",
    "attention_scale",
    "embedding_scale",
    "head_scale",
)


class FieldError(ValueError):
    """A field of a config breaks a rule.

    Args:
        rule: What must hold, and the value that does not.
        field: Name of the field in :class:`TransformerConfig`.
    """

    def __init__(self, rule: str, field: str) -> None:
        super().__init__(f"{field} {rule}")
        self.rule = rule
        self.field = field


@told_when_changed
@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Describe a transformer, encoder or decoder, and the head that scores its vocabulary.

    That of a model answers to the names of its ``config.json`` as well, as ``model.config.eos_token_id``.

    Raises:
        FieldError: If a value is out of range, or two do not go together.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    """Layers with weights of their own; see ``layer_order``."""
    num_heads: int
    num_kv_heads: int | None = None
    """Heads of keys and values, each of which several heads of queries share. None: as many as ``num_heads``."""
    head_width: int | None = None
    """Width of one head when it is not ``hidden_size / num_heads``."""
    intermediate_size: int
    """Width of the feed-forward network; with ``gated``, of each of its two halves."""
    max_positions: int
    """Tokens a text may have, special tokens included (rows of the position table, less the roberta offset)."""

    embedding_size: int | None = None
    """Width of the embeddings when it is not ``hidden_size``; they are then projected."""
    project_embeddings: bool = False
    """Project the embeddings even when their width is ``hidden_size``, as ALBERT does."""
    projection_bias: bool = True
    norm_after_projection: bool = False
    """Normalise the embeddings behind their projection and not before it."""
    embedding_norm: bool = True
    """Normalise the embeddings."""
    embedding_scale: float = 1.0
    """What the words are multiplied with before places are added."""
    num_token_types: int = 0
    """Rows of the token type table; 0 for a family without token types."""
    pad_token_id: int | None = 0
    """The token that fills up short texts."""
    pad_row_is_zero: bool = True
    """Whether its row of the word embeddings starts at zero and gets no gradient as an input."""

    position_kind: PositionKind = "absolute"
    """A learned table by place, a learned table that counts only tokens that are not padding, rotation, or nothing
    that is added to the words or turns them."""
    first_position: int = 0
    """Row of the first token in a learned table by place."""
    relative_bias: RelativeBiasConfig | None = None
    """Biases of the attention by distance, shared by all layers."""
    disentangled: DisentangledConfig | None = None
    """Attention that scores contents against places as well."""
    convolution: ConvolutionConfig | None = None
    """Beside the first layer."""
    rotary_theta: float = 10_000.0
    local_rotary_theta: float = 10_000.0
    rotary_stretch: float = 1.0
    """Places are divided by this before they become angles, in every layer: linear scaling to longer texts."""
    rotary_scaling: Llama3Scaling | YarnScaling | None = None
    """Stretches long waves more than short ones."""
    layer_types: tuple[LayerType, ...] | None = None
    """What each layer sees: every token, or those at most ``local_window`` places away. None: all global."""
    local_window: int = 0
    """Largest distance that a local layer sees, in tokens: to either side, or, in a causal model, back."""
    causal: bool = False
    """Let a token see only those before it and itself: a decoder."""
    cross_attention: bool = False
    """Let each layer look at a memory, the hidden states of an encoder, between attention and feed-forward."""
    layer_order: tuple[int, ...] | None = None
    """Which layer's weights run at each step, for families that share them. None: each layer once."""
    pruned_heads: tuple[tuple[int, ...], ...] | None = None
    """Attention heads that each layer with weights of its own has lost, by their first numbers. None: none."""

    activation: str = "gelu"
    gated: bool = False
    """Multiply the activated half of the feed-forward network by its other half (GeGLU)."""
    gate_layout: GateLayout = "gate_up"
    """How a gated feed-forward network holds its two halves: in one matrix, in this order, or in two."""
    fused_qkv: bool = False
    """Hold the projections to queries, keys and values as one matrix, as the family's files do."""
    attention_bias: bool = True
    attention_output_bias: bool | None = None
    """Of the projection behind the heads; None: as the others."""
    attention_scale: float | None = None
    """What scores are multiplied with; None: one over the root of the head size."""
    query_key_norm: bool = False
    """Normalise queries and keys head by head, by their root mean square, before they are turned."""
    feed_forward_bias: bool = True
    down_bias: bool | None = None
    """Of the second matrix of the feed-forward network; None: as the first."""
    norm_kind: NormKind = "layer"
    norm_bias: bool = True
    """Of norms of kind ``layer``; those of kind ``rms`` have none."""
    norm_eps: float = 1e-12
    pre_norm: bool = False
    """Normalise what goes into a block and not the sum behind it; a last norm then follows the layers."""
    first_attention_norm: bool = True
    """Whether the first layer has a norm at its attention; it needs none when the embeddings end in one."""

    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    """On the attention probabilities."""
    attention_output_dropout: float = 0.0
    feed_forward_dropout: float = 0.0
    """Between the two halves of the feed-forward network."""
    feed_forward_output_dropout: float = 0.0

    head_kind: HeadKind = "masked_language"
    final_dropout: float = 0.0
    """Behind the last norm."""
    layer_dropout: float = 0.0
    """Share of the layers that is left out at random in training, where there is no cache."""
    guards_float16: bool = False
    """Whether hidden states are kept in the range of float16, and a model that is loaded in float16 keeps the second
    matrices of its feed-forward networks in float32, as activations that grow large need."""

    decoder: TransformerConfig | None = None
    """Of an encoder: the stack of layers that looks at it and writes. None: there is none."""
    own_words: bool = True
    """Whether there is a table of words; false for a decoder that takes its encoder's."""

    head_activation: str = "gelu"
    head_bias: bool = True
    """Of the head's dense layer."""
    decoder_bias: bool = True
    logits_bias: bool = False
    """Whether a bias that is not trained is added to the logits, as BART's files have it."""
    head_scale: float = 1.0
    """What the head multiplies hidden states with."""
    tie_word_embeddings: bool = True

    initializer_range: float = 0.02
    """Standard deviation of random weights."""
    initializer_by_width: bool = False
    """Divide it by the root of the width that a matrix reads, as T5 does; words keep the whole."""
    sinusoidal_positions: bool = False
    """Let a random position table start with sines and cosines."""
    initializer_cutoff: float | None = None
    """In standard deviations. Given, random weights are cut off there and those that feed the residual stream are
    smaller by the square root of twice the depth, as in ModernBERT."""

    published: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False, repr=False)  # Any: JSON
    """The ``config.json`` of the model, for those who ask by its names; no part of what the transformer is."""

    to_dict = published_values
    if not TYPE_CHECKING:  # code of the library reads fields alone
        __getattr__ = published_value

    def __post_init__(self) -> None:
        """Check every value."""
        for name, largest in LARGEST.items():
            self._check_range(name, 0 if name in MAY_BE_ZERO else 1, largest)
        if self.pad_token_id is not None:
            self._check_range("pad_token_id", 0, self.vocab_size - 1)
        self._check_heads()
        for name in (each.name for each in fields(self) if each.name.endswith("_dropout")):
            if not 0 <= getattr(self, name) < 1:
                raise FieldError(f"must be at least 0 and below 1, got {getattr(self, name)}", name)
        for name in (*POSITIVE_NUMBERS, *ROTARY_NUMBERS):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise FieldError(f"must be finite and greater than 0, got {value}", name)
        for name in ("activation", "head_activation"):
            self._check_choice(name, getattr(self, name), ACTIVATIONS)
        self._check_choice("gate_layout", self.gate_layout, get_args(GateLayout))
        self._check_choice("norm_kind", self.norm_kind, get_args(NormKind))
        self._check_choice("head_kind", self.head_kind, get_args(HeadKind))
        self._check_positions()
        self._check_layers()

    def _check_range(self, name: str, smallest: int, largest: int) -> None:
        value = getattr(self, name)
        if value is not None and not smallest <= value <= largest:
            raise FieldError(f"must be between {smallest} and {largest}, got {value}", name)

    def _check_choice(self, name: str, value: str, choices: Collection[str]) -> None:
        if value not in choices:
            raise FieldError(f"must be one of {sorted(choices)}, got {value!r}", name)

    def _check_heads(self) -> None:
        if self.head_width is None and self.hidden_size % self.num_heads:
            raise FieldError(f"must divide the hidden size {self.hidden_size}, got {self.num_heads}", "num_heads")
        if self.num_heads % self.kv_heads:
            raise FieldError(f"must divide the {self.num_heads} heads, got {self.kv_heads}", "num_kv_heads")
        if self.kv_heads != self.num_heads:
            self._check_shared_heads()
        if self.head_kind == "linear" and self.word_size != self.hidden_size:
            raise FieldError("cannot be 'linear' with embeddings of another width than the hidden size", "head_kind")

    def _check_shared_heads(self) -> None:
        reasons = {
            "queries, keys and values come out of one matrix, fused_qkv": self.fused_qkv,
            "places are scored, disentangled": self.disentangled is not None,
            "heads are pruned, pruned_heads": self.pruned_heads is not None,
        }
        for reason, holds in reasons.items():
            if holds:
                rule = f"must be that of num_heads, {self.num_heads}, where {reason}; got {self.kv_heads}"
                raise FieldError(rule, "num_kv_heads")

    def _check_positions(self) -> None:
        self._check_choice("position_kind", self.position_kind, get_args(PositionKind))
        if self.position_kind == "after_padding" and self.pad_token_id is None:
            raise FieldError("must be given, positions count from it", "pad_token_id")
        if self.position_kind == "rotary" and self.head_size % 2:
            field = "num_heads" if self.head_width is None else "head_width"
            raise FieldError(f"must make an even head size for rotary positions, got {self.head_size}", field)
        if self.causal and (self.disentangled is not None or self.convolution is not None):
            raise FieldError("cannot go with scores of places or a convolution", "causal")
        if self.causal and self.position_kind == "after_padding":
            raise FieldError("cannot go with positions that count tokens", "causal")
        if self.disentangled is not None and (self.position_kind == "rotary" or self.fused_qkv):
            raise FieldError("cannot go with rotary positions or fused projections", "disentangled")
        if self.disentangled is not None and self.relative_bias is not None:
            raise FieldError("cannot go with a relative bias", "disentangled")
        if self.convolution is not None and self.hidden_size % self.convolution.groups:
            raise FieldError(f"must have groups that divide the hidden size {self.hidden_size}", "convolution")

    def _check_layers(self) -> None:
        if self.layer_types is not None:
            if len(self.layer_types) != self.num_layers:
                raise FieldError(f"must have {self.num_layers} entries, got {len(self.layer_types)}", "layer_types")
            for layer_type in self.layer_types:
                self._check_choice("layer_types", layer_type, get_args(LayerType))
        if self.pruned_heads is not None:
            self._check_pruned_heads(self.pruned_heads)
        if self.layer_order is not None:
            if not 1 <= len(self.layer_order) <= LARGEST["num_layers"]:
                raise FieldError(f"must have 1 to {LARGEST['num_layers']} steps", "layer_order")
            if not all(0 <= layer < self.num_layers for layer in self.layer_order):
                raise FieldError(f"must name layers below {self.num_layers}", "layer_order")

    def _check_pruned_heads(self, pruned: tuple[tuple[int, ...], ...]) -> None:
        if len(pruned) != self.num_layers:
            raise FieldError(f"must have {self.num_layers} entries, got {len(pruned)}", "pruned_heads")
        for layer, heads in enumerate(pruned):
            if any(not 0 <= head < self.num_heads for head in heads):
                rule = f"must name heads below {self.num_heads}, got {heads} in layer {layer}"
                raise FieldError(rule, "pruned_heads")
            if len(set(heads)) == self.num_heads:
                raise FieldError(f"must leave layer {layer} a head, got all {self.num_heads}", "pruned_heads")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads if self.head_width is None else self.head_width

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def word_size(self) -> int:
        """Width of the word embeddings, and of what the head's decoder reads."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def position_offset(self) -> int:
        """Place of the first token in the position table."""
        counts = self.position_kind == "after_padding" and self.pad_token_id is not None
        return self.pad_token_id + 1 if counts and self.pad_token_id is not None else self.first_position

    @property
    def max_tokens(self) -> int:
        """Tokens a text may have, special tokens included."""
        return self.max_positions

    @property
    def steps(self) -> tuple[int, ...]:
        """Which layer runs at each step."""
        return tuple(range(self.num_layers)) if self.layer_order is None else self.layer_order

    def layer_type(self, layer: int) -> LayerType:
        """Return what a layer sees."""
        return "global" if self.layer_types is None else self.layer_types[layer]
