"""CoSENT over all pairs of a batch: ours, sorted, against the matrix of all pairs that its definition asks for.

The matrix stands in the place of the peer, which sorts too. Both get the same scores and labels, 4,096 of them unless
told otherwise, and must find the same loss and gradient. One process each; time is the median of forward and backward
passes, memory what the process grew by.

Run: ``python examples/benchmarks/cosent.py`` (a minute).
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import harness

PAIRS, PASSES = 4096, 9


def matrix_of_pairs(scores: Any, labels: Any) -> Any:  # noqa: ANN401  (tensors; torch is imported in the worker)
    """Compute the loss by its definition."""
    import torch

    differences = scores.unsqueeze(0) - scores.unsqueeze(1)  # (i, j): s_j - s_i
    ordered = labels.unsqueeze(1) > labels.unsqueeze(0)
    wrong = differences.masked_fill(~ordered, -torch.inf).flatten()
    return torch.cat([scores.new_zeros(1), wrong]).logsumexp(dim=0)


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Measure passes over one batch."""
    import torch

    from sparse_encoder.losses.cosent import ordered_by_labels

    compute = ordered_by_labels if library == harness.OURS else matrix_of_pairs
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(int(arguments[0]), generator=generator) * 20).requires_grad_()
    labels = torch.randint(6, scores.shape, generator=generator).float()
    before = harness.peak_bytes()
    seconds = []
    for _ in range(int(arguments[1])):
        scores.grad = None
        started = time.perf_counter()
        loss = compute(scores, labels)
        loss.backward()
        seconds.append(time.perf_counter() - started)
    assert scores.grad is not None
    return {
        "pass_s": statistics.median(seconds),
        "grown_bytes": harness.peak_bytes() - before,
        "loss": loss.item(),
        "gradient": scores.grad.square().sum().sqrt().item(),
    }


def run(rounds: int) -> list[Any]:
    """Measure a batch of many pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options, _ = parser.parse_known_args()
    rows = harness.alternate(__file__, [str(options.pairs), str(PASSES)], rounds=rounds)
    ours, matrix = rows[harness.OURS], rows[harness.PEER]
    for key in ("loss", "gradient"):
        if abs(ours[key] - matrix[key]) > 1e-4 * abs(matrix[key]):
            raise RuntimeError(f"the results differ: {rows}")
    targets = {"pass_s": ("faster", 30.0), "grown_bytes": ("smaller", 0.1)}
    return [harness.show(f"CoSENT, {options.pairs} pairs; in the peer's place the matrix of all pairs", rows, targets)]


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
