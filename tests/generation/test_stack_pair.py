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
        output, whole = encoder(**batch, output_hidden_states=True), model.encode(**batch)
        torch.testing.assert_close(output.last_hidden_state, whole.last_hidden_state, rtol=0, atol=0)
        torch.testing.assert_close(encoder(**batch, return_dict=False)[0], whole.last_hidden_state, rtol=0, atol=0)
        written = model.generate(encoder_outputs=output, attention_mask=batch["attention_mask"], max_new_tokens=3)
        assert torch.equal(written, model.generate(**batch, max_new_tokens=3))
    assert len(output.hidden_states) == 3
    assert {id(each) for each in encoder.parameters()} == {id(each) for each in model.backbone.parameters()}
    assert not encoder.training
    assert decoder is not encoder
    assert (encoder.config.cross_attention, decoder.config.cross_attention) == (False, True)
