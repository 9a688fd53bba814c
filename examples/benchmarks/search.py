"""Search: SparseIndex against scipy's sparse product with top-k, one query at a time and all at once.

The corpus is synthetic: term frequencies fall off as in text, documents have about 156 terms and queries about 39 of
30,522, and a query meets about 2.5 postings per document, as with a distilled SPLADE model. Both sides
get the matrix turned around beforehand, find the same ten documents, and use one thread; ours is also timed with all.

Run: ``python examples/benchmarks/search.py`` (about 3 minutes on 2 cores; ``--documents 1000000`` needs 8 GB).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

VOCABULARY, QUERIES, TOP_K = 30_522, 200, 10
SCIPY = "scipy"


def random_rows(num_rows: int, draws: int, seed: int) -> sparse.csr_array:
    """Make rows whose terms are drawn by rank, with a head flattened as models flatten it."""
    random = np.random.default_rng(seed)
    share = 1 / (np.arange(VOCABULARY) + 60.0)
    limits = np.cumsum(share) / share.sum()
    blocks = []
    for start in range(0, num_rows, 50_000):
        size = min(50_000, num_rows - start)
        terms = np.searchsorted(limits, random.random((size, draws), dtype=np.float32)).clip(max=VOCABULARY - 1)
        terms.sort(axis=1)
        keep = np.diff(terms, axis=1, prepend=-1) > 0
        starts = np.concatenate(([0], np.cumsum(keep.sum(axis=1))))
        weights = random.lognormal(-0.5, 0.7, int(starts[-1])).astype(np.float32)
        blocks.append(sparse.csr_array((weights, terms[keep].astype(np.int32), starts), (size, VOCABULARY)))
    return sparse.csr_array(sparse.vstack(blocks, format="csr"))


def best(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the best scores of one query."""
    return np.sort(scores[np.argpartition(scores, len(scores) - TOP_K)[-TOP_K:]])[::-1]


def timed(action: Callable[[], list[NDArray[np.float32]]]) -> tuple[float, float]:
    """Return milliseconds per query, after a warm-up, and the sum of the scores found."""
    action()
    started = time.perf_counter()
    found = action()
    return (time.perf_counter() - started) * 1000 / QUERIES, float(np.concatenate(found).sum(dtype=np.float64))


def measure_ours(documents: sparse.csr_array, queries: sparse.csr_array) -> dict[str, float]:
    """Build an index and search it."""
    from sparse_encoder import SparseEmbeddings, SparseIndex

    rows, asked = SparseEmbeddings.from_scipy(documents), SparseEmbeddings.from_scipy(queries)
    started = time.perf_counter()
    index = SparseIndex.build(rows)
    build = time.perf_counter() - started
    single, total = timed(lambda: [index.search_arrays(row, TOP_K, num_threads=1).scores for row in asked])
    batch, total_of_batch = timed(lambda: [index.search_arrays(asked, TOP_K, num_threads=1).scores])
    threads, _ = timed(lambda: [index.search_arrays(asked, TOP_K).scores])
    assert total == total_of_batch
    return {"build_s": build, "single_ms": single, "batch_ms": batch, "all_threads_ms": threads, "total": total}


def measure_scipy(documents: sparse.csr_array, queries: sparse.csr_array) -> dict[str, float]:
    """Multiply and take the best."""
    started = time.perf_counter()
    turned = documents.T.tocsr()
    build = time.perf_counter() - started
    rows = [queries[[row]] for row in range(QUERIES)]
    single, total = timed(lambda: [best((row @ turned).toarray()[0]) for row in rows])
    batches = [queries[start : start + 50] for start in range(0, QUERIES, 50)]
    batch, _ = timed(lambda: [best(scores) for block in batches for scores in (block @ turned).toarray()])
    return {"build_s": build, "single_ms": single, "batch_ms": batch, "all_threads_ms": batch, "total": total}


def run(num_documents: int, rounds: int) -> dict[str, object]:
    """Let both search one corpus in alternating processes and compare medians."""
    with tempfile.TemporaryDirectory() as scratch:
        documents, queries = random_rows(num_documents, 161, 0), random_rows(QUERIES, 40, 1)
        sparse.save_npz(Path(scratch) / "documents.npz", sparse.csr_matrix(documents), compressed=False)
        sparse.save_npz(Path(scratch) / "queries.npz", sparse.csr_matrix(queries), compressed=False)
        rows = harness.alternate(__file__, [scratch], rounds=rounds, libraries=(harness.OURS, SCIPY))
    met = float(np.bincount(documents.indices, minlength=VOCABULARY)[queries.indices].sum())
    assert np.isclose(rows[harness.OURS]["total"], rows[SCIPY]["total"], rtol=1e-6)
    per_pair = met / QUERIES / num_documents
    print(
        f"{num_documents} documents x {documents.nnz / num_documents:.0f} terms, {QUERIES} queries x "
        f"{queries.nnz / QUERIES:.0f}, {per_pair:.2f} postings per document and query, top {TOP_K}"
    )
    for key in ("build_s", "single_ms", "batch_ms", "all_threads_ms"):
        ours, theirs = rows[harness.OURS][key], rows[SCIPY][key]
        print(f"  {key:<16} ours {ours:8.3f}   scipy {theirs:8.3f}   faster {theirs / ours:6.2f}")
    return {"documents": num_documents, "postings_per_pair": per_pair, "medians": rows}


def main() -> None:
    """Be the worker or the run, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=(harness.OURS, SCIPY), help=argparse.SUPPRESS)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="processes per side")
    parser.add_argument("--json", type=Path, help="write the report here")
    options, rest = parser.parse_known_args()
    if options.worker:
        matrices = [
            sparse.csr_array(sparse.load_npz(Path(rest[0]) / f"{name}.npz")) for name in ("documents", "queries")
        ]
        measure = measure_ours if options.worker == harness.OURS else measure_scipy
        print(json.dumps(measure(*matrices)))
        return
    report = {"machine": harness.machine(), **run(options.documents, options.rounds)}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
