"""Batches without duplicates: ours against sentence-transformers, both as it is and with its hashes made beforehand.

Three text columns; three in ten texts are from a pool of questions, so that rows have to wait for a later batch.
Measured are the first epoch, with hashing, and the next; both libraries must find the same batches. One process each.
Then every sampler of ours goes through the rows, in processor time: a million rows are to take 3 s on one core.

Run: ``python examples/benchmarks/samplers.py --rows 1000000`` (an hour; ``--rounds 1`` for a look; ``--passes`` leaves
the other library out).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import random
import time
from functools import partial
from typing import Any

import harness

BATCH = 32
SEED = 42
SECONDS_PER_MILLION = 3.0
"""Of one core, for a pass over three text columns."""
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
    if arguments[0] == "passes":
        return measure_passes(int(arguments[1]))
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


def measure_passes(count: int) -> dict[str, float]:
    """Go through rows with every sampler; returns the seconds of one core, construction included."""
    import torch

    from sparse_encoder import samplers

    torch.set_num_threads(1)
    data = make_rows(count, 2000)
    labelled = data.add_column("label", [row % (count // 100) for row in range(count)])
    lengths = [3 + row * 7919 % 250 for row in range(count)]
    parts = torch.utils.data.ConcatDataset([range(count * 3 // 4), range(count - count * 3 // 4)])

    def several(kind: Any) -> Any:  # noqa: ANN401  (a sampler class, perhaps with settings)
        own = [samplers.DefaultBatchSampler(each, BATCH, False) for each in parts.datasets]
        return kind(parts, own, None, SEED)

    make = {
        "no_duplicates": lambda: samplers.NoDuplicatesBatchSampler(data, BATCH, False, ["label"], None, SEED),
        "batch_sampler": lambda: samplers.DefaultBatchSampler(data, BATCH, False, None, None, SEED),
        "group_by_label": lambda: samplers.GroupByLabelBatchSampler(labelled, BATCH, False, ["label"], None, SEED),
        "length_buckets": lambda: samplers.LengthBucketBatchSampler(
            data, BATCH, False, None, None, SEED, max_tokens=4096, lengths=lengths
        ),
        "round_robin": lambda: several(samplers.RoundRobinBatchSampler),
        "proportional": lambda: several(samplers.ProportionalBatchSampler),
        "temperature": lambda: several(partial(samplers.TemperatureBatchSampler, temperature=3.0)),
        "capped": lambda: several(partial(samplers.CappedProportionalBatchSampler, max_rows_per_dataset=count // 2)),
    }
    measured = {}
    for name, build in make.items():
        started = time.process_time()
        sampler = build()
        for _ in sampler:
            pass
        measured[name] = time.process_time() - started
        if name == "no_duplicates":
            sampler.set_epoch(1)
            started = time.process_time()
            for _ in sampler:
                pass
            measured["no_duplicates, next epoch"] = time.process_time() - started
    return measured


def show_passes(count: int, rounds: int) -> dict[str, Any]:
    """Print the seconds of every sampler beside the most that it may take."""
    medians = harness.alternate(__file__, ["passes", str(count)], rounds=rounds, libraries=[harness.OURS])[harness.OURS]
    most = SECONDS_PER_MILLION * count / 1_000_000
    print(f"\na pass over {count} rows of three text columns, seconds of one core (at most {most:g})")
    judged = {}
    for name, seconds in medians.items():
        judged[name] = {"kind": "seconds", "ratio": seconds, "target": most, "met": seconds <= most}
        print(f"  {name:<26} {seconds:8.3f}  ({'met' if seconds <= most else 'MISSED'})")
    return {"title": f"passes over {count} rows", "medians": {harness.OURS: medians}, "ratios": judged}


def run(rounds: int) -> list[Any]:
    """Measure with many questions, where few rows have to wait, and with few questions, where most have to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pools", type=int, nargs="+", default=[2000, 100])
    parser.add_argument("--passes", action="store_true", help="only our samplers, against the clock")
    options, _ = parser.parse_known_args()
    reports = [show_passes(options.rows, rounds)]
    for pool in [] if options.passes else options.pools:
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
