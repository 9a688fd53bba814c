"""What an encoder with a decoder is called with: checked, and completed from labels. Knows no layers.

Axes: B pairs of texts, S tokens of the encoder, T new tokens of the decoder, P tokens of its past, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.backbone.cache import EncoderDecoderCache
from sparse_encoder.generation.kept_places import keeps_all
from sparse_encoder.generation.token_loss import IGNORED


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seq2SeqCall:
    """Hold the arguments of one call of :meth:`Seq2SeqModel.forward`, which describes them.

    Raises:
        TypeError: If the cache is none of an encoder with a decoder.
        ValueError: If an input of either stack is missing, given twice, or of another shape than its labels or mask.
    """

    input_ids: Tensor | None
    attention_mask: Tensor | None
    decoder_input_ids: Tensor | None
    decoder_attention_mask: Tensor | None
    encoder_outputs: Any  # an EncoderOutput, or whatever else holds the last hidden state first
    past_key_values: EncoderDecoderCache | None
    inputs_embeds: Tensor | None
    decoder_inputs_embeds: Tensor | None
    labels: Tensor | None
    use_cache: bool | None
    output_attentions: bool | None
    output_hidden_states: bool | None
    logits_to_keep: int | Tensor

    def __post_init__(self) -> None:
        """Check what goes together."""
        check_one(
            "input_ids, inputs_embeds or encoder_outputs", self.input_ids, self.inputs_embeds, self.encoder_outputs
        )
        if self.labels is None or self.decoder_input_ids is not None or self.decoder_inputs_embeds is not None:
            what = "decoder_input_ids or decoder_inputs_embeds"
            check_one(what, self.decoder_input_ids, self.decoder_inputs_embeds, hint=", or labels to make them from")
        past = self.past_key_values
        if past is not None and not isinstance(past, EncoderDecoderCache):
            raise TypeError(f"past_key_values must be an EncoderDecoderCache, got {type(past).__name__}")
        if past is not None and self.use_cache is False:
            raise ValueError("past_key_values is given and use_cache is False; leave one of them out")
        self._check_labels(keeps_all(self.logits_to_keep))

    def _check_labels(self, all_places: bool) -> None:
        if self.labels is None:
            return
        if not all_places:
            raise ValueError("labels need the logits of all places: leave logits_to_keep out")
        if self.labels.ndim != 2 or self.labels.is_floating_point() or self.labels.dtype == torch.bool:
            shape = tuple(self.labels.shape)
            raise ValueError(f"labels must be token ids of shape (texts, tokens), got {self.labels.dtype} of {shape}")
        given = self.decoder_input_ids if self.decoder_inputs_embeds is None else self.decoder_inputs_embeds
        if given is not None and given.shape[:2] != self.labels.shape:
            raise ValueError(
                f"labels must be (texts, tokens) as the decoder's input {tuple(given.shape[:2])}, "
                f"got {tuple(self.labels.shape)}"
            )


def check_one(names: str, *values: object, hint: str = "") -> None:
    """Refuse all but exactly one.

    Args:
        names: What the values are called.
        values: None for what is not given.
        hint: What else would do.

    Raises:
        ValueError: If there are several, or none.
    """
    count = sum(value is not None for value in values)
    if count != 1:
        got = "none" if count == 0 else f"{count} of them"
        raise ValueError(f"give exactly one of {names}{hint}; got {got}")


def shift_right(labels: Tensor, *, start: int | None, pad: int | None) -> Tensor:
    """Make the decoder's input out of what it shall say: a start token, then all labels but the last.

    Args:
        labels: Token ids, -100 for those that the loss leaves out, (B, T).
        start: The token that a decoder begins with.
        pad: What stands for a label that is left out.

    Returns:
        Token ids, (B, T).

    Raises:
        ValueError: If one of the two tokens is not known.
    """
    for name, value in (("decoder_start_token_id", start), ("pad_token_id", pad)):
        if value is None:
            raise ValueError(
                f"{name} must be in the config to make decoder_input_ids from labels; set it, or give them"
            )
    assert start is not None and pad is not None
    first = labels.new_full((labels.shape[0], 1), start)
    shifted = torch.cat([first, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == IGNORED, pad)
