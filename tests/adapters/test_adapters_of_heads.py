"""Low-rank changes of a decoder's head: what is computed, by logits and fused, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_helpers import randomise_adapters
from backbone_helpers import randomise
from decoder_helpers import DECODER_CONFIGS, prompts
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, LoraConfig, MaskedLanguageModel
from sparse_encoder.backbone.adapters.head import LoraHead
from sparse_encoder.modules import SpladePooling
from sparse_encoder.modules.features import Features, VocabularyProjection

D, V = 12, 17
TIED = {**DECODER_CONFIGS["llama"], "tie_word_embeddings": True}


def headed(hf_config: dict[str, Any] = TIED, **options: Any) -> MaskedLanguageModel:  # noqa: ANN401
    """Make a decoder whose head has low-rank changes that show."""
    model = MaskedLanguageModel.from_config(hf_config).eval()
    randomise(model)
    model.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["lm_head"], **options}))
    randomise_adapters(model)
    return model


def head_of(model: MaskedLanguageModel) -> LoraHead:
    assert isinstance(model.head, LoraHead)
    return model.head


def states() -> Tensor:
    return torch.randn(2, 5, D, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("options", "scale"), [({}, 3.0), ({"use_rslora": True}, 6 / 2**0.5)])
def test_scores_are_those_of_the_changed_table(options: dict[str, Any], scale: float) -> None:
    head = head_of(headed(**options))
    table = head.weight + scale * head.lora_B["default"] @ head.lora_A["default"]
    wanted = states() @ table.T
    torch.testing.assert_close(head(states()), wanted)
    torch.testing.assert_close(VocabularyProjection(*head.factors(states())).logits(), wanted)
    assert head.factors(states()).weight.shape == (V, D + 2)


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_pooling_at_once_is_that_of_the_logits_with_its_gradients(strategy: str) -> None:
    model, mask = headed(), prompts("right")["attention_mask"]
    found = []
    for fused in (True, False):
        model.zero_grad()
        hidden = model.backbone(**prompts("right"))
        features: dict[str, Any] = {"attention_mask": mask}
        if fused:
            features["vocabulary_projection"] = VocabularyProjection(*model.head.factors(hidden))
        else:
            features["token_embeddings"] = model.head(hidden)
        weights = SpladePooling(strategy)(Features(features))["sentence_embedding"]
        (weights * torch.arange(1, V + 1)).sum().backward()
        head = head_of(model)
        assert head.weight.grad is None
        found.append([weights.detach(), head.lora_A["default"].grad, head.lora_B["default"].grad])
    for one, other in zip(*found, strict=True):
        assert one is not None and one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_dropout_is_of_what_the_adapter_reads_alone() -> None:
    head = head_of(headed(lora_dropout=0.5)).train()
    outputs = []
    for compute in (head, lambda hidden: VocabularyProjection(*head.factors(hidden)).logits()):
        torch.manual_seed(0)
        outputs.append(compute(states()))
    torch.testing.assert_close(*outputs)
    added = outputs[0] - states() @ head.weight.T
    assert not torch.allclose(added, head.eval()(states()) - states() @ head.weight.T)


def test_under_bfloat16_changes_are_not_lost_in_the_table() -> None:
    """A change 500 times smaller than the weights would be rounded away in a sum of both."""
    model = headed()
    head = head_of(model)
    with torch.no_grad():
        head.lora_B["default"].mul_(2e-3)
    exact = head(states()) - states() @ head.weight.T
    model.to(torch.bfloat16)
    short = states().bfloat16()
    factors = head.factors(short)
    added = factors.hidden[..., D:].float() @ factors.weight[:, D:].float().T
    assert factors.hidden.dtype == factors.weight.dtype == torch.bfloat16
    assert (added - exact).abs().max() < 0.03 * exact.abs().max()


def test_the_words_stay_and_the_base_is_there_again_when_disabled() -> None:
    model = headed()
    plain = MaskedLanguageModel.from_config(TIED).eval()
    randomise(plain)
    assert model.head.weight is model.backbone.embeddings.word.weight
    assert torch.equal(model.backbone(**prompts()), plain.backbone(**prompts()))
    model.disable_adapters()
    assert torch.equal(model(**prompts()), plain(**prompts()))
    model.delete_adapter("default")
    assert type(model.head) is type(plain.head) and list(model.state_dict()) == list(plain.state_dict())


def test_a_tied_head_is_merged_only_for_good_and_untied(tmp_path: Path) -> None:
    model = headed()
    wanted, words = model(**prompts()), model.backbone.embeddings.word.weight.clone()
    with pytest.raises(ValueError, match=r"shares its table with the words.*merge_and_unload\(\) unties them"):
        model.merge_adapter()
    merged = model.merge_and_unload()
    assert torch.equal(merged.backbone.embeddings.word.weight, words) and not merged.config.tie_word_embeddings
    torch.testing.assert_close(merged(**prompts()), wanted)
    merged.save_pretrained(tmp_path)
    torch.testing.assert_close(MaskedLanguageModel.from_pretrained(tmp_path)(**prompts()), wanted)


def test_a_head_of_its_own_is_merged_and_unmerged_to_the_bit() -> None:
    model = headed({**TIED, "tie_word_embeddings": False}, target_modules=["q_proj", "lm_head"])
    wanted, before = model(**prompts()), model.head.weight.clone()
    model.merge_adapter()
    assert not torch.equal(model.head.weight, before)
    torch.testing.assert_close(model(**prompts()), wanted)
    torch.testing.assert_close(VocabularyProjection(*model.head.factors(states())).logits(), model.head(states()))
    model.unmerge_adapter()
    assert torch.equal(model.head.weight, before) and torch.equal(model(**prompts()), wanted)


def test_all_linear_layers_are_without_the_head_and_an_expression_may_name_it() -> None:
    def changed(targets: str) -> set[str]:
        model = headed(target_modules=targets)
        return {name for name, part in model.named_modules() if hasattr(part, "lora_A")}

    assert "head" not in changed("all-linear")
    assert changed(r".*(layers.0.self_attn.q_proj|lm_head)") == {"head", "backbone.layers.0.attention.q"}


def test_a_vocabulary_whose_head_is_changed_is_not_resized() -> None:
    with pytest.raises(ValueError, match="adapters change the head, of 17 tokens; merge or delete them"):
        headed().resize_token_embeddings(20)


def test_a_model_without_a_head_leaves_the_changes_of_one_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = headed(target_modules=["q_proj", "lm_head"])
    model.save_adapter(tmp_path)
    other = EncoderModel.from_config(TIED)
    other.load_state_dict({name: each for name, each in model.state_dict().items() if "lora" not in name}, strict=False)
    other.load_adapter(tmp_path)
    assert "lm_head.lora_A.weight" in caplog.text
    assert any("lora_A" in name for name, _ in other.named_parameters())


def test_a_head_that_was_added_is_trained_and_nothing_else() -> None:
    model = headed()
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {"head.lora_A.default", "head.lora_B.default"}
    assert isinstance(model.head, nn.Module) and not model.head.weight.requires_grad
