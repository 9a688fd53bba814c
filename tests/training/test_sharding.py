from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed_helpers import in_processes
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sparse_encoder.training.replicas import average_gradients
from sparse_encoder.training.sharding import (
    Sharding,
    class_name,
    is_sharded,
    load_whole,
    read_sharding,
    shard,
    shared_out_state,
    split_by_kind,
    whole,
    whole_state,
)

HIDDEN, TOKENS, RANKS, UPDATES = 5, 17, 2, 3
Anything = Any  # what a user may give
CPU = torch.device("cpu")


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(HIDDEN, HIDDEN, dtype=torch.float64)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.project(hidden).relu()


class Encoder(nn.Module):
    """Tied word vectors at both ends, as those of a masked language model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.words = nn.Embedding(TOKENS, HIDDEN, dtype=torch.float64)
        self.layers = nn.Sequential(Layer(), Layer())
        self.decoder = nn.Linear(HIDDEN, TOKENS, dtype=torch.float64)
        self.decoder.weight = self.words.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, tokens: Tensor) -> Tensor:
        self.seen += len(tokens)
        logits: Tensor = self.decoder(self.layers(self.words(tokens)))
        return logits.amax(dim=1).relu().log1p()


class Ranking(nn.Module):
    """A loss that runs the model twice and owns a scalar."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, step: int, rank: int) -> Tensor:
        generator = torch.Generator().manual_seed(10 * step + rank)
        queries, documents = (torch.randint(0, TOKENS, (3, width), generator=generator) for width in (4, 6))
        scores = self.scale * self.model(queries) @ self.model(documents).T
        return nn.functional.cross_entropy(scores, torch.arange(3))


def optimizer_for(loss: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(split_by_kind([{"params": list(loss.parameters())}]), lr=1e-2, fused=True)


def train(loss: Ranking, optimizer: torch.optim.Optimizer, steps: range, rank: int) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss(step, rank).backward()
        average_gradients([loss.scale])
        optimizer.step()


def work(rank: int, folder: str) -> dict[str, Any]:
    """Train; read the whole model and optimizer after the first update; go on with both in a new model."""
    loss = Ranking(Encoder())
    shard(loss.model, Sharding(), CPU, RANKS)
    assert is_sharded(loss.model)
    assert [class_name(each) for each in (loss.model, loss.model.layers[1])] == ["Encoder", "Layer"]
    assert class_name(loss) == "Ranking"
    sizes = [each.to_local().numel() for each in loss.model.parameters() if isinstance(each, DTensor)]
    optimizer = optimizer_for(loss)
    train(loss, optimizer, range(1), rank)
    with torch.no_grad():
        loss.model(torch.zeros(2, 3, dtype=torch.int64))  # leaves parts that were fetched
    with whole(loss.model, keep=rank == 0):
        kept = {name: each.clone() for name, each in loss.model.state_dict().items()} if rank == 0 else {}
        types = [type(each).__name__ for each in loss.model.state_dict().values()]
    state = whole_state(optimizer, keep=rank == 0)
    torch.save((kept, state, loss.scale.detach()), Path(folder) / f"state{rank}.pt")
    train(loss, optimizer, range(1, UPDATES), rank)
    with whole(loss.model, keep=True):
        straight = {name: each.clone() for name, each in loss.model.state_dict().items()}

    dist.barrier()
    kept, state, scale = torch.load(Path(folder) / "state0.pt", weights_only=True)
    again = Ranking(Encoder())
    with torch.no_grad():
        for each in again.parameters():
            each.zero_()
    shard(again.model, Sharding(reshard_after_forward=False), CPU, RANKS)
    optimizer = optimizer_for(again)
    with torch.no_grad():
        again.model(torch.zeros(2, 3, dtype=torch.int64))
        again.scale.copy_(scale)
    load_whole(again.model, kept)
    optimizer.load_state_dict(shared_out_state(state, optimizer))
    train(again, optimizer, range(1, UPDATES), rank)
    with whole(again.model, keep=True):
        resumed = {name: each.clone() for name, each in again.model.state_dict().items()}
    return {"sizes": sizes, "types": types, "straight": straight, "resumed": resumed}


def alone(updates: int) -> Ranking:
    """Train on the batches of both processes in one."""
    loss = Ranking(Encoder())
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    for step in range(updates):
        optimizer.zero_grad()
        (sum(loss(step, rank) for rank in range(RANKS)) / RANKS).backward()
        optimizer.step()
    return loss


@pytest.mark.slow
def test_a_sharded_model_trains_as_a_whole_one_and_can_be_saved_and_loaded(tmp_path: Path) -> None:
    results = in_processes(work, ranks=RANKS, folder=tmp_path)
    expected = alone(UPDATES).model.state_dict()
    numel = [each.numel() for each in Encoder().parameters()]
    assert [sum(sizes) for sizes in zip(*(each["sizes"] for each in results), strict=True)] == numel
    assert "DTensor" not in results[0]["types"] and "DTensor" in results[1]["types"]
    for result in results:
        for name, tensor in expected.items():
            if name != "seen":
                torch.testing.assert_close(result["straight"][name], tensor, rtol=1e-9, atol=1e-12)
                assert torch.equal(result["resumed"][name], result["straight"][name])


def test_a_model_that_is_not_shared_out_is_whole() -> None:
    model = Encoder()
    before = model.words.weight
    with whole(model, keep=False):
        assert model.words.weight is before
    assert not is_sharded(model)
    other = {name: each + 1 for name, each in Encoder().state_dict().items()}
    load_whole(model, other)
    assert torch.equal(model.words.weight, other["words.weight"])
    optimizer = torch.optim.AdamW(model.parameters())
    assert whole_state(optimizer, keep=False) == optimizer.state_dict()


@pytest.mark.parametrize(
    ("fsdp", "config", "expected"),
    [
        (None, {}, None),
        ("", {}, None),
        (False, {}, None),
        (True, {}, Sharding()),
        ("full_shard auto_wrap", {}, Sharding()),
        (["shard_grad_op", "auto_wrap"], {}, Sharding(reshard_after_forward=False)),
        ("full_shard", {"fsdp_version": 2, "fsdp_reshard_after_forward": False}, Sharding(reshard_after_forward=False)),
        ("full_shard", {"transformer_layer_cls_to_wrap": "A, B"}, Sharding(layers=("A", "B"))),
        ("full_shard", {"fsdp_transformer_layer_cls_to_wrap": ["A"]}, Sharding(layers=("A",))),
    ],
)
def test_arguments(fsdp: Anything, config: dict[str, Any], expected: Sharding | None) -> None:
    assert read_sharding(fsdp, config) == expected


@pytest.mark.parametrize(
    ("fsdp", "config", "message"),
    [
        (None, {"version": 2}, "needs fsdp='full_shard'"),
        ("offload full_shard", {}, "fsdp='offload' is not supported"),
        ("no_shard", {}, "data parallelism is what a trainer does without fsdp"),
        ("auto_wrap", {}, "must be one of"),
        ("fully", {}, "must be one of .'full_shard', 'shard_grad_op'."),
        ("full_shard shard_grad_op", {}, "must be one of"),
        ("full_shard", {"min_num_params": 3}, "unknown .'min_num_params'. in fsdp_config; there are .'reshard_after"),
        ("full_shard", {"fsdp_version": 1}, "version must be 2 in fsdp_config, got 1"),
        (
            "full_shard",
            {"reshard_after_forward": "FULL_SHARD"},
            "must be true or false in fsdp_config, got",
        ),
        ("full_shard", {"transformer_layer_cls_to_wrap": ""}, "needs names of layer classes"),
    ],
)
def test_wrong_arguments_are_refused(fsdp: Anything, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_sharding(fsdp, config)


def test_the_launchers_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FSDP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="fsdp_version must be 2, got 1: give --fsdp_version 2"):
        read_sharding(None, {})
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert read_sharding(None, {}) == Sharding()
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "A,B")
    assert read_sharding(None, {}) == Sharding(layers=("A", "B"), reshard_after_forward=False)
    for name, value in (
        ("FSDP_AUTO_WRAP_POLICY", "SIZE_BASED_WRAP"),
        ("FSDP_OFFLOAD_PARAMS", "true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(ValueError, match="is not supported"):
                read_sharding(None, {})


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot share out scalars, and .'scale'. are"):
        shard(Ranking(nn.Identity()), Sharding(), CPU, RANKS)
    with pytest.raises(ValueError, match="has no .'Block'. for fsdp to share out; it has .'Embedding', 'Encoder'"):
        shard(Encoder(), Sharding(layers=("Block",)), CPU, RANKS)
