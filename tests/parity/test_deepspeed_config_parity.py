"""The same fields are filled as by transformers, whose filler is run without DeepSpeed."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from training_helpers import arguments

from sparse_encoder.training.deepspeed_config import RunSize, propagate_args_to_deepspeed

deepspeed = pytest.importorskip("transformers.integrations.deepspeed")

CONFIG: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 7,
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": {"total_num_steps": "auto", "warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": 3},
    },
    "zero_optimization": {
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
    },
}


@pytest.mark.parametrize("stage", [1, 3])
def test_filled_as_by_the_peer(monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    monkeypatch.setattr(deepspeed, "dep_version_check", lambda name: None)
    config = copy.deepcopy(CONFIG)
    config["zero_optimization"]["stage"] = stage
    args = arguments("folder", learning_rate=3e-4, warmup_steps=3, weight_decay=0.1, gradient_accumulation_steps=2)
    base = deepspeed.HfTrainerDeepSpeedConfig
    peer = type("Peer", (base, HfDeepSpeedConfig), {})(copy.deepcopy(config))  # as where DeepSpeed is installed
    peer.trainer_config_process(args)
    peer.trainer_config_finalize(args, SimpleNamespace(config=SimpleNamespace(hidden_size=12)), 50)
    ours = propagate_args_to_deepspeed(config, args, RunSize(args.world_size, max_steps=50, hidden_size=12))
    assert ours == peer.config
