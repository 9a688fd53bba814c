"""A penalty is that of the whole update, however this is cut into micro-batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from distributed_helpers import in_processes
from torch import Tensor, nn

from sparse_encoder.losses import (
    AntiZeroLoss,
    DFFlopsLoss,
    EmbeddingLoss,
    FlopsLoss,
    JointFlopsLoss,
    L1Loss,
    Regularizer,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
)
from sparse_encoder.losses.base import mean_of_rows
from sparse_encoder.losses.global_batch import global_batch

ROWS, HIDDEN, VOCABULARY = 32, 7, 17
Columns = list[dict[str, Tensor]]
Result = tuple[dict[str, Tensor], list[Tensor]]  # terms, and a gradient per parameter


class Encoder(nn.Module):
    """A projection and a rectifier, with a buffer that counts forwards."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.project = nn.Linear(HIDDEN, VOCABULARY, dtype=torch.float64)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        return {"sentence_embedding": self.dropout(self.project(features["hidden"]).relu())}


class Linear(EmbeddingLoss):
    """A loss that is the same for every cut: a mean over rows."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        return sum((column.sum(dim=1).mean() for column in embeddings), torch.zeros((), dtype=torch.float64))

    def get_config_dict(self) -> dict[str, Any]:
        return {}


class Spread(Regularizer):
    """A mean of a function of rows and a function of column means, both in one penalty."""

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        norms = self.mean_over_batch(embeddings.square().sum(dim=1))
        return norms + self.mean_over_batch(embeddings).pow(3).sum()

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def columns(rows: slice = slice(None)) -> Columns:
    """Queries, positives and negatives."""
    generator = torch.Generator().manual_seed(2)
    hidden = [torch.randn(ROWS, HIDDEN, generator=generator, dtype=torch.float64) for _ in range(3)]
    return [{"hidden": column[rows]} for column in hidden]


def splade(model: nn.Module, base: EmbeddingLoss | None = None, **options: float) -> SpladeLoss:
    options = {"document_regularizer_threshold": 6, **options}
    return SpladeLoss(model, base or Linear(model), 0.3, 0.5, **cast(dict[str, Any], options))


def shared(model: nn.Module) -> SpladeLoss:
    regularizer = FlopsLoss(model)
    return SpladeLoss(model, Linear(model), 0.3, 0.5, document_regularizer=regularizer, query_regularizer=regularizer)


def spread(model: nn.Module) -> SpladeLoss:
    return SpladeLoss(model, Linear(model), 0.3, 0.5, document_regularizer=Spread(model))


OBJECTIVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "splade": splade,
    "shared": shared,
    "spread": spread,
    "alone": FlopsLoss,
    "l1": L1Loss,
    "anti-zero": AntiZeroLoss,
    "document frequency": partial(DFFlopsLoss, alpha=0.6, beta=2.0, num_terms=VOCABULARY),
    "joint": JointFlopsLoss,
}


def cuts(sizes: Sequence[int], first: int = 0) -> list[Columns]:
    """Return consecutive micro-batches of these sizes."""
    ends = [first + sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [columns(slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


def terms_of(value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return value if isinstance(value, dict) else {"loss": value}


def update(objective: nn.Module, batches: list[Columns], *, in_step: bool = True, seed: int = 0) -> Result:
    """Compute terms and gradients as a trainer does, each batch with its own dropout."""

    def compute(index: int) -> dict[str, Tensor]:
        torch.manual_seed(100 * seed + index)
        return terms_of(objective(batches[index]))

    means: dict[str, Tensor] = {}
    with global_batch(objective, [partial(compute, index) for index in range(len(batches))], in_step=in_step):
        for index in range(len(batches)):
            terms = compute(index)
            (sum(terms.values(), torch.zeros(())) / len(batches)).backward()
            for name, term in terms.items():
                means[name] = means.get(name, torch.zeros(())) + term.detach() / len(batches)
    return means, [cast(Tensor, each.grad) for each in objective.parameters()]


def assert_same(result: Result, expected: Result) -> None:
    torch.testing.assert_close(result[0], expected[0], rtol=1e-9, atol=0)
    for gradient, wanted in zip(result[1], expected[1], strict=True):
        assert (gradient - wanted).norm() <= 1e-9 * wanted.norm()
        assert wanted.norm() > 0


def average(results: list[Result]) -> Result:
    """Average what the processes have, as data parallelism does with gradients."""
    terms = {name: torch.stack([each[0][name] for each in results]).mean() for name in results[0][0]}
    return terms, [torch.stack(gradients).mean(dim=0) for gradients in zip(*(each[1] for each in results), strict=True)]


@pytest.mark.parametrize("sizes", [[16, 16], [8, 8, 8, 8]])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_micro_batches_give_the_terms_and_gradient_of_the_whole_batch(name: str, sizes: list[int]) -> None:
    build = OBJECTIVES[name]
    assert_same(update(build(Encoder()), cuts(sizes)), update(build(Encoder()), cuts([ROWS])))


@pytest.mark.parametrize("build", [FlopsLoss, partial(FlopsLoss, threshold=9), Spread])
def test_micro_batches_of_several_sizes_count_by_their_rows(build: Callable[[nn.Module], nn.Module]) -> None:
    assert_same(update(build(Encoder()), cuts([3, 20, 9])), update(build(Encoder()), cuts([ROWS])))


def test_without_the_context_micro_batches_differ() -> None:
    parts = [FlopsLoss(Encoder())(batch) for batch in cuts([16, 16])]
    whole = FlopsLoss(Encoder())(columns())
    assert torch.stack(parts).mean().item() > whole.item() * (1 + 1e-6)


def test_the_gradient_is_that_of_autograd_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0], [3.0, 2.0], [2.0, 4.0]], requires_grad=True)
    model = nn.Identity()
    loss = FlopsLoss(model)
    parts = [weights[:1], weights[1:]]
    with global_batch(loss, [partial(loss.compute_loss_from_embeddings, part) for part in parts]):
        values = [loss.compute_loss_from_embeddings(part) for part in parts]
        torch.stack(values).mean().backward()
    assert [value.item() for value in values] == [8.0, 8.0]  # means 2 and 2
    expected = torch.tensor([[4 / 3, 0.0], [4 / 3, 4 / 3], [4 / 3, 4 / 3]])  # 2 * mean / 3 rows; |0| has no slope
    torch.testing.assert_close(weights.grad, expected)


def test_a_loss_per_dataset_pools_the_micro_batches_of_that_dataset() -> None:
    """Of 4 micro-batches the first loss has 3: three quarters of the penalty on their 24 rows."""
    batches, names = cuts([8, 8, 8, 8]), ["a", "b", "a", "a"]
    model = Encoder()
    losses = nn.ModuleDict({"a": splade(model), "b": Linear(model)})

    def compute(index: int) -> Tensor:
        return sum(terms_of(losses[names[index]](batches[index])).values(), torch.zeros(()))

    with global_batch(losses, [partial(compute, index) for index in range(4)]):
        for index in range(4):
            (compute(index) / 4).backward()
    of_a = [torch.cat([batches[i][column]["hidden"] for i in (0, 2, 3)]) for column in range(3)]
    alone = Encoder()
    first, second = splade(alone), Linear(alone)
    total = sum(first([{"hidden": hidden} for hidden in of_a]).values(), torch.zeros(()))
    (0.75 * total + 0.25 * second(batches[1])).backward()
    assert_same(({}, [p.grad for p in model.parameters()]), ({}, [p.grad for p in alone.parameters()]))  # type: ignore[list-item]


def test_both_passes_draw_the_same_and_buffers_count_one() -> None:
    model = Encoder(dropout=0.4)
    result = update(splade(model), cuts([16, 16]))
    assert int(model.calls) == 2 * 3  # two micro-batches of three columns, once
    kept = []
    for index, batch in enumerate(cuts([16, 16])):
        torch.manual_seed(index)
        kept.append([model(column)["sentence_embedding"] for column in batch])
    joined = [torch.cat(parts) for parts in zip(*kept, strict=True)]
    expected = splade(model).compute_loss_from_embeddings(joined)
    torch.testing.assert_close(result[0], {name: value.detach() for name, value in expected.items()}, rtol=1e-9, atol=0)


def test_one_micro_batch_is_computed_once() -> None:
    model = Encoder()
    update(splade(model), cuts([ROWS]))
    assert int(model.calls) == 3


def test_without_regularizers_nothing_is_gone_through_twice() -> None:
    model = Encoder()
    update(Linear(model), cuts([16, 16]))
    assert int(model.calls) == 2 * 3


@pytest.mark.parametrize("at", [1, 3])  # in the first pass, in the second
def test_an_error_leaves_nothing_behind(at: int) -> None:
    model = Encoder()
    loss = splade(model)
    calls = 0

    def compute() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            raise ArithmeticError("stop")
        return cast(Tensor, loss(columns())["base_loss"])

    with pytest.raises(ArithmeticError, match="stop"), global_batch(loss, [compute, compute]):
        assert loss.document_regularizer.mean_over_batch is not mean_of_rows
        compute()
    assert loss.document_regularizer.mean_over_batch is mean_of_rows
    assert loss.query_regularizer.mean_over_batch is mean_of_rows
    assert int(model.calls) == 0


@pytest.mark.parametrize(
    ("times", "message"), [(1, "2 times in the first pass .* 1 times in the second"), (3, "more than 2")]
)
def test_a_second_pass_that_differs_is_an_error(times: int, message: str) -> None:
    loss = FlopsLoss(Encoder())
    with pytest.raises(RuntimeError, match=message), global_batch(loss, [lambda: loss(columns())] * 2):
        for _ in range(times):
            loss(columns())


def test_rows_of_several_widths_are_refused() -> None:
    loss = FlopsLoss(nn.Identity())
    widths = [partial(loss.compute_loss_from_embeddings, torch.ones(2, width)) for width in (3, 4)]
    with pytest.raises(ValueError, match=r"rows of one width, got \(3,\) and \(4,\)"), global_batch(loss, widths):
        pytest.fail("the context must not be entered")


def work(rank: int, folder: str) -> dict[str, Result]:
    """Compute the gradients of this rank's rows for every case."""
    ranks = dist.get_world_size()
    own = ROWS // ranks
    results = {}
    for name, build in OBJECTIVES.items():
        results[f"{name} 1"] = update(build(Encoder()), cuts([own], rank * own), seed=rank)
        results[f"{name} 2"] = update(build(Encoder()), cuts([own // 2] * 2, rank * own), seed=rank)
    uneven = [3, 29] if ranks == 2 else [3, 14, 5, 10]
    batches = cuts([uneven[rank]], sum(uneven[:rank]))
    results["uneven"] = update(FlopsLoss(Encoder()), batches)
    results["uneven twice"] = update(FlopsLoss(Encoder()), cuts([1, uneven[rank] - 1], sum(uneven[:rank])))
    model = Encoder()
    losses = {"a": FlopsLoss(model), "b": Linear(model)}
    chosen = ChosenLoss(losses, "b" if rank == 1 else "a")
    results["dict"] = update(chosen, cuts([own], rank * own), in_step=False)
    model = Encoder()
    ranking = SparseMultipleNegativesRankingLoss(model, scale=0.01, gather_across_devices=True)
    results["gathered"] = update(splade(model, ranking), cuts([own], rank * own))
    return results


class ChosenLoss(nn.Module):
    """Losses by dataset, in a batch of one of them."""

    def __init__(self, losses: dict[str, Any], name: str) -> None:
        super().__init__()
        self.losses, self.name = nn.ModuleDict(losses), name

    def forward(self, batch: Columns) -> dict[str, Tensor]:
        value = self.losses[self.name](batch)
        return {"a": torch.zeros(()), "b": torch.zeros(()), self.name: value}


def check_different_losses(by_rank: list[dict[str, Result]]) -> None:
    """The first process has the one loss, the second the other: they wait for each other, and pool each loss alone."""
    terms, gradients = average([each["dict"] for each in by_rank])
    half = ROWS // 2
    model = Encoder()
    penalty = FlopsLoss(model)(columns(slice(0, half))) / 2
    (penalty + Linear(model)(columns(slice(half, ROWS))) / 2).backward()
    torch.testing.assert_close(terms["a"].double(), penalty.detach(), rtol=1e-9, atol=0)
    assert_same(({}, gradients), ({}, [p.grad for p in model.parameters()]))  # type: ignore[list-item]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_give_the_terms_and_gradient_of_the_whole_batch(tmp_path: Path, ranks: int) -> None:
    by_rank = in_processes(work, ranks=ranks, folder=tmp_path)
    results = {name: average([each[name] for each in by_rank]) for name in by_rank[0]}
    for name, build in OBJECTIVES.items():
        expected = update(build(Encoder()), cuts([ROWS]))
        assert_same(results[f"{name} 1"], expected)
        assert_same(results[f"{name} 2"], expected)
    expected = update(FlopsLoss(Encoder()), cuts([ROWS]))
    assert_same(results["uneven"], expected)
    assert_same(results["uneven twice"], expected)
    model = Encoder()
    ranking = SparseMultipleNegativesRankingLoss(model, scale=0.01)
    assert_same(results["gathered"], update(splade(model, ranking), cuts([ROWS])))
    if ranks == 2:
        check_different_losses(by_rank)
