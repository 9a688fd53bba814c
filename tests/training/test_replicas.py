from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from distributed_helpers import in_processes
from torch import Tensor, nn

from sparse_encoder.losses import FlopsLoss, SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.objectives import Losses
from sparse_encoder.training.replicas import Replicas, agree_on_buffers, average_gradients, ddp_settings

HIDDEN, RANKS = 5, 2
Gradients = dict[str, Tensor]
Anything = Any  # a setting


class Routes(nn.Module):
    """Queries and documents go through different parameters, and a loss has one of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.query = nn.Linear(HIDDEN, HIDDEN, dtype=torch.float64)
        self.document = nn.Linear(HIDDEN, HIDDEN, dtype=torch.float64)
        self.never = nn.Linear(2, 2, dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def losses(self, batch: list[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Run one part after the other, as a loss runs a model once per column."""
        self.calls += 1
        outputs = [getattr(self, route)(rows).relu() for route, rows in batch]
        return {"loss": self.scale * torch.stack([each.square().sum() for each in outputs]).sum()}


def batch(seed: int, *routes: str) -> list[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(route, torch.randn(3, HIDDEN, generator=generator, dtype=torch.float64)) for route in routes]


def batches(rank: int) -> list[list[tuple[str, Tensor]]]:
    """Two micro-batches: both routes, then one that is another in each process."""
    return [batch(10 + rank, "query", "document"), batch(20 + rank, "query" if rank else "document")]


def gradients(module: nn.Module) -> Gradients:
    return {name: cast(Tensor, each.grad) for name, each in module.named_parameters() if each.grad is not None}


def arguments(**options: Anything) -> TrainingArguments:
    return TrainingArguments("folder", **{"use_cpu": True, **options})


def work(rank: int, folder: str) -> tuple[Gradients, int, list[Tensor | None]]:
    accelerator = Accelerator(cpu=True, kwargs_handlers=[ddp_settings(arguments())])
    assert accelerator.num_processes == RANKS
    module = Routes()
    replicas = Replicas(accelerator, module, module.losses)
    for _ in range(2):  # what is left of one update must not disturb the next
        module.zero_grad()
        for index, each in enumerate(batches(rank)):
            with replicas.averaging(last=index == 1):
                (replicas.losses_of(each)["loss"] / 2).backward()
        replicas.finish()
    averaged = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2))]
    averaged[0].grad = torch.full((3,), 1.0 + rank)
    if rank == 1:
        averaged[1].grad = torch.tensor(5.0)
    average_gradients(averaged)
    return gradients(module), int(module.calls), [each.grad for each in averaged]


class Aging(nn.Module):
    """Has a buffer of which the smallest counts, and some of which those of the first process do."""

    smallest_over_processes = ("ages",)

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.register_buffer("ages", torch.tensor([3, 7]) if rank else torch.tensor([5, 2]))
        self.register_buffer("mean", torch.tensor([0.25 + rank, -1.5], dtype=torch.float64))
        self.register_buffer("seen", torch.tensor(rank == 0))
        self.register_buffer("turned", torch.arange(6).view(2, 3).mT + rank)
        self.register_buffer("same", torch.zeros(1).expand(4))
        self.register_buffer("empty", torch.zeros(0))


def agree(rank: int, folder: str) -> dict[str, Tensor]:
    module = nn.Sequential(Aging(rank), nn.Linear(2, 2))
    agree_on_buffers(module)
    return dict(module.named_buffers())


@pytest.mark.slow
def test_buffers_are_those_of_the_first_process_or_the_smallest(tmp_path: Path) -> None:
    expected = dict(Aging(0).named_buffers()) | {"ages": torch.tensor([3, 2])}
    for found in in_processes(agree, ranks=RANKS, folder=tmp_path):
        assert found.keys() == {f"0.{name}" for name in expected}
        for name, tensor in expected.items():
            assert torch.equal(found[f"0.{name}"], tensor), name


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return in_processes(work, ranks=RANKS, folder=tmp_path_factory.mktemp("replicas"))


@pytest.mark.slow
def test_gradients_are_averaged_whatever_part_a_batch_touches(results: list[Any]) -> None:
    alone = Routes()
    for each in (*batches(0), *batches(1)):
        (alone.losses(each)["loss"] / 4).backward()
    for averaged, calls, _ in results:
        assert sorted(averaged) == sorted(gradients(alone))  # what nothing touches has no gradient
        for name, gradient in gradients(alone).items():
            torch.testing.assert_close(averaged[name], gradient, rtol=1e-12, atol=0)
        assert calls == 4  # of its own process


@pytest.mark.slow
def test_gradients_that_nothing_averages_are_averaged_at_the_end(results: list[Any]) -> None:
    for _, _, by_hand in results:
        assert torch.equal(by_hand[0], torch.full((3,), 1.5))
        assert torch.equal(by_hand[1], torch.tensor(2.5))
        assert by_hand[2] is None


def test_one_process_computes_as_it_is() -> None:
    module = Routes()
    accelerator = cast(Accelerator, SimpleNamespace(num_processes=1))
    replicas = Replicas(accelerator, module, module.losses)
    assert replicas.losses_of == module.losses
    with replicas.averaging(last=False):
        replicas.losses_of(batch(1, "query"))["loss"].backward()
    replicas.finish()
    assert gradients(module)["query.weight"].norm() > 0


def test_losses_by_dataset_may_not_wait_for_other_processes() -> None:
    gathering = SparseMultipleNegativesRankingLoss(Routes(), gather_across_devices=True)
    accelerator = cast(Accelerator, SimpleNamespace(num_processes=RANKS))
    losses = Losses({"a": FlopsLoss(Routes()), "b": SpladeLoss(Routes(), gathering, 1.0)})
    with pytest.raises(ValueError, match="RankingLoss has gather_across_devices=True, which does not go"):
        Replicas(accelerator, losses, lambda batch: {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"find_unused_parameters": True}),
        ({"gradient_checkpointing": True}, {}),
        ({"gradient_checkpointing": True, "ddp_find_unused_parameters": True}, {"find_unused_parameters": True}),
        ({"ddp_find_unused_parameters": False}, {}),
        (
            {"ddp_find_unused_parameters": False, "ddp_bucket_cap_mb": 3, "ddp_static_graph": True},
            {"bucket_cap_mb": 3, "static_graph": True},
        ),
    ],
)
def test_settings(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert ddp_settings(arguments(**options)).to_kwargs() == expected  # what differs from the defaults
