"""Batches without duplicates: ours against sentence-transformers, both as it is and with its hashes made beforehand.

Three text columns; three in ten texts are from a pool of questions, so that rows have to wait for a later batch.
Measured are the first epoch, with hashing, and the next; both libraries must find the same batches. One process each.

Run: ``python examples/benchmarks/samplers.py`` (minutes; ``--rounds 1`` for a look).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import random
import time
from typing import Any

import harness

BATCH = 32
SEED = 42
SAMPLERS = {harness.OURS: "sparse_encoder.samplers", harness.PEER: "sentence_transformers.base.sampler"}


def make_rows(count: int, pool: int) -> Any:  # noqa: ANN401  (a datasets.Dataset)
    """Make rows three in ten of whose texts are among a pool of texts."""
    import datasets

    datasets.disable_progress_bars()
    draw = random.Random(SEED)

    def text(row: int) -> str:
        if draw.random() < 0.3:
            return f"question {draw.randrange(pool)}, which is asked many times and as long as this"
        return f"text {row} {draw.random()}, which occurs once and is as long as this"

    columns = ("anchor", "positive", "negative")
    return datasets.Dataset.from_dict({name: [text(row) for row in range(count)] for name in columns})


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Go through the first epoch, with all that has to be done before, and through the next."""
    count, pool, hashed = int(arguments[0]), int(arguments[1]), arguments[2] == "hashed"
    data = make_rows(count, pool)
    import torch

    room = importlib.import_module(SAMPLERS[library])
    options = {"precompute_hashes": hashed, "precompute_num_proc": 1}
    started = time.perf_counter()
    sampler = room.NoDuplicatesBatchSampler(data, BATCH, False, ["label"], torch.Generator(), SEED, **options)
    batches = list(sampler)
    first = time.perf_counter() - started
    sampler.set_epoch(1)
    started = time.perf_counter()
    batches += list(sampler)
    following = time.perf_counter() - started
    return {
        "first_s": first,
        "next_s": following,
        "peak_bytes": harness.peak_bytes(),
        "batches": len(batches),
        "digest": int(hashlib.sha256(json.dumps(batches).encode()).hexdigest()[:12], 16),
    }


def run(rounds: int) -> list[Any]:
    """Measure with many questions, where few rows have to wait, and with few questions, where most have to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pools", type=int, nargs="+", default=[2000, 100])
    options, _ = parser.parse_known_args()
    reports = []
    for pool in options.pools:
        for kind in ("hashed", "plain"):
            rows = harness.alternate(__file__, [str(options.rows), str(pool), kind], rounds=rounds)
            if rows[harness.OURS]["digest"] != rows[harness.PEER]["digest"]:
                raise RuntimeError(f"the batches differ: {rows}")
            targets = {"first_s": ("faster", 1.5), "next_s": ("faster", 2.0), "peak_bytes": ("smaller", 1.0)}
            title = f"no duplicates, {options.rows} rows, {pool} questions, peer {kind}"
            reports.append(harness.show(title, rows, targets))
    return reports


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
