"""Encoding: ours against sentence-transformers on docstrings of up to 256 tokens, in float32 and bfloat16.

Run: ``python examples/benchmarks/encode.py`` (about 15 minutes on 2 cores; ``--rounds 1`` for a look).
"""

from __future__ import annotations

import importlib
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import materials

TEXTS = 256


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Encode the texts once to warm up on a few and once for the clock."""
    import torch

    model_folder, texts_file, dtype = arguments
    peer = importlib.import_module(library)
    model = peer.SparseEncoder(model_folder, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    model.max_seq_length = materials.TOKENS
    documents = [document for _, document in materials.read_texts(Path(texts_file))]
    documents = random.Random(0).sample(documents, TEXTS)
    model.encode_document(documents[:32])
    started = time.perf_counter()
    embeddings = model.encode_document(documents, show_progress_bar=False)
    seconds = time.perf_counter() - started
    assert tuple(embeddings.shape) == (TEXTS, materials.VOCABULARY)
    active_terms = model.sparsity(embeddings)["active_dims"]
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes(), "active_terms": active_terms}


def run(rounds: int) -> list[Any]:
    """Measure both precisions."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = materials.write_texts(Path(scratch))
        model = materials.write_model(Path(scratch), [text for pair in materials.read_texts(texts) for text in pair])
        reports = []
        for dtype, target in (("float32", 1.25), ("bfloat16", 1.6)):
            rows = harness.alternate(__file__, [str(model), str(texts), dtype], rounds=rounds)
            targets = {"seconds": ("faster", target), "peak_bytes": ("smaller", 0.6)}
            reports.append(harness.show(f"encode {TEXTS} documents, {dtype}", rows, targets))
        return reports


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
