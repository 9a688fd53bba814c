"""One model in several processes: each computes the loss of its own batches, and their gradients are averaged.

Knows neither data nor losses: a micro-batch is anything, and a function computes its losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.objectives import Losses as LossesByDataset

Losses = dict[str, Tensor]
ComputeLosses = Callable[..., Losses]  # from a micro-batch and its place, whatever the trainer's are


class MicroStep(nn.Module):
    """One forward per micro-batch.

    A loss runs the model once per column. Data parallelism, which looks from the output of a forward for the
    parameters that take part, must see all of them at once, those that the loss owns too.

    Args:
        objective: Holds every parameter that is trained.
        compute: Returns the losses of a micro-batch by name.
    """

    def __init__(self, objective: nn.Module, compute: ComputeLosses) -> None:
        super().__init__()
        self.objective = objective
        self.compute = compute

    def forward(self, *inputs: Any) -> Losses:  # noqa: ANN401  (as ComputeLosses says)
        """Compute the losses of a micro-batch."""
        return self.compute(*inputs)


def ddp_settings(args: TrainingArguments) -> DistributedDataParallelKwargs:
    """Return the settings of data parallelism, for :class:`accelerate.Accelerator`."""
    find_unused = args.ddp_find_unused_parameters
    options: dict[str, Any] = {  # of several types
        "find_unused_parameters": not args.gradient_checkpointing if find_unused is None else find_unused
    }
    if args.ddp_bucket_cap_mb is not None:
        options["bucket_cap_mb"] = args.ddp_bucket_cap_mb
    if args.ddp_static_graph is not None:
        options["static_graph"] = args.ddp_static_graph
    return DistributedDataParallelKwargs(**options)


class Replicas:
    """Compute losses so that the gradients of all processes become one, and so do the buffers after each update.

    Args:
        accelerator: Knows the processes, and the settings of data parallelism.
        objective: Holds every parameter that is trained; perhaps with sharded ones, which average by themselves.
        compute: Returns the losses of a micro-batch by name.

    Raises:
        ValueError: If there are several losses by dataset, and one compares the rows of all processes, or the model
            is shared out.
    """

    def __init__(self, accelerator: Accelerator, objective: nn.Module, compute: ComputeLosses) -> None:
        self.losses_of: ComputeLosses = compute
        """Computes the losses of a micro-batch; to be used for every forward that is followed by a backward."""
        self._wrapped: DistributedDataParallel | None = None
        self._not_averaged: list[nn.Parameter] = []
        self._objective = objective if accelerator.num_processes > 1 else None
        if accelerator.num_processes == 1:
            return
        trained = [each for each in objective.parameters() if each.requires_grad]
        _check_losses(objective, sharded=any(isinstance(each, DTensor) for each in trained))
        if any(isinstance(each, DTensor) for each in trained):
            self._not_averaged = [each for each in trained if not isinstance(each, DTensor)]
            return
        step = MicroStep(objective, compute)
        buffers = [name for name, _ in step.named_buffers()]  # within an update each process keeps its own
        ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(step, buffers)  # type: ignore[no-untyped-call]
        options = {} if accelerator.ddp_handler is None else accelerator.ddp_handler.to_kwargs()
        places = None if accelerator.device.type == "cpu" else [accelerator.device]
        self.losses_of = self._wrapped = DistributedDataParallel(step, device_ids=places, **options)

    def averaging(self, *, last: bool) -> AbstractContextManager[Any]:  # nothing is made of its value
        """Return the context of a forward and its backward, which averages gradients in the last of an update."""
        if self._wrapped is None or last:
            return nullcontext()
        return self._wrapped.no_sync()

    def finish(self) -> None:
        """Average what has not been averaged in the backwards of an update, and agree on the buffers."""
        if self._not_averaged:
            average_gradients(self._not_averaged)
        if self._objective is not None:
            agree_on_buffers(self._objective)


def _check_losses(objective: nn.Module, *, sharded: bool) -> None:
    """Refuse what waits for all processes where some of them may be at another loss."""
    if not isinstance(objective, LossesByDataset) or len(set(objective.children())) < 2:
        return
    if sharded:
        raise ValueError(
            "several losses by dataset do not go with fsdp: processes may be at different datasets, and one that "
            "touches other parameters than the rest would wait forever; take one loss, or leave fsdp out"
        )
    for part in objective.modules():
        if getattr(part, "gather_across_devices", False):
            raise ValueError(
                f"{type(part).__name__} has gather_across_devices=True, which does not go with losses by dataset in "
                "several processes: these may be at different datasets, and would wait for each other forever"
            )


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average gradients over all processes, in place; a gradient that some processes lack counts as zero there.

    All processes must call this. It waits for the device, once.

    Args:
        parameters: The same in all processes.
    """
    has = torch.tensor([float(each.grad is not None) for each in parameters], device=parameters[0].device)
    dist.all_reduce(has)
    processes = dist.get_world_size()
    for parameter, count in zip(parameters, has.tolist(), strict=True):
        if not count:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= processes


@torch.no_grad()
def agree_on_buffers(module: nn.Module) -> None:
    """Give all processes the same buffers, so that a checkpoint, which has those of one, has those of all.

    They become those of the first process, but for the ones that a part of the module lists by name in
    ``smallest_over_processes``: of these the smallest of all processes counts, entry by entry. All processes must call
    this.

    Args:
        module: With the same buffers in all processes.
    """
    smallest = {
        id(part.get_buffer(name)) for part in module.modules() for name in getattr(part, "smallest_over_processes", ())
    }
    own: list[Tensor] = []
    for buffer in module.buffers():
        if id(buffer) in smallest:
            dist.all_reduce(buffer, dist.ReduceOp.MIN)
        elif _is_written(buffer):
            own.append(buffer)
    if not own:
        return
    parts = [buffer.flatten().contiguous().view(torch.uint8) for buffer in own]
    packed = torch.cat(parts)
    dist.broadcast(packed, src=0)
    if dist.get_rank() == 0:
        return
    sizes = [len(part) for part in parts]
    for buffer, part in zip(own, torch.split(packed, sizes), strict=True):
        buffer.copy_(part.clone().view(buffer.dtype).view_as(buffer))


def _is_written(buffer: Tensor) -> bool:
    """Return whether each entry of a buffer has memory of its own, without which it cannot have changed."""
    if isinstance(buffer, DTensor) or buffer.layout is not torch.strided or not buffer.numel():
        return False
    return all(stride or size == 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))
