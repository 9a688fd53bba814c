"""Where a run computes: processes, devices and the wrappers around a model; knows nothing of data or losses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import nn

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.processes import end_group_at_exit
from sparse_encoder.training.replicas import ddp_settings
from sparse_encoder.training.sharding import Sharding, is_sharded, read_sharding, shard

_NOT_SUPPORTED = ("DEEPSPEED", "MEGATRON_LM", "XLA")


def build_accelerator(args: TrainingArguments) -> Accelerator:
    """Return what knows the processes and the device of a run.

    Raises:
        ValueError: If the launcher asks for something that is not supported.
    """
    backend = {} if args.ddp_backend is None else {"backend": args.ddp_backend}
    group = InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout), **backend)
    accelerator = Accelerator(
        cpu=args.use_cpu,
        mixed_precision="no",  # args.autocast does it
        kwargs_handlers=[ddp_settings(args), group],
    )
    end_group_at_exit()
    if accelerator.distributed_type.value in _NOT_SUPPORTED:
        raise ValueError(
            f"training with {accelerator.distributed_type.value} is not supported; torchrun and accelerate launch "
            "start data parallelism, and fsdp shares a model out among processes"
        )
    if accelerator.num_processes == 1 and _sharding(args) is not None:
        raise ValueError(
            "fsdp shares a model out among processes, and this is the only one; start several, "
            "for example with torchrun --nproc-per-node 2, or leave fsdp out"
        )
    if args.tf32 is not None:
        torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    return accelerator


def is_model_parallel(model: nn.Module, device: torch.device) -> bool:
    """Return whether a model is spread over several devices, or lies on one that is not the trainer's."""
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()} - {"cpu", "disk"}
    if len(places) > 1:
        return True
    return any(torch.device(_device_name(place)) != device for place in places)


def model_is_moved(model: nn.Module, args: TrainingArguments, accelerator: Accelerator) -> bool:
    """Return whether the trainer moves a model to its device as soon as it has it."""
    if args.place_model_on_device is not None:
        return args.place_model_on_device
    full_eval = args.fp16_full_eval or args.bf16_full_eval
    return not (is_model_parallel(model, accelerator.device) or _sharding(args) or full_eval)


def place_model(model: nn.Module, args: TrainingArguments, accelerator: Accelerator) -> None:
    """Move a model to the trainer's device, unless it is spread over several; share it out if that is wanted."""
    sharding = _sharding(args)
    if sharding is None:
        if not is_model_parallel(model, accelerator.device):
            model.to(accelerator.device)
    elif not is_sharded(model):
        shard(model, sharding, accelerator.device, accelerator.num_processes)


def _sharding(args: TrainingArguments) -> Sharding | None:
    """Return how the model is to be shared out among processes; None if it is not."""
    return read_sharding(args.fsdp, args.mapping("fsdp_config"))


def wrap_model(model: nn.Module, args: TrainingArguments) -> nn.Module:
    """Return what runs in the place of a model in training: the model, perhaps compiled."""
    if not args.torch_compile:
        return model
    return torch.compile(  # type: ignore[return-value]  # a module for a module
        model, backend=args.torch_compile_backend or "inductor", mode=args.torch_compile_mode
    )


@contextmanager
def half_weights(model: nn.Module, args: TrainingArguments) -> Iterator[None]:
    """Give a model 16-bit weights for a while, if the settings ask for it, and then the very same ones as before."""
    if not (args.fp16_full_eval or args.bf16_full_eval):
        yield
        return
    dtype = torch.float16 if args.fp16_full_eval else torch.bfloat16
    kept = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    try:
        for tensor, data in kept:
            tensor.data = data.to(dtype)
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Let torch use deterministic algorithms only for a while, if wanted."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may refuse
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def _device_name(place: str) -> str:
    """Return the name of a device that a map may give as a number."""
    return f"cuda:{place}" if place.isdigit() else place
