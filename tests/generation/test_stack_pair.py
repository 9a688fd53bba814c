"""The stacks of a model by the names that others know them by, and how both compute."""

from __future__ import annotations

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS, encoder_batch

from sparse_encoder.backbone.attention import Attention, eager_attention
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel


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


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_attention_can_be_computed_in_another_way(name: str) -> None:
    torch.manual_seed(0)
    kind, values = (Seq2SeqModel, SEQ2SEQ_CONFIGS) if name == "t5" else (CausalLanguageModel, DECODER_CONFIGS)
    model, ids = kind.from_config(values[name]).eval(), torch.tensor([[5, 6, 7]])
    given = {"decoder_input_ids": ids} if name == "t5" else {}
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    with torch.no_grad():
        fused = model(ids, **given).logits
        model.set_attn_implementation("eager")
        assert {module.attend for module in attentions} == {eager_attention}
        torch.testing.assert_close(model(ids, **given).logits, fused)
    with pytest.raises(ValueError, match=r"unknown attention 'flash_attention_2'; choose from \['eager', 'sdpa'\]"):
        model.set_attn_implementation("flash_attention_2")
    assert {module.attend for module in attentions} == {eager_attention}
