from __future__ import annotations

from pathlib import Path

import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss
from sparse_encoder.losses.gather import gather_rows

RANKS, ROWS, VOCABULARY = 2, 3, 17
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


def columns() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(RANKS * ROWS, VOCABULARY, generator=generator, dtype=torch.float64) for _ in range(3)]


def work(rank: int, folder: str) -> tuple[Tensor, list[Tensor | None], Tensor]:
    """Compute the loss of one rank's rows; returns it with its gradients."""
    own = [column[rank * ROWS : (rank + 1) * ROWS].clone().requires_grad_() for column in columns()]
    loss = SparseMultipleNegativesRankingLoss(
        nn.Identity(),
        gather_across_devices=True,
        directions=DIRECTIONS,
        hardness_mode="all_negatives",
        hardness_strength=0.5,
    )
    value = loss.compute_loss_from_embeddings(own)
    value.backward()
    with torch.no_grad():
        uneven = [column[: 2 * ROWS] for column in columns()]
        parts = [column[: ROWS + 1] if rank == 0 else column[ROWS + 1 : 2 * ROWS] for column in uneven]
        evaluated = loss.compute_loss_from_embeddings(parts) * len(parts[0])
    return value.detach(), [column.grad for column in own], evaluated


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    results = in_processes(work, ranks=RANKS, folder=tmp_path)
    whole = [column.requires_grad_() for column in columns()]
    loss = SparseMultipleNegativesRankingLoss(
        nn.Identity(), directions=DIRECTIONS, hardness_mode="all_negatives", hardness_strength=0.5
    )
    expected = loss.compute_loss_from_embeddings(whole)
    expected.backward()
    torch.testing.assert_close(torch.stack([value for value, _, _ in results]).mean(), expected, rtol=1e-12, atol=0)
    evaluated = torch.stack([total for _, _, total in results]).sum() / (RANKS * ROWS)  # of batches of two sizes
    torch.testing.assert_close(evaluated, expected, rtol=1e-12, atol=0)
    for index, column in enumerate(whole):
        gathered = torch.cat([gradients[index] for _, gradients, _ in results]) / RANKS  # data parallelism averages
        torch.testing.assert_close(gathered, column.grad, rtol=1e-10, atol=1e-14)


def test_without_a_group_the_rows_are_the_rows() -> None:
    rows = torch.eye(3)
    gathered, first = gather_rows(rows)
    assert gathered is rows
    assert first == 0
