"""What models that write and what `generate` give back: by attribute, by key and by place.

Fields that are None are not there for keys and places, as in transformers. Knows nothing of how anything is computed.

Letters: B texts, N beams, R rows of a result (texts times returned sequences), P tokens of the prompt, T generated
tokens, S tokens of the encoder, V vocabulary, D hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, overload

from torch import Tensor

Layers = tuple[Tensor, ...]
"""One tensor for each layer; of hidden states one more, the embeddings, comes first."""

Steps = tuple[Layers, ...]
"""For each generated token what the layers gave."""

Cache = Any  # a cache of any kind; whoever asked for it knows which


class ModelOutput:
    """Answer by key and by place for what a dataclass has by attribute; fields that are None are left out."""

    __slots__ = ()

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields that are given."""
        names = (field.name for field in fields(self))  # type: ignore[arg-type]  # every subclass is a dataclass
        return tuple(name for name in names if getattr(self, name) is not None)

    def values(self) -> tuple[Any, ...]:
        """Return the values of the fields that are given."""
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return names and values of the fields that are given."""
        return tuple((name, getattr(self, name)) for name in self.keys())

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values of the fields that are given, in the order of the fields."""
        return self.values()

    def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401  # of a field
        """Return a field by its name, or the default if it is not given."""
        return dict(self.items()).get(key, default)

    @overload
    def __getitem__(self, key: str | int) -> Any: ...  # noqa: ANN401

    @overload
    def __getitem__(self, key: slice) -> tuple[Any, ...]: ...

    def __getitem__(self, key: str | int | slice) -> Any:  # of any field
        """Return a field by its name, or one or several by their places among those that are given.

        Raises:
            KeyError: If there is no such field, or it is None.
            IndexError: If fewer fields are given.
        """
        if not isinstance(key, str):
            return self.values()[key]
        if key not in self.keys():
            raise KeyError(f"{key!r} is not in this output, which holds {list(self.keys())}")
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        """Return whether a field is given."""
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the fields that are given, as a dict does."""
        return iter(self.keys())

    def __len__(self) -> int:
        """Return how many fields are given."""
        return len(self.keys())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CausalLanguageModelOutput(ModelOutput):
    """Hold what a decoder gives for a batch of texts."""

    loss: Tensor | None = None
    """Mean cross-entropy of the next tokens, a scalar; with labels only."""
    logits: Tensor | None = None
    """Of the next token at each place that was asked for, (B, T, V)."""
    past_key_values: Cache | None = None
    hidden_states: Layers | None = None
    """(B, T, D) each: the embeddings, then the output of each layer, the last one normed."""
    attentions: Layers | None = None
    """Attention probabilities, (B, H, T, T) each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncoderOutput(ModelOutput):
    """Hold what an encoder made of a batch of texts; a decoder looks at it as often as it likes."""

    last_hidden_state: Tensor
    """(B, S, D)."""
    hidden_states: Layers | None = None
    """(B, S, D) each, the embeddings first."""
    attentions: Layers | None = None
    """(B, H, S, S) each."""


def encoder_output(given: Any) -> EncoderOutput:  # noqa: ANN401  # whatever a caller has of an encoder
    """Return what an encoder made, given as an output with names, or as a tuple that begins with the hidden state.

    Raises:
        TypeError: If no hidden state is in it.
    """
    hidden = next(iter(given), None) if isinstance(given, tuple | list) else getattr(given, "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise TypeError(f"encoder_outputs must be what model.encode returns, got {type(given).__name__}")
    kept = {name: getattr(given, name, None) for name in ("hidden_states", "attentions")}
    return EncoderOutput(last_hidden_state=hidden, **kept)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seq2SeqOutput(ModelOutput):
    """Hold what an encoder and a decoder give for a batch of pairs of texts."""

    loss: Tensor | None = None
    """Mean cross-entropy of the decoder's tokens, a scalar; with labels only."""
    logits: Tensor | None = None
    """Of the next token at each of the decoder's places, (B, T, V)."""
    past_key_values: Cache | None = None
    decoder_hidden_states: Layers | None = None
    """(B, T, D) each, the embeddings first."""
    decoder_attentions: Layers | None = None
    """(B, H, T, T) each."""
    cross_attentions: Layers | None = None
    """Of the decoder's tokens to the encoder's, (B, H, T, S) each."""
    encoder_last_hidden_state: Tensor | None = None
    """(B, S, D)."""
    encoder_hidden_states: Layers | None = None
    """(B, S, D) each, the embeddings first."""
    encoder_attentions: Layers | None = None
    """(B, H, S, S) each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GenerateDecoderOnlyOutput(ModelOutput):
    """Hold what a decoder wrote by greedy search or sampling."""

    sequences: Tensor
    """Prompt and generated tokens, int64, (R, P + T)."""
    scores: tuple[Tensor, ...] | None = None
    """For each step the scores that the choice was made from, float32, (R, V)."""
    logits: tuple[Tensor, ...] | None = None
    """For each step the scores as the model gave them, float32, (R, V)."""
    attentions: Steps | None = None
    hidden_states: Steps | None = None
    past_key_values: Cache | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GenerateEncoderDecoderOutput(ModelOutput):
    """Hold what an encoder and a decoder wrote by greedy search or sampling."""

    sequences: Tensor
    """The decoder's tokens, its start token included, int64, (R, 1 + T)."""
    scores: tuple[Tensor, ...] | None = None
    """For each step the scores that the choice was made from, float32, (R, V)."""
    logits: tuple[Tensor, ...] | None = None
    """For each step the scores as the model gave them, float32, (R, V)."""
    encoder_attentions: Layers | None = None
    encoder_hidden_states: Layers | None = None
    decoder_attentions: Steps | None = None
    cross_attentions: Steps | None = None
    decoder_hidden_states: Steps | None = None
    past_key_values: Cache | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """Hold what a decoder wrote by beam search."""

    sequences: Tensor
    """Prompt and generated tokens, int64, (R, P + T)."""
    sequences_scores: Tensor | None = None
    """Sum of the log-probabilities of each result's tokens, divided by a power of their number, (R,)."""
    scores: tuple[Tensor, ...] | None = None
    """For each step the processed log-probabilities of the next token after each beam, float32, (B * N, V)."""
    logits: tuple[Tensor, ...] | None = None
    """For each step the scores as the model gave them, float32, (B * N, V)."""
    beam_indices: Tensor | None = None
    """For each generated token the row of ``scores`` that it was chosen from, -1 behind the end, (R, T)."""
    attentions: Steps | None = None
    hidden_states: Steps | None = None
    past_key_values: Cache | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GenerateBeamEncoderDecoderOutput(ModelOutput):
    """Hold what an encoder and a decoder wrote by beam search."""

    sequences: Tensor
    """The decoder's tokens, its start token included, int64, (R, 1 + T)."""
    sequences_scores: Tensor | None = None
    """Sum of the log-probabilities of each result's tokens, divided by a power of their number, (R,)."""
    scores: tuple[Tensor, ...] | None = None
    """For each step the processed log-probabilities of the next token after each beam, float32, (B * N, V)."""
    logits: tuple[Tensor, ...] | None = None
    """For each step the scores as the model gave them, float32, (B * N, V)."""
    beam_indices: Tensor | None = None
    """For each generated token the row of ``scores`` that it was chosen from, -1 behind the end, (R, T)."""
    encoder_attentions: Layers | None = None
    encoder_hidden_states: Layers | None = None
    decoder_attentions: Steps | None = None
    cross_attentions: Steps | None = None
    decoder_hidden_states: Steps | None = None
    past_key_values: Cache | None = None
