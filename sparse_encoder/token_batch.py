"""TokenBatch: the token ids of several texts, not padded; and the rule by which a text's padded length is chosen.

Axes: B texts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LENGTH_STEP = 16


def padded_length(num_tokens: int, max_length: int) -> int:
    r"""Return the length a text is padded to, a function of that text alone.

    .. math:: \min(\text{max\_length}, \max(16, 16 \lceil n / 16 \rceil))

    Args:
        num_tokens: Tokens of the text, special ones included.
        max_length: Most tokens that the model takes.
    """
    return min(max_length, max(LENGTH_STEP, -(-num_tokens // LENGTH_STEP) * LENGTH_STEP))


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Hold the token ids of several texts one after the other, and pad those that are asked for.

    Args:
        flat_ids: Ids of all texts, int32.
        starts: Where each text starts and last the number of ids, (B + 1) int64.
        flat_type_ids: Token type of each id, int32; None where every one is 0 or there are none.
        has_token_type_ids: Whether :meth:`pad` gives token types.
        pad_token_id: What to pad with; None refuses to pad.
        padding_side: ``"right"`` or ``"left"``.
        recall: Encodes the same texts again with all details.
        samples: Number of the text that each row is a window of; None where each text is one row.
    """

    flat_ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    flat_type_ids: NDArray[np.int32] | None
    has_token_type_ids: bool
    pad_token_id: int | None
    padding_side: str
    recall: Callable[[], list[Encoding]]
    samples: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.starts) - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of what :meth:`pad` gives."""
        types = ("token_type_ids",) if self.has_token_type_ids else ()
        return ("input_ids", *types, "attention_mask")

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each text."""
        lengths: list[int] = np.diff(self.starts).tolist()
        return lengths

    @cached_property
    def input_ids(self) -> list[list[int]]:
        """Token ids of each text."""
        return self._split(self.flat_ids)

    @cached_property
    def token_type_ids(self) -> list[list[int]] | None:
        """Token types of each text; None if the tokenizer has none."""
        if not self.has_token_type_ids:
            return None
        return (
            [[0] * length for length in self.lengths] if self.flat_type_ids is None else self._split(self.flat_type_ids)
        )

    @cached_property
    def encodings(self) -> list[Encoding]:
        """Everything the tokenizer knows of each text: the texts are encoded once more when this is first asked for."""
        return self.recall()

    @cached_property
    def special_tokens_mask(self) -> list[list[int]]:
        """1 for each token that the tokenizer added around a text, 0 for those of the text."""
        return [encoding.special_tokens_mask for encoding in self.encodings]

    @cached_property
    def offsets(self) -> list[list[tuple[int, int]]]:
        """Begin and end of each token in its text, in characters; (0, 0) for added ones."""
        return [encoding.offsets for encoding in self.encodings]

    @cached_property
    def word_ids(self) -> list[list[int | None]]:
        """Number of the word that each token belongs to; None for added ones."""
        return [encoding.word_ids for encoding in self.encodings]

    def _split(self, flat: NDArray[np.int32]) -> list[list[int]]:
        values: list[int] = flat.tolist()
        starts: list[int] = self.starts.tolist()
        return [values[begin:end] for begin, end in zip(starts, starts[1:], strict=False)]

    def pad(
        self,
        rows: Sequence[int] | None = None,
        *,
        length: int | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, Tensor]:
        """Pad some of the texts to one length.

        Args:
            rows: Which texts, in which order; None takes all.
            length: Tokens of each row of the result; None takes the longest of ``rows``.
            device: Where to put the tensors.

        Returns:
            ``input_ids`` and ``attention_mask``, and ``token_type_ids`` if the tokenizer has them, (B, T) int64 each.

        Raises:
            ValueError: If a text is longer than ``length``, or there is something to pad and no padding token.
        """
        import torch

        return {name: torch.from_numpy(array).to(device) for name, array in self.pad_arrays(rows, length).items()}

    def pad_arrays(self, rows: Sequence[int] | None = None, length: int | None = None) -> dict[str, NDArray[np.int64]]:
        """Do what :meth:`pad` does, without torch: numpy arrays come out."""
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        first = self.starts[:-1][chosen]
        counts = self.starts[1:][chosen] - first
        longest = int(counts.max(initial=0))
        width = longest if length is None else length
        if width < longest:
            raise ValueError(f"length must be at least {longest}, the longest text's, got {width}")
        if self.pad_token_id is None and width > counts.min(initial=width):
            raise ValueError("texts of different lengths need a padding token; set tokenizer.pad_token")
        before = width - counts if self.padding_side == "left" else np.zeros_like(counts)
        place = np.arange(width) - before[:, None]  # (B, T): which token of its text
        mask = (place >= 0) & (place < counts[:, None])
        source = (place + first[:, None])[mask]
        padded = {"input_ids": _fill(mask, self.flat_ids[source], self.pad_token_id or 0)}
        if self.has_token_type_ids:
            padded["token_type_ids"] = _fill(mask, 0 if self.flat_type_ids is None else self.flat_type_ids[source], 0)
        padded["attention_mask"] = mask.astype(np.int64)
        return padded


def _fill(mask: NDArray[np.bool_], values: NDArray[np.int32] | int, padding: int) -> NDArray[np.int64]:
    filled = np.full(mask.shape, padding, dtype=np.int64)
    filled[mask] = values
    return filled
