"""The tokens that begin, end and fill a text, as tensors. Knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.config_fields import NO_TOKEN

if TYPE_CHECKING:
    from sparse_encoder.generation.config import GenerationConfig


class SpecialTokens(NamedTuple):
    """Hold special tokens on the device of the inputs."""

    eos: Tensor | None
    """Every token that ends a text, (E,)."""
    pad: Tensor | None
    """A scalar; the first end token when the config names none."""
    decoder_start: Tensor | None
    """What the decoder behind an encoder begins with: a scalar, or (B,)."""

    @property
    def start(self) -> Tensor:
        """What the decoder behind an encoder begins with; there it is never missing."""
        assert self.decoder_start is not None
        return self.decoder_start

    @property
    def num_eos(self) -> int:
        """How many tokens end a text."""
        return 0 if self.eos is None else self.eos.shape[0]

    @property
    def fill(self) -> int:
        """What stands behind the end of a beam; -1 where it ended without an end token and nothing pads."""
        return NO_TOKEN if self.pad is None else int(self.pad)


def ends_of(config: GenerationConfig) -> int | list[int] | None:
    """Return the tokens that end a text; None if none does."""
    return None if config.eos_token_id == NO_TOKEN else config.eos_token_id


def special_tokens(
    config: GenerationConfig, device: torch.device, *, is_encoder_decoder: bool, unmasked_batch: bool
) -> SpecialTokens:
    """Read the special tokens of a config.

    Args:
        config: With every setting in place.
        device: Where the tokens go.
        is_encoder_decoder: Whether a start token of the decoder is needed.
        unmasked_batch: Whether several texts come without a mask; then it matters that padding can be told apart.

    Raises:
        ValueError: If the decoder behind an encoder has nothing to begin with.
    """
    ends = ends_of(config)
    eos = None if ends is None else torch.as_tensor(ends, device=device).view(-1)
    pad = None if config.pad_token_id is None else torch.as_tensor(config.pad_token_id, device=device)
    start = config.decoder_start_token_id
    if start is None and is_encoder_decoder:
        start = config.bos_token_id
        if start is None:
            raise ValueError(
                "a decoder behind an encoder needs decoder_start_token_id or bos_token_id, and both are None; "
                "pass decoder_start_token_id"
            )
    if eos is not None and unmasked_batch and (pad is None or bool((eos == pad).any())):
        warn(
            "several texts came without attention_mask, and padding cannot be told from the end token "
            f"(pad_token_id={config.pad_token_id}, eos_token_id={config.eos_token_id}); every token counts as text: "
            "pass attention_mask"
        )
    if pad is None and eos is not None:
        pad = eos[0]
    return SpecialTokens(
        eos=eos,
        pad=pad,
        decoder_start=None if start is None else torch.as_tensor(start, device=device),
    )
