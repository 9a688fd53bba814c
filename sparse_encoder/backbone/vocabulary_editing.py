"""The tables with a row per token: get, set, tie and resize them. Knows neither tokenizers nor files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.adapters.book import BASE, copies_by_name, lora_layers, tie_base
from sparse_encoder.backbone.adapters.names import HEAD
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import HEAD_BIAS, HEAD_WEIGHT, WORD_EMBEDDINGS, Family
from sparse_encoder.backbone.heads import VocabularyHead
from sparse_encoder.backbone.initialization import drawn_rows
from sparse_encoder.backbone.resize import (
    NewRows,
    check_resizable,
    entries_near_the_mean,
    rows_near_the_mean,
    rows_wanted,
    set_rows,
)
from sparse_encoder.backbone.transformer import Transformer

if TYPE_CHECKING:
    from typing_extensions import Self


_OF_VOCABULARY = frozenset({HEAD_BIAS, HEAD_WEIGHT, WORD_EMBEDDINGS})


class EditableModel(nn.Module):
    """What the editing of a model needs to know of it."""

    config: TransformerConfig
    hf_config: dict[str, Any]  # Any: parsed JSON
    backbone: Transformer

    if TYPE_CHECKING:

        @property
        def family(self) -> Family:
            """Whose names the files use."""

    def vocabulary_head(self) -> VocabularyHead | None:
        """Return the head that scores every token of the vocabulary; None for a model without."""
        return None

    def _set_config(self, config: TransformerConfig, written: Mapping[str, Any]) -> None:
        """Take another config, and other values of ``config.json``; no other model sees them."""
        self.hf_config = {**self.hf_config, **written}
        self.config = self.backbone.config = replace(config, published=self.hf_config)


class VocabularyEditing(EditableModel):
    """Give and take the tables of a model's vocabulary; one base of a pretrained model."""

    def tie_weights(self) -> None:
        """Make the head's table the word embeddings, if the config says that they are one; else do nothing.

        It is done again by itself after ``to``, ``cuda``, ``half`` and their like.
        """
        head, words = self.vocabulary_head(), self.backbone.embeddings.word
        if head is None or not self.config.tie_word_embeddings:
            return
        if _OF_VOCABULARY & copies_by_name(self, BASE).keys():
            tie_base(self)
        elif head.weight is not words.weight:
            head.weight = cast(nn.Parameter, words.weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Tie again: what moves or converts parameters may give each module its own."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tie_weights()
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings, (V, E)."""
        return self.backbone.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Take other word embeddings; a head that is tied to them gets them too.

        Args:
            value: As many rows and columns as those that are there, (V, E).

        Raises:
            TypeError: If it is no embedding.
            ValueError: If it has another shape.
        """
        if not isinstance(value, nn.Embedding):
            raise TypeError(f"input embeddings must be an nn.Embedding, got {type(value).__name__}")
        self._check_table(value.weight, "input")
        self.backbone.embeddings.word = value
        self.tie_weights()

    def get_output_embeddings(self) -> VocabularyHead | None:
        """Return the head, whose ``weight`` (V, E) and ``bias`` (V,) score the tokens; None without such a head."""
        return self.vocabulary_head()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Take the weight and the bias of another module; without a head nothing happens but a warning.

        Afterwards the head and the word embeddings are tied if they share one parameter, and only then.

        Args:
            value: With a parameter ``weight``, (V, E), and perhaps ``bias``, (V,); without one the bias becomes zero.

        Raises:
            TypeError: If it has no such parameters.
            ValueError: If one has another shape, or there is a bias and the head has none.
        """
        head = self.vocabulary_head()
        if head is None:
            warnings.warn(f"a {type(self).__name__} has no output embeddings; nothing is set", stacklevel=2)
            return
        weight, bias = getattr(value, "weight", None), getattr(value, "bias", None)
        if not isinstance(weight, nn.Parameter) or not isinstance(bias, (nn.Parameter, type(None))):
            raise TypeError(f"output embeddings must be a module with a weight, got {type(value).__name__}")
        self._check_table(weight, "output")
        if bias is not None and (head.bias is None or bias.shape != head.bias.shape):
            shape = None if head.bias is None else tuple(head.bias.shape)
            raise ValueError(f"the bias of output embeddings must be as the head's, {shape}, got {tuple(bias.shape)}")
        if head.bias is not None:
            head.bias = nn.Parameter(torch.zeros_like(head.bias)) if bias is None else bias
        head.weight = weight
        self._say_tied(weight is self.backbone.embeddings.word.weight)

    def _check_table(self, table: Tensor, what: str) -> None:
        wanted = (self.config.vocab_size, self.config.word_size)
        if tuple(table.shape) != wanted:
            raise ValueError(
                f"{what} embeddings must be of shape {wanted}, got {tuple(table.shape)}; "
                "resize_token_embeddings changes the number of tokens"
            )

    def _say_tied(self, tied: bool) -> None:
        if tied != self.config.tie_word_embeddings:
            config = replace(self.config, tie_word_embeddings=tied)
            self._set_config(config, {"tie_word_embeddings": tied})

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> nn.Embedding:
        """Add rows to the end of the tables of the vocabulary, or cut some off.

        The head follows, weight and bias (transformers gives a tied head zeros as new biases), and so do
        :attr:`config` and :attr:`hf_config`; a padding id that is gone is dropped. Parameters stay the same objects and
        keep ``requires_grad``; an optimizer must be made afterwards, and the vectors of a SPLADE model have other
        dimensions: indexes of its vectors must be built again.

        Args:
            new_num_tokens: How many tokens; None keeps them.
            pad_to_multiple_of: Round up to a multiple of it.
            mean_resizing: Draw new rows close to the mean of the old ones; false draws them as the family does at
                first, with zeros as biases.
            generator: Of random numbers, on the model's device; None means torch's own.

        Returns:
            The word embeddings: the same module.

        Raises:
            ValueError: If a number is out of range, the tables are not here as a whole, or an adapter has copies or
                changes the head.
        """
        words, head = self.backbone.embeddings.word, self.vocabulary_head()
        rows = rows_wanted(words.num_embeddings, new_num_tokens, pad_to_multiple_of)
        if rows == words.num_embeddings:
            return words
        if copied := sorted(_OF_VOCABULARY & copies_by_name(self, BASE).keys()):
            raise ValueError(
                f"adapters have copies of {copied}, of {words.num_embeddings} tokens; merge or delete them"
            )
        if HEAD in lora_layers(self):
            raise ValueError(f"adapters change the head, of {words.num_embeddings} tokens; merge or delete them")
        pad = self.config.pad_token_id
        pad = None if pad is None or pad >= rows else pad
        config = replace(self.config, vocab_size=rows, pad_token_id=pad)
        keys = self.family.config_keys
        written: dict[str, int | None] = {keys["vocab_size"]: rows}
        if pad != self.config.pad_token_id:
            written[keys.get("pad_token_id", "pad_token_id")] = pad
        for parameter in (words.weight, *([] if head is None else [head.weight])):
            check_resizable(parameter)
        maker = partial(_new_rows, config, near_the_mean=mean_resizing, generator=generator)
        self._resize_tables(words, head, rows=rows, maker=maker)
        self._set_config(config, written)
        self.tie_weights()
        return words

    def _resize_tables(
        self, words: nn.Embedding, head: VocabularyHead | None, *, rows: int, maker: Callable[[bool], NewRows]
    ) -> None:
        set_rows(words.weight, rows, maker(False))
        words.num_embeddings = rows
        if words.padding_idx is not None and words.padding_idx >= rows:
            words.padding_idx = None
        if head is None:
            return
        if not self.config.tie_word_embeddings:
            set_rows(head.weight, rows, maker(True))
        if head.bias is not None:
            set_rows(head.bias, rows, maker(True))


def _new_rows(
    config: TransformerConfig, of_head: bool, *, near_the_mean: bool, generator: torch.Generator | None
) -> NewRows:
    """Return what makes new rows for a table, and new entries for a bias."""

    def make(old: Tensor, added: int) -> Tensor:
        if near_the_mean:
            near = rows_near_the_mean if old.ndim == 2 else entries_near_the_mean
            return near(old, added, generator=generator)
        if old.ndim == 1:
            return old.new_zeros(added)
        return drawn_rows(old, added, config, of_head=of_head, generator=generator)

    return make
