"""Encoding through ONNX: our graphs in float32 and int8 against our torch model and that of sentence-transformers.

Also said: how far the vectors of the graphs are from those of torch, and how much smaller than the logits the best
terms of a text are.

Run: ``python examples/benchmarks/encode_onnx.py --rounds 3`` (about 5 minutes on 2 cores). Needs
``pip install 'sparse-encoder[onnx]'``.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import materials
import numpy as np

TEXTS, TOP_K = 96, 256
FLOAT, INT8 = "onnx", "onnx_int8"
VARIANTS = (harness.OURS, FLOAT, INT8, harness.PEER)
TARGETS = {FLOAT: 1.0, INT8: 1.5}
"""How many times as fast as our torch model a graph has to be."""
GRAPHS = {FLOAT: "model.onnx", INT8: "onnx_int8.onnx"}


def write_graphs(folder: Path) -> None:
    """Put a graph in float32 and one in int8 beside a model."""
    from sparse_encoder import SparseEncoder
    from sparse_encoder.serving import quantize_onnx

    SparseEncoder(str(folder), device="cpu").export_onnx(folder)
    report = quantize_onnx(folder)
    Path(folder / report.file_name).rename(folder / "onnx" / f"{INT8}.onnx")


def open_model(variant: str, folder: str) -> Any:  # noqa: ANN401  (an encoder of either library)
    """Open the model as a variant says."""
    if variant == harness.PEER:
        from sentence_transformers import SparseEncoder as Peer

        return Peer(folder, device="cpu")
    from sparse_encoder import SparseEncoder

    if variant == harness.OURS:
        return SparseEncoder(folder, device="cpu")
    return SparseEncoder(folder, backend="onnx", model_kwargs={"file_name": f"onnx/{GRAPHS[variant]}"})


def worker(variant: str, arguments: list[str]) -> dict[str, float]:
    """Encode a few texts to warm up, then all for the clock, and keep the vectors."""
    folder, texts_file, output = arguments
    model = open_model(variant, folder)
    model.max_seq_length = materials.TOKENS
    documents = [document for _, document in materials.read_texts(Path(texts_file))]
    documents = random.Random(0).sample(documents, TEXTS)
    model.encode_document(documents[:8])
    started = time.perf_counter()
    embeddings = model.encode_document(documents, show_progress_bar=False)
    seconds = time.perf_counter() - started
    is_peer = variant == harness.PEER
    np.save(
        Path(output) / f"{variant}.npy", embeddings.to_dense().numpy() if is_peer else embeddings.to_scipy().todense()
    )
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes(), "imports_torch": float("torch" in sys.modules)}


def compare(found: Any, expected: Any, *, terms: int = 64) -> dict[str, float]:  # noqa: ANN401  (arrays)
    """Hold vectors against those of torch, (N, V) each: cosine, and the share of the best terms that is kept."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    kept = [
        len(set(ours) & set(theirs)) / terms
        for ours, theirs in zip(
            np.argsort(-found, axis=1)[:, :terms], np.argsort(-expected, axis=1)[:, :terms], strict=True
        )
    ]
    return {
        "largest_difference": float(np.abs(found - expected).max()),
        "cosine": float(((found * expected).sum(axis=1) / lengths).min()),
        "best_terms_kept": float(np.mean(kept)),
    }


def output_bytes(folder: Path, top_k: int) -> tuple[int, int]:
    """Return the bytes that a graph gives out for 8 texts of full length, and those of their logits."""
    import onnxruntime

    from sparse_encoder import SparseEncoder

    SparseEncoder(str(folder), device="cpu").export_onnx(folder / "small", top_k=top_k)
    session = onnxruntime.InferenceSession(folder / "small" / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(5, materials.VOCABULARY, (8, materials.TOKENS))
    given = {each.name: np.zeros_like(ids) for each in session.get_inputs()}
    given |= {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return sum(each.nbytes for each in session.run(None, given)), 4 * ids.size * materials.VOCABULARY


def run(rounds: int) -> list[Any]:
    """Measure every variant in turn, and hold the graphs against our torch model."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = materials.write_texts(Path(scratch))
        model = materials.write_model(Path(scratch), [text for pair in materials.read_texts(texts) for text in pair])
        write_graphs(model)
        rows = harness.alternate(__file__, [str(model), str(texts), scratch], rounds=rounds, libraries=VARIANTS)
        vectors = {variant: np.load(Path(scratch) / f"{variant}.npy") for variant in VARIANTS}
        reports = []
        for variant, target in TARGETS.items():
            judged = {harness.OURS: rows[variant], harness.PEER: rows[harness.OURS]}
            title = f"encode {TEXTS} documents with {variant}; in the peer's place our torch model"
            targets = {"seconds": ("faster", target), "peak_bytes": ("smaller", 1.0)}
            reports.append(harness.show(title, judged, targets))
            faster = rows[harness.PEER]["seconds"] / rows[variant]["seconds"]
            reports[-1]["quality"] = quality = compare(vectors[variant], vectors[harness.OURS])
            print(f"  {faster:.2f} times as fast as sentence-transformers' torch model; {quality}")
        reports.append(show_outputs(*output_bytes(model, TOP_K)))
        return reports


def show_outputs(ours: int, logits: int) -> dict[str, Any]:
    """Print how much smaller than the logits the best terms are."""
    title = f"output of 8 texts of {materials.TOKENS} tokens, the {TOP_K} best terms, in the peer's place the logits"
    sizes = {harness.OURS: {"bytes": float(ours)}, harness.PEER: {"bytes": float(logits)}}
    return harness.show(title, sizes, {"bytes": ("smaller", 0.01)})


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run, libraries=VARIANTS)
