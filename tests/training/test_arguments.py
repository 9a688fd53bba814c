from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import Anything

from sparse_encoder.samplers import BatchSamplers, DefaultBatchSampler
from sparse_encoder.training import SparseEncoderTrainingArguments, TrainingArguments


class Strategy(str, Enum):
    EPOCH = "epoch"


def make(**options: Anything) -> SparseEncoderTrainingArguments:
    options.setdefault("output_dir", "out")
    return SparseEncoderTrainingArguments(**options)


def test_defaults_are_those_of_the_peer() -> None:
    args = SparseEncoderTrainingArguments()
    found = {name: getattr(args, name) for name in DEFAULTS}
    assert found == DEFAULTS


DEFAULTS = {
    "output_dir": "trainer_output",
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "optim": "adamw_torch_fused",
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "logging_strategy": "steps",
    "logging_steps": 500,
    "eval_strategy": "no",
    "eval_steps": 500,
    "save_strategy": "steps",
    "save_steps": 500,
    "save_total_limit": None,
    "seed": 42,
    "prompts": None,
    "router_mapping": {},
    "learning_rate_mapping": {},
    "batch_sampler": BatchSamplers.BATCH_SAMPLER,
    "report_to": [],
}

RANGES = [
    ("per_device_train_batch_size", 0),
    ("per_device_eval_batch_size", -1),
    ("gradient_accumulation_steps", 0),
    ("max_steps", 0),
    ("max_steps", -2),
    ("num_train_epochs", 0),
    ("num_train_epochs", float("inf")),
    ("learning_rate", -1e-5),
    ("learning_rate", float("nan")),
    ("warmup_steps", -1),
    ("warmup_steps", 1.5),
    ("warmup_ratio", 1.0),
    ("weight_decay", -0.1),
    ("adam_beta1", 1.0),
    ("adam_beta2", -0.1),
    ("adam_epsilon", -1e-8),
    ("max_grad_norm", -1.0),
    ("logging_steps", 0),
    ("logging_steps", 2.5),
    ("eval_steps", -1),
    ("save_steps", 1.5),
    ("save_total_limit", 0),
    ("seed", -1),
    ("logging_strategy", "best"),
    ("eval_strategy", "sometimes"),
    ("save_strategy", "always"),
    ("lr_scheduler_type", "greedy"),
    ("batch_sampler", "alphabetical"),
    ("dataloader_prefetch_factor", 2),
    ("dataloader_persistent_workers", True),
    ("dataloader_multiprocessing_context", "spawn"),
    ("optim", "adam"),
    ("hub_strategy", "often"),
    ("on_save_error", "ignore"),
    ("log_level", "loud"),
    ("include_num_input_tokens_seen", "some"),
    ("include_for_metrics", ["labels"]),
    ("label_smoothing_factor", 0.1),
    ("label_names", ["label"]),
    ("batch_eval_metrics", True),
    ("train_sampling_strategy", "group_by_length"),
    ("multi_dataset_batch_sampler", "alphabetical"),
    ("debug", "underflow_overflow"),
    ("deepspeed", "config.json"),
    ("neftune_noise_alpha", 5.0),
    ("use_liger_kernel", True),
    ("skip_memory_metrics", False),
    ("router_mapping", "query"),
    ("learning_rate_mapping", {"query": -1.0}),
    ("learning_rate_mapping", "1e-3"),
    ("learning_rate_mapping", {"query(": 1e-3}),
    ("trackio_space_id", "me/space"),
]


@pytest.mark.parametrize(("name", "value"), RANGES)
def test_a_bad_value_is_refused_by_name(name: str, value: Anything) -> None:
    with pytest.raises(ValueError, match="BatchSamplers" if value == "alphabetical" else name):
        make(**{name: value})


TYPES = [
    ("max_steps", 1.0),
    ("max_steps", True),
    ("seed", "42"),
    ("learning_rate", "1e-5"),
    ("prompts", 3),
    ("router_mapping", {"question": 1}),
    ("learning_rate_mapping", {"query": "fast"}),
    ("batch_sampler", 7),
    ("multi_dataset_batch_sampler", 7),
    ("prompts", {"pairs": {"question": {"x": "y"}}}),
    ("router_mapping", {"pairs": {"question": 1}}),
    ("lr_scheduler_kwargs", {"power": 2.0}),
    ("use_cpu", "false"),
    ("bf16", 1),
    ("dataloader_drop_last", None),
    ("greater_is_better", "yes"),
    ("label_names", "labels"),
    ("include_for_metrics", [1]),
    ("report_to", 3),
    ("run_name", 3),
    ("output_dir", 3),
    ("fsdp", 3),
]


@pytest.mark.parametrize(("name", "value"), TYPES)
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str, value: Anything) -> None:
    with pytest.raises(TypeError, match=name if name != "learning_rate_mapping" else "learning rate of 'query'"):
        make(**{name: value})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="deepspeeed"):
        make(deepspeeed="config.json")


def test_a_script_may_say_what_is_done_anyway() -> None:
    assert make(remove_unused_columns=False).remove_unused_columns is False
    assert make(remove_unused_columns=True).remove_unused_columns is True
    assert make(prediction_loss_only=False).prediction_loss_only is True
    assert make(debug=[], include_for_metrics=None).include_for_metrics == []
    assert make(max_grad_norm=None).max_grad_norm == 0.0
    assert make(ddp_broadcast_buffers=None).ddp_broadcast_buffers is False


def test_folders_may_be_paths(tmp_path: Path) -> None:
    args = make(output_dir=tmp_path / "out", logging_dir=tmp_path, resume_from_checkpoint=tmp_path)
    assert (args.output_dir, args.logging_dir) == (str(tmp_path / "out"), str(tmp_path))
    json.loads(args.to_json_string())


def test_settings_of_a_script_may_have_types_of_their_own() -> None:
    @dataclass
    class Own(SparseEncoderTrainingArguments):
        quick: bool = None  # type: ignore[assignment]

    assert Own("out").quick is None


def test_a_ratio_of_warm_up_may_come_under_its_older_name() -> None:
    assert make(warmup_ratio=0.1).warmup_steps == 0.1
    assert make(warmup_ratio=0.0, warmup_steps=100).warmup_steps == 100
    assert make(warmup_ratio=0.0).warmup_ratio is None
    with pytest.raises(ValueError, match="contradict each other"):
        make(warmup_ratio=0.1, warmup_steps=5)


def test_the_strategy_of_evaluations_may_come_under_its_older_name() -> None:
    with pytest.warns(FutureWarning, match="evaluation_strategy is now called eval_strategy"):
        args = make(evaluation_strategy="epoch")
    assert (args.eval_strategy, args.evaluation_strategy, args.do_eval) == ("epoch", None, True)


def test_the_level_of_the_log_is_a_number() -> None:
    library = logging.getLogger("sparse_encoder")
    before = library.level
    try:
        for level in (logging.ERROR, logging.DEBUG):
            library.setLevel(level)
            assert make().get_process_log_level() == level
            make().set_log_level()
            assert library.level == level
        make(log_level="info").set_log_level()
        assert library.level == make(log_level="info").get_process_log_level() == logging.INFO
    finally:
        library.setLevel(before)


def test_one_process_is_the_first_and_not_parallel() -> None:
    args = make(use_cpu=True)
    assert args.should_log and args.should_save
    assert args.parallel_mode.value == "not_parallel"
    with args.main_process_first(local=False, desc="maps"):
        assert args.world_size == 1


def test_eval_steps_follow_logging_steps() -> None:
    assert make(logging_steps=7).eval_steps == 7
    assert make(logging_steps=7, eval_steps=3).eval_steps == 3


def test_names_may_be_members_of_an_enum() -> None:
    assert make(save_strategy=Strategy.EPOCH).save_strategy == "epoch"
    assert make(batch_sampler=BatchSamplers.BATCH_SAMPLER).batch_sampler is BatchSamplers.BATCH_SAMPLER


def test_mappings_may_come_as_json() -> None:
    args = make(
        router_mapping='{"question": "query"}', learning_rate_mapping='{"query": 0.1}', prompts='{"question": "q: "}'
    )
    assert args.router_mapping == {"question": "query"}
    assert args.learning_rate_mapping == {"query": 0.1}
    assert args.prompts == {"question": "q: "}


def test_a_prompt_need_not_be_json() -> None:
    assert make(prompts="query: ").prompts == "query: "
    assert make(prompts="{curly} ").prompts == "{curly} "


def test_the_caller_keeps_the_mapping() -> None:
    mapping = {"question": "query"}
    make(router_mapping=mapping).router_mapping["answer"] = "document"  # type: ignore[index, call-overload, union-attr]
    assert mapping == {"question": "query"}


def test_the_best_metric_is_the_loss_unless_it_is_named() -> None:
    args = make(eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True)
    assert (args.metric_for_best_model, args.greater_is_better) == ("loss", False)
    assert make(metric_for_best_model="ndcg@10").greater_is_better is True
    assert make(metric_for_best_model="eval_ndcg@10", greater_is_better=False).greater_is_better is False
    assert make().greater_is_better is None


BEST = [
    ({"eval_strategy": "no"}, "same eval_strategy"),
    ({"eval_strategy": "epoch", "save_strategy": "steps"}, "'epoch' and 'steps'"),
    ({"eval_strategy": "steps", "save_steps": 0.5, "eval_steps": 10}, "both as ratios"),
    ({"eval_strategy": "steps", "save_steps": 15, "eval_steps": 10}, "multiple of eval_steps"),
]


@pytest.mark.parametrize(("options", "message"), BEST)
def test_the_best_model_needs_a_checkpoint_at_every_evaluation(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(load_best_model_at_end=True, **options)


def test_saving_the_best_needs_evaluations() -> None:
    with pytest.raises(ValueError, match="save_strategy='best' needs an eval_strategy"):
        make(save_strategy="best")
    assert (
        make(save_strategy="best", eval_strategy="steps", load_best_model_at_end=True).metric_for_best_model == "loss"
    )


def test_ratios_may_be_multiples() -> None:
    args = make(eval_strategy="steps", eval_steps=0.1, save_steps=0.3, load_best_model_at_end=True)
    assert args.save_steps == 0.3


def test_both_names_of_gradient_checkpointing_are_honoured() -> None:
    assert make(gradient_checkpointing=True).gradient_checkpointing
    assert make(activation_checkpointing=True).gradient_checkpointing


def test_settings_are_plain_json() -> None:
    values = json.loads(make(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1}).to_json_string())
    assert values["batch_sampler"] == "batch_sampler"
    assert SparseEncoderTrainingArguments(**values).to_dict() == values
    assert "batch_sampler" not in make(batch_sampler=DefaultBatchSampler).to_dict()


@pytest.mark.parametrize("bf16", [False, True])
def test_bf16_is_an_autocast(bf16: bool) -> None:
    left, right = torch.ones(2, 5), torch.ones(5, 3)
    with make(bf16=bf16).autocast(left.device):
        assert (left @ right).dtype == (torch.bfloat16 if bf16 else torch.float32)


def test_values_take_the_form_that_scripts_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert make(output_dir="~/models").output_dir == "/home/somebody/models"
    assert (make().do_eval, make(eval_strategy="steps").do_eval, make(do_eval=True).do_eval) == (False, True, True)
    assert (make().torch_compile_backend, make(torch_compile=True).torch_compile_backend) == (None, "inductor")
    assert (make().dataloader_pin_memory, make(use_cpu=True).dataloader_pin_memory) == (True, False)
    assert [make(include_num_input_tokens_seen=each).include_num_input_tokens_seen for each in (True, False)] == [
        "all",
        "no",
    ]


@pytest.mark.parametrize(
    ("given", "kept"), [("none", []), (None, []), (["none"], []), ("tensorboard", ["tensorboard"]), ([], [])]
)
def test_trackers_are_kept_as_a_list(given: Anything, kept: list[str]) -> None:
    assert make(report_to=given).report_to == kept


def test_types_of_torch_are_told_by_name() -> None:
    @dataclass
    class Own(TrainingArguments):
        dtype: torch.dtype = torch.float32

    assert Own("out", dtype=torch.bfloat16).to_dict()["dtype"] == "bfloat16"


def test_the_only_process_logs_saves_and_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    args = make()
    assert args.should_log and args.should_save
    for local in (True, False):
        with caplog.at_level("DEBUG"), args.main_process_first(local=local, desc="tokenizing"):
            assert "process 0: tokenizing" in caplog.text


def test_buffers_are_not_sent_around_in_each_forward() -> None:
    assert make(ddp_broadcast_buffers=False).ddp_broadcast_buffers is False
    with pytest.raises(ValueError, match="ddp_broadcast_buffers must be False, got True: processes agree"):
        make(ddp_broadcast_buffers=True)


def test_trackers_get_numbers_and_texts() -> None:
    values = make(learning_rate=1e-3, prompts={"query": "q: "}, hub_token="secret").to_sanitized_dict()
    assert values["learning_rate"] == 1e-3
    assert values["prompts"] == "{'query': 'q: '}"
    assert values["train_batch_size"] == values["per_device_train_batch_size"]
    assert all(isinstance(value, bool | int | float | str) for value in values.values())
    assert "secret" not in str(values)
