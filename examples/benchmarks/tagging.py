"""Tagging: our pipeline against that of transformers on 2,000 sentences of mixed length.

Run: ``python examples/benchmarks/tagging.py`` (about 10 minutes on 2 cores; ``--rounds 1`` for a look).
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import materials

SENTENCES = 2000
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC"]


def write_tagger(folder: Path, texts: list[str]) -> Path:
    """Write a tagger of MiniLM's size with random weights, and a tokenizer of these texts."""
    import torch

    from sparse_encoder.backbone import EncoderModel
    from sparse_encoder.token_classification import TokenClassificationModel

    target = materials.write_model(folder, texts)
    torch.manual_seed(1)
    model = TokenClassificationModel.from_backbone(EncoderModel.from_pretrained(target), id2label=LABELS)
    with torch.no_grad():
        model.head.classifier.bias[0] = 0.05  # a random tagger would find nothing outside
    model.save_pretrained(target)
    return target


def write_sentences(folder: Path, texts: list[str]) -> Path:
    """Write the beginnings of texts: from 3 words to 150, most of them short."""
    draw = random.Random(0)
    sentences = []
    for text in draw.sample(texts, SENTENCES):
        length = round(3 * 50 ** draw.random() ** 1.5)
        sentences.append(" ".join(text.split()[:length]))
    target = folder / "sentences.json"
    target.write_text(json.dumps(sentences), encoding="utf-8")
    return target


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Tag a few sentences to warm up, then all for the clock."""
    model, file = arguments
    sentences = json.loads(Path(file).read_text(encoding="utf-8"))
    tagger: Any
    if library == harness.OURS:
        from sparse_encoder.token_classification import TokenClassificationPipeline

        tagger = TokenClassificationPipeline.from_pretrained(model, aggregation_strategy="simple")
    else:
        from transformers import pipeline

        tagger = pipeline("token-classification", model=model, aggregation_strategy="simple", device="cpu")
    tagger(sentences[:32])
    started = time.perf_counter()
    found = tagger(sentences)
    seconds = time.perf_counter() - started
    entities = sum(map(len, found))
    return {"seconds": seconds, "peak_bytes": harness.peak_bytes(), "entities": entities}


def run(rounds: int) -> list[Any]:
    """Measure both."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts = [text for pair in materials.read_texts(materials.write_texts(folder)) for text in pair]
        model = write_tagger(folder, texts)
        sentences = write_sentences(folder, texts)
        rows = harness.alternate(__file__, [str(model), str(sentences)], rounds=rounds)
        targets = {"seconds": ("faster", 1.5), "peak_bytes": ("smaller", 1.0)}
        return [harness.show(f"tag {SENTENCES} sentences", rows, targets)]


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
