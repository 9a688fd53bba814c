"""Training: one optimiser step of ours against sentence-transformers, 16 pairs of 256 tokens a side, float32.

Both run their own trainer on the same weights, rows and loss; only the import differs. A step is timed from one
``on_step_end`` to the next. Run: ``python examples/benchmarks/train.py`` (about 15 minutes on 2 cores).
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import materials

BATCH, STEPS = 16, 4


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Train a few steps and return the median of all but the first."""
    from datasets import Dataset

    model_folder, texts_file, scratch = arguments
    root = "sentence_transformers.sparse_encoder" if library == harness.PEER else library
    peer = importlib.import_module(root)
    losses = importlib.import_module(f"{root}.losses")
    callback_home = "transformers" if library == harness.PEER else "sparse_encoder.training"
    base = importlib.import_module(callback_home).TrainerCallback
    ends: list[float] = []

    class Clock(base):  # type: ignore[misc, valid-type]
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())

    documents = [document for _, document in materials.read_texts(Path(texts_file)) if len(document) > 2_500]
    assert len(documents) >= 2 * BATCH * (STEPS + 1)
    half = BATCH * (STEPS + 1)
    dataset = Dataset.from_dict({"anchor": documents[:half], "positive": documents[half : 2 * half]})
    model = peer.SparseEncoder(model_folder, device="cpu")
    model.max_seq_length = materials.TOKENS
    loss = losses.SpladeLoss(
        model,
        loss=losses.SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-5,
        query_regularizer_weight=5e-5,
    )
    arguments_of_training = peer.SparseEncoderTrainingArguments(
        output_dir=scratch,
        per_device_train_batch_size=BATCH,
        max_steps=STEPS + 1,
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = peer.SparseEncoderTrainer(
        model=model, args=arguments_of_training, train_dataset=dataset, loss=loss, callbacks=[Clock()]
    )
    trainer.train()
    seconds = statistics.median(later - earlier for earlier, later in zip(ends, ends[1:], strict=False))
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes()}


def run(rounds: int) -> list[Any]:
    """Measure one training step."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = materials.write_texts(Path(scratch))
        model = materials.write_model(Path(scratch), [text for pair in materials.read_texts(texts) for text in pair])
        rows = harness.alternate(__file__, [str(model), str(texts), f"{scratch}/out"], rounds=rounds)
        targets = {"seconds": ("faster", 2.0), "peak_bytes": ("smaller", 0.6)}
        return [harness.show(f"train, {BATCH} pairs x {materials.TOKENS} tokens, float32", rows, targets)]


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
