from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from training_helpers import arguments

from sparse_encoder.training import devices
from sparse_encoder.training.deepspeed_config import RunSize, propagate_args_to_deepspeed

SIZE = RunSize(num_processes=3, max_steps=40, hidden_size=10)
OPTIONS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 5,
    "learning_rate": 0.25,
    "weight_decay": 0.125,
    "warmup_steps": 0.2,
    "max_grad_norm": 0.5,
}


def config(stage: int = 3) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto", "loss_scale": 0},
        "optimizer": {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")},
        "scheduler": {
            "type": "WarmupDecayLR",
            "params": dict.fromkeys(("total_num_steps", "warmup_min_lr", "warmup_max_lr", "warmup_num_steps"), "auto"),
        },
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
        },
    }


def test_every_auto_is_filled() -> None:
    given = config()
    before = copy.deepcopy(given)
    filled = propagate_args_to_deepspeed(given, arguments("folder", bf16=True, **OPTIONS), SIZE)
    assert filled == {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 5,
        "train_batch_size": 60,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "fp16": {"enabled": False, "loss_scale": 0},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": 0.25, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.125},
        },
        "scheduler": {
            "type": "WarmupDecayLR",
            "params": {"total_num_steps": 40, "warmup_min_lr": 0, "warmup_max_lr": 0.25, "warmup_num_steps": 8},
        },
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": 100,
            "stage3_prefetch_bucket_size": 90,
            "stage3_param_persistence_threshold": 100,
        },
    }
    assert given == before


def test_what_is_not_known_stays_auto() -> None:
    filled = propagate_args_to_deepspeed(config(stage=2), arguments("folder", **OPTIONS), RunSize(num_processes=1))
    assert filled["scheduler"]["params"]["total_num_steps"] == "auto"
    assert filled["scheduler"]["params"]["warmup_num_steps"] == "auto"
    assert filled["zero_optimization"]["reduce_bucket_size"] == "auto"
    filled = propagate_args_to_deepspeed(config(stage=2), arguments("folder", **OPTIONS), SIZE)
    assert filled["zero_optimization"]["reduce_bucket_size"] == 100
    assert filled["zero_optimization"]["stage3_prefetch_bucket_size"] == "auto"  # of stage 3 only


def test_what_is_not_there_stays_away() -> None:
    assert propagate_args_to_deepspeed({"zero_optimization": {"stage": 1}}, arguments("folder"), SIZE) == {
        "zero_optimization": {"stage": 1}
    }


def test_a_warm_up_is_at_least_one_step() -> None:
    filled = propagate_args_to_deepspeed(config(), arguments("folder"), SIZE)
    assert filled["scheduler"]["params"]["warmup_num_steps"] == 1


def test_contradictions_are_all_named() -> None:
    given = {"train_batch_size": 60, "gradient_clipping": 2.0, "optimizer": {"params": {"lr": 1.0, "eps": 1e-8}}}
    message = (
        "gradient_clipping is 2.0 and the arguments say 0.5; optimizer.params.lr is 1.0 and the arguments say 0.25;"
    )
    with pytest.raises(ValueError, match=message):
        propagate_args_to_deepspeed(given, arguments("folder", **OPTIONS), SIZE)


def test_the_trainer_refuses_what_it_cannot_do_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = SimpleNamespace(value="DEEPSPEED")
    monkeypatch.setattr(devices, "Accelerator", lambda **options: SimpleNamespace(distributed_type=kind))
    with pytest.raises(ValueError, match="training with DEEPSPEED is not supported; torchrun and accelerate launch"):
        devices.build_accelerator(arguments("folder"))
    with pytest.raises(ValueError, match="deepspeed must be None, got 'zero3.json'"):
        arguments("folder", deepspeed="zero3.json")


def test_batch_sizes_may_differ_while_they_are_looked_for() -> None:
    given = {"train_batch_size": 6, "train_micro_batch_size_per_gpu": 2}
    args = arguments("folder", **OPTIONS)
    assert propagate_args_to_deepspeed(given, args, SIZE, auto_find_batch_size=True) == given
    with pytest.raises(
        ValueError, match="train_micro_batch_size_per_gpu is 2 .* say 4; train_batch_size is 6 .* say 60"
    ):
        propagate_args_to_deepspeed(given, args, SIZE)
