"""What a model tells of itself, against counts by hand and torch's own counters."""

from __future__ import annotations

import copy
import logging
import mmap
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, B, D, T, V, batch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparse_encoder.backbone import CompileConfig, EncoderModel, LoraConfig, MaskedLanguageModel
from sparse_encoder.backbone import memory_hooks as hooks
from sparse_encoder.backbone.counting import memory_footprint, num_parameters

CONFIGS = {**TINY_CONFIGS, **VARIANTS}
BERT_TABLES = V * D + 26 * D + 2 * D
BERT_LAYER = 4 * (D * D + D) + (D * 20 + 20) + (20 * D + D) + 4 * D
BERT_HEAD = D * D + D + 2 * D + V


def bert(**config: Any) -> MaskedLanguageModel:  # noqa: ANN401
    return MaskedLanguageModel.from_config({**TINY_CONFIGS["bert"], **config}, attn_implementation="eager").eval()


def test_parameters_are_counted_by_hand() -> None:
    model = bert()
    total = BERT_TABLES + 2 * D + 3 * BERT_LAYER + BERT_HEAD
    assert model.num_parameters() == total
    assert model.num_parameters(exclude_embeddings=True) == total - BERT_TABLES
    assert bert(tie_word_embeddings=False).num_parameters() == total + V * D
    assert bert(tie_word_embeddings=False).num_parameters(exclude_embeddings=True) == total - BERT_TABLES + V * D
    model.backbone.embeddings.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == total - BERT_TABLES - 2 * D
    assert model.num_parameters(True, True) == total - BERT_TABLES - 2 * D


def test_bytes_are_those_of_tensors_and_what_is_tied_is_counted_once() -> None:
    model = bert()
    assert model.get_memory_footprint() == 4 * model.num_parameters()
    assert model.to(torch.float16).get_memory_footprint() == 2 * model.num_parameters()
    part = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert memory_footprint(part) == 4 * (3 * 2 + 2 + 2 + 2) + (4 * 2 + 4 * 2 + 8)
    assert memory_footprint(part, return_buffers=False) == 4 * (3 * 2 + 2 + 2 + 2)
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert num_parameters(nn.Sequential(first, second)) == 9


def test_tokens_of_all_columns_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    model = bert()
    assert model.estimate_tokens(batch()) == B * T
    assert model.estimate_tokens({"a_input_ids": torch.ones(2, 3), "b_input_ids": torch.ones(4, 5), "c": 1}) == 26
    assert model.estimate_tokens({"input_ids": torch.ones(0, 3)}) == 0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert model.estimate_tokens({"labels": torch.ones(2)}) == 0
        assert model.estimate_tokens({}) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "the inputs have no input_ids, so their tokens count as 0"
    ]


class OfSigns(MaskedLanguageModel):
    """A model that calls its tokens otherwise."""

    main_input_name = "signs"


def test_tokens_are_those_of_the_main_input(caplog: pytest.LogCaptureFixture) -> None:
    model = OfSigns.from_config(TINY_CONFIGS["bert"])
    inputs = {"signs": torch.ones(2, 3), "a_signs": torch.ones(4, 5), "input_ids": torch.ones(7, 7)}
    assert model.estimate_tokens(inputs) == 26
    assert model.floating_point_ops(inputs, count_products=True) == sum(
        bert().floating_point_ops({"input_ids": inputs[name]}, count_products=True) for name in ("signs", "a_signs")
    )
    with caplog.at_level(logging.WARNING):
        assert model.estimate_tokens({"input_ids": torch.ones(2, 3)}) == 0
    assert "the inputs have no signs" in caplog.text


def test_operations_are_six_per_token_and_parameter() -> None:
    model, inputs = bert(), batch()
    assert model.floating_point_ops(inputs) == 6 * B * T * model.num_parameters(exclude_embeddings=True)
    assert model.floating_point_ops(inputs, exclude_embeddings=False) == 6 * B * T * model.num_parameters()
    assert model.floating_point_ops(inputs, backward=False) == model.floating_point_ops(inputs) // 3


def counted(model: nn.Module, inputs: dict[str, Tensor], *, backward: bool) -> int:
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs)
        if backward:
            output.sum().backward()
    total: int = counter.get_total_flops()
    return total


@pytest.mark.parametrize("kind", [EncoderModel, MaskedLanguageModel])
@pytest.mark.parametrize("name", CONFIGS)
def test_products_are_those_that_torch_counts(name: str, kind: type[EncoderModel | MaskedLanguageModel]) -> None:
    model = kind.from_config(CONFIGS[name], attn_implementation="eager")
    inputs = batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)
    for backward in (False, True):
        found = model.floating_point_ops(inputs, count_products=True, backward=backward)
        assert found == pytest.approx(counted(model, inputs, backward=backward), rel=0.01)
        assert found > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_products_of_adapters_are_those_that_torch_counts(name: str) -> None:
    model = MaskedLanguageModel.from_config(CONFIGS[name], attn_implementation="eager")
    inputs = batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)
    plain = model.floating_point_ops(inputs, count_products=True)
    for each, rank in (("a", 2), ("b", 5)):
        model.add_adapter(LoraConfig(r=rank, target_modules="all-linear"), each)
    model.set_adapter(["a", "b"])
    model.requires_grad_(True)  # all weights count as trained
    for backward in (False, True):
        found = model.floating_point_ops(inputs, count_products=True, backward=backward)
        assert found == pytest.approx(counted(model, inputs, backward=backward), rel=0.01)
    assert model.floating_point_ops(inputs, count_products=True) > 1.2 * plain
    model.merge_adapter()
    assert model.floating_point_ops(inputs, count_products=True) == plain


def test_products_of_attention_grow_with_the_square() -> None:
    model = bert()

    def products(num_tokens: int) -> int:
        inputs = {"input_ids": torch.zeros(2, num_tokens)}
        return model.floating_point_ops(inputs, count_products=True, backward=False)

    square = 2 * products(8) - products(16)  # what is linear falls out
    assert -square == 3 * 2 * 2 * D * 2 * (16 * 16 - 2 * 8 * 8)
    two = {"a_input_ids": torch.zeros(2, 8), "b_input_ids": torch.zeros(2, 16)}
    assert model.floating_point_ops(two, count_products=True, backward=False) == products(8) + products(16)
    with pytest.raises(ValueError, match=r"shape \(texts, tokens\), got \(5,\)"):
        model.floating_point_ops({"input_ids": torch.zeros(5)}, count_products=True)
    with pytest.raises(ValueError, match="leave exclude_embeddings true"):
        model.floating_point_ops({"input_ids": torch.zeros(2, 5)}, False, count_products=True)


def test_memory_of_each_module_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(0, 100_000, 100))
    monkeypatch.setattr(hooks, "memory_in_use", lambda _: next(readings))
    model = bert()
    model.add_memory_hooks()
    model.add_memory_hooks()
    facts: Any = model.backbone.embeddings.word
    assert (facts.mem_rss_diff, facts.mem_rss_pre_forward, facts.mem_rss_post_forward) == (0, 0, 0)
    model(**batch())
    assert (facts.mem_rss_diff, facts.mem_rss_post_forward - facts.mem_rss_pre_forward) == (100, 100)
    model(**batch())
    assert facts.mem_rss_diff == 200
    whole: Any = model
    assert whole.mem_rss_diff > 200
    model.reset_memory_hooks_state()
    assert {getattr(part, "mem_rss_diff", None) for part in model.modules()} == {0}
    assert {getattr(part, "mem_rss_pre_forward", None) for part in model.modules()} == {0}


def test_a_reset_before_hooks_does_not_keep_them_away(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(0, 1000, 100))
    monkeypatch.setattr(hooks, "memory_in_use", lambda _: next(readings))
    part: Any = nn.Linear(2, 3)
    hooks.reset_memory_hooks_state(part)
    hooks.add_memory_hooks(part)
    part(torch.ones(1, 2))
    assert part.mem_rss_diff == 100


@pytest.mark.parametrize("without_psutil", [False, True])
def test_memory_in_use_sees_a_large_tensor(monkeypatch: pytest.MonkeyPatch, without_psutil: bool) -> None:
    if without_psutil:
        monkeypatch.setitem(sys.modules, "psutil", None)
    size, page = 256 << 20, 4096
    before = hooks.memory_in_use(torch.device("cpu"))
    with mmap.mmap(-1, size) as block:  # nothing else can have left it there, and nothing keeps it afterwards
        for start in range(0, size, page):
            block[start] = 1
        grown = hooks.memory_in_use(torch.device("cpu")) - before
    assert before > 10_000_000
    assert grown > size / 2


def test_tensors_are_found_by_name() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("places", torch.arange(3))

        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 4}

    model = bert()
    model.part = Part()
    assert model.get_parameter_or_buffer("head.bias") is model.head.bias
    assert model.get_parameter_or_buffer("part.weight") is model.part.weight
    assert torch.equal(model.get_parameter_or_buffer("part.places"), torch.arange(3))
    assert model.get_parameter_or_buffer("part._extra_state") == {"seen": 4}
    for name in ("part", "part.none", "none.weight", "head._extra_state", ""):
        with pytest.raises(AttributeError):
            model.get_parameter_or_buffer(name)


def test_only_a_class_that_writes_text_can() -> None:
    class Writer(MaskedLanguageModel):
        def generate(self) -> None:
            """Write."""

    assert not MaskedLanguageModel.can_generate()
    assert not bert().can_generate()
    assert Writer.can_generate()


def test_device_and_dtype_are_those_of_the_parameters() -> None:
    model = bert()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.to("meta").device == torch.device("meta")
    model.backbone.embeddings.to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"not quantized: its weights are torch\.bfloat16"):
        model.dequantize()


def test_the_compiled_call_is_kept_until_the_config_changes() -> None:
    model = bert()
    plain = CompileConfig(backend="eager", mode=None)
    first = model.get_compiled_call(plain)
    assert model.get_compiled_call(CompileConfig(backend="eager", mode=None)) is first
    second = model.get_compiled_call(CompileConfig(backend="eager", mode=None, fullgraph=True))
    assert second is not first
    assert model.get_compiled_call(plain) is not second
    told = SimpleNamespace(fullgraph=True, dynamic=None, backend="eager", mode=None, options=None, other=1)
    model.get_compiled_call(CompileConfig(backend="eager", mode=None, fullgraph=True))
    kept = model.get_compiled_call(told)
    assert model.get_compiled_call(CompileConfig(backend="eager", mode=None, fullgraph=True)) is kept
    with pytest.raises(TypeError, match="a dict lacks .*'fullgraph'"):
        model.get_compiled_call({"fullgraph": True})
    with pytest.raises(ValueError, match="give mode or options, not both"):
        CompileConfig(options={"a": 1})


def test_the_compiled_call_computes_the_same_and_does_not_stand_in_the_way_of_copies() -> None:
    model, inputs = bert(), batch()
    compiled = model.get_compiled_call(CompileConfig(backend="eager", mode=None))
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs), model(**inputs))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "_compiled_call" not in other.__dict__
        assert torch.equal(other(**inputs), model(**inputs))
    assert model.get_compiled_call(CompileConfig(backend="eager", mode=None)) is compiled


def warnings_of(
    caplog: pytest.LogCaptureFixture, model: MaskedLanguageModel, input_ids: Tensor, mask: Tensor | None
) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model.warn_if_padding_and_no_attention_mask(input_ids, mask)
        model.warn_if_padding_and_no_attention_mask(input_ids, mask)
    return [record.getMessage() for record in caplog.records]


def test_padding_without_a_mask_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    padded, inside = torch.tensor([[5, 6, 0]]), torch.tensor([[5, 0, 6]])
    assert warnings_of(caplog, bert(), padded, torch.ones(1, 3)) == []
    assert warnings_of(caplog, bert(), inside, None) == []
    (told,) = warnings_of(caplog, bert(), padded, None)
    assert "pad_token_id 0" in told and "may be no padding" not in told
    assert len(warnings_of(caplog, bert(), padded.flip(1), None)) == 1
    (doubtful,) = warnings_of(caplog, bert(bos_token_id=0, eos_token_id=3, sep_token_id=0), padded, None)
    assert doubtful.endswith("it is bos_token_id and sep_token_id too, so they may be no padding after all")


@pytest.mark.parametrize("kind", [EncoderModel, MaskedLanguageModel])
def test_no_mask_is_one_of_ones_and_padding_is_told(
    kind: type[EncoderModel | MaskedLanguageModel], caplog: pytest.LogCaptureFixture
) -> None:
    model = kind.from_config(TINY_CONFIGS["bert"]).eval()
    full, padded = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 0]])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(model(full), model(full, torch.ones_like(full)))
        assert not caplog.records
        assert torch.equal(model(padded), model(padded, torch.ones_like(full)))
        model(padded)
    assert len(caplog.records) == 1 and "there is no attention_mask" in caplog.text


def test_nothing_is_told_while_tracing_or_without_a_padding_id(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = torch.tensor([[5, 6, 0]])
    assert warnings_of(caplog, bert(pad_token_id=None), padded, None) == []
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    assert warnings_of(caplog, bert(), padded, None) == []


def test_masks_become_biases() -> None:
    model, least = bert(), torch.finfo(torch.float32).min
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    bias = model.get_extended_attention_mask(mask, (2, 3))
    assert torch.equal(bias, torch.tensor([[0, 0, least], [least] * 3])[:, None, None, :])
    assert bias.softmax(-1).isfinite().all()
    square = torch.arange(2 * 3 * 3).view(2, 3, 3) % 2
    assert torch.equal(model.get_extended_attention_mask(square, (2, 3)), ((1.0 - square) * least)[:, None])
    half = model.get_extended_attention_mask(mask, (2, 3), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.min() == torch.finfo(torch.bfloat16).min
    assert model.get_extended_attention_mask(mask, (2, 3), "meta").device.type == "meta"
    assert torch.equal(model.invert_attention_mask(mask), bias)
    assert torch.equal(model.invert_attention_mask(square.bool()), ((1.0 - square) * least)[:, None])
    for wrong in (mask[0], square[None]):
        with pytest.raises(ValueError, match="attention_mask must be of shape"):
            model.get_extended_attention_mask(wrong, (2, 3))
        with pytest.raises(ValueError, match="attention_mask must be of shape"):
            model.invert_attention_mask(wrong)


def test_a_decoder_sees_the_past_and_no_future() -> None:
    model = bert()
    model.hf_config["is_decoder"] = True
    mask = torch.tensor([[0, 1, 1, 1, 1]])  # two tokens of the past, the first of them padding; three that look
    seen = model.get_extended_attention_mask(mask, (1, 3)) == 0
    assert seen.shape == (1, 1, 3, 5)
    assert seen[0, 0].int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    with pytest.raises(ValueError, match="a column for each token, got 5 for 6 tokens"):
        model.get_extended_attention_mask(mask, (1, 6))
