"""The two stacks of a model by the names that others know them by."""

from __future__ import annotations

import pytest
import torch
from seq2seq_helpers import SEQ2SEQ_CONFIGS, encoder_batch

from sparse_encoder.generation.seq2seq_model import Seq2SeqModel


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_each_stack_can_be_taken_out(name: str) -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name]).eval()
    encoder, decoder = model.get_encoder(), model.get_decoder()
    batch = encoder_batch(left=True, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"])
    with torch.no_grad():
        torch.testing.assert_close(encoder(**batch), model.encode(**batch).last_hidden_state, rtol=0, atol=0)
    assert decoder is not encoder
    assert (encoder.config.cross_attention, decoder.config.cross_attention) == (False, True)
