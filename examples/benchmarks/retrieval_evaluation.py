"""Evaluation of a search: ours against sentence-transformers' SparseInformationRetrievalEvaluator.

The corpus is synthetic, as in ``search.py``: documents have about 200 of 30,522 terms and queries 30, half of them
taken from a relevant document. Nothing is encoded: each library is handed the rows in the form its models return.
Measured are the time of an evaluation and the memory it adds to that of the rows; all metrics must be equal.

Run, on Linux: ``python examples/benchmarks/retrieval_evaluation.py`` (minutes;
``--documents 5000 --queries 100 --rounds 1`` for a look).
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
from scipy import sparse
from search import random_rows

CHUNK = 50_000
ROOMS = {harness.OURS: "sparse_encoder.evaluation", harness.PEER: "sentence_transformers.sparse_encoder.evaluation"}


class Rows:
    """A model that returns given rows; texts are their numbers.

    Args:
        library: Whose embeddings to return.
        queries: (N, V).
        documents: (M, V).
    """

    def __init__(self, library: str, queries: sparse.csr_array, documents: sparse.csr_array) -> None:
        self.similarity_fn_name = "dot"
        self.model_card_data = self
        package = importlib.import_module(library)
        self.similarity = importlib.import_module(f"{library}.util").dot_score
        size = documents.nnz + queries.nnz
        self.num_bytes = size * 8 if library == harness.OURS else size * 20  # of each entry
        if library == harness.OURS:
            self._queries, rows = (package.SparseEmbeddings.from_scipy(each) for each in (queries, documents))
            self._chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
            return
        self.sparsity = package.SparseEncoder.sparsity
        self._queries = as_torch(queries)
        self._chunks = [as_torch(documents[start : start + CHUNK]) for start in range(0, documents.shape[0], CHUNK)]

    def encode_query(self, texts: Sequence[str], **options: object) -> Any:  # noqa: ANN401  (as the library has it)
        """Return the rows of all queries."""
        return self._queries

    def encode_document(self, texts: Sequence[str], **options: object) -> Any:  # noqa: ANN401
        """Return the rows of a chunk of the documents."""
        return self._chunks[int(texts[0]) // CHUNK]

    def set_evaluation_metrics(self, *arguments: object, **options: object) -> None:
        """Be the model's card."""


def as_torch(rows: sparse.csr_array) -> Any:  # noqa: ANN401  (a torch tensor)
    """Return rows as the peer's models do, as a coalesced COO tensor."""
    import torch

    found = rows.tocoo()
    indices = torch.from_numpy(np.stack(found.coords).astype(np.int64))
    return torch.sparse_coo_tensor(indices, torch.from_numpy(found.data), rows.shape, is_coalesced=True)


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Evaluate once."""
    folder = Path(arguments[0])
    documents, queries = (
        sparse.csr_array(sparse.load_npz(folder / f"{name}.npz")) for name in ("documents", "queries")
    )
    relevant = np.load(folder / "relevant.npy")
    model = Rows(library, queries, documents)
    evaluator = importlib.import_module(ROOMS[library]).SparseInformationRetrievalEvaluator(
        queries={f"q{number}": str(number) for number in range(queries.shape[0])},
        corpus={f"d{number:07}": str(number) for number in range(documents.shape[0])},
        relevant_docs={f"q{number}": {f"d{place:07}"} for number, place in enumerate(relevant)},
        corpus_chunk_size=CHUNK,
    )
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what was before
    before = resident("VmRSS")
    started = time.perf_counter()
    metrics = evaluator(model)
    seconds = time.perf_counter() - started
    kept = ("dot_ndcg@10", "dot_map@100", "dot_recall@10", "corpus_active_dims", "query_active_dims")
    measured = {"seconds": seconds, "added_bytes": resident("VmHWM") - before, "rows_bytes": model.num_bytes}
    return measured | {key: metrics[key] for key in kept}


def resident(name: str) -> int:
    """Return the bytes that Linux counts for this process: ``VmRSS`` those now, ``VmHWM`` their peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def write_collection(folder: Path, num_documents: int, num_queries: int) -> None:
    """Write rows of documents and queries, and the relevant document of each query."""
    documents, others = random_rows(num_documents, 208, 0), random_rows(num_queries, 15, 1)
    random = np.random.default_rng(2)
    relevant = random.integers(0, num_documents, num_queries)
    asked = documents[relevant].tocoo()
    kept = random.random(asked.nnz) < 15 / 200
    entries = (asked.data[kept], (asked.coords[0][kept], asked.coords[1][kept]))
    queries = sparse.csr_array(sparse.coo_array(entries, shape=asked.shape) + others)
    for name, rows in (("documents", documents), ("queries", queries)):
        sparse.save_npz(folder / f"{name}.npz", sparse.csr_matrix(rows), compressed=False)
    np.save(folder / "relevant.npy", relevant)


def run(rounds: int) -> list[Any]:
    """Let both evaluate one collection."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_collection(Path(scratch), options.documents, options.queries)
        rows = harness.alternate(__file__, [scratch], rounds=rounds)
    ours, peer = rows[harness.OURS], rows[harness.PEER]
    measured = ("seconds", "added_bytes", "rows_bytes")
    if any(not np.isclose(ours[key], peer[key], rtol=1e-5) for key in ours.keys() - set(measured)):
        raise RuntimeError(f"the metrics differ: {rows}")
    targets = {"seconds": ("faster", 10.0), "added_bytes": ("smaller", 0.1)}
    return [harness.show(f"{options.documents} documents, {options.queries} queries", rows, targets)]


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
