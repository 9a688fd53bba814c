"""The stacks of a model by the names that others know them by, and how both compute."""

from __future__ import annotations

import copy
import pickle

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
    model.set_attn_implementation({"": "sdpa"})
    assert eager_attention not in {module.attend for module in attentions}
    for wrong in ({"text_config": "eager"}, {"": "eager", "text_config": "sdpa"}, {}, {"": None}, None):
        with pytest.raises(TypeError, match="attn_implementation must be a name for the whole model.*, got "):
            model.set_attn_implementation(wrong)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_is_one_object_that_can_be_asked_and_copied(name: str) -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name]).eval()
    keys, encoder = list(model.state_dict()), model.get_encoder()
    assert model.get_encoder() is encoder
    assert list(model.state_dict()) == keys
    assert (encoder.device, encoder.dtype) == (model.device, model.dtype)
    assert encoder.get_input_embeddings() is model.get_input_embeddings()
    assert model.train().get_encoder().training
    assert not model.eval().get_encoder().training
    other = copy.deepcopy(model)
    assert other.get_encoder().backbone is other.backbone
    assert pickle.loads(pickle.dumps(model)).get_encoder() is not encoder
    batch = encoder_batch(left=True, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"])
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
        assert not torch.equal(encoder(**batch)[0], other.get_encoder()(**batch)[0])
        torch.testing.assert_close(encoder(**batch)[0], model.encode(**batch)[0], rtol=0, atol=0)
