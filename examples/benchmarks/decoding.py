"""Decoding: our greedy ``generate`` against that of transformers, with a cache, on the same weights and prompts.

The model is a Llama of 15 million parameters with random weights and no end token, so that every row grows to the full
length. Both must write the same tokens.

Run: ``python examples/benchmarks/decoding.py`` (about 3 minutes on 2 cores; ``--rounds 1`` for a look).
"""

from __future__ import annotations

import statistics
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import harness

BATCHES, PROMPT, NEW_TOKENS, PASSES = (1, 8), 16, 128, 2
CONFIG: dict[str, Any] = {  # JSON
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32000,
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def write_model(folder: Path) -> Path:
    """Write the model with random weights."""
    import torch

    from sparse_encoder.generation import CausalLanguageModel

    torch.manual_seed(0)
    CausalLanguageModel.from_config(CONFIG).save_pretrained(folder)
    return folder


def open_model(library: str, folder: str) -> Any:  # noqa: ANN401  (a class of either library)
    """Open a causal model with one of the two libraries."""
    if library == harness.OURS:
        from sparse_encoder.generation import CausalLanguageModel

        return CausalLanguageModel.from_pretrained(folder).eval()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def worker(library: str, arguments: list[str]) -> dict[str, float]:
    """Write a few tokens to warm up, then the full length a few times for the clock."""
    import torch

    folder, rows, new_tokens = arguments[0], int(arguments[1]), int(arguments[2])
    model = open_model(library, folder)
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, CONFIG["vocab_size"], (rows, PROMPT), generator=generator)
    given = {"attention_mask": torch.ones_like(prompts), "do_sample": False, "pad_token_id": 0}
    model.generate(prompts, max_new_tokens=4, **given)
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        written = model.generate(prompts, max_new_tokens=new_tokens, **given)
        seconds.append(time.perf_counter() - started)
    assert written.shape == (rows, PROMPT + new_tokens), written.shape
    median = statistics.median(seconds)
    return {
        "seconds": median,
        "tokens_per_s": rows * new_tokens / median,
        "peak_bytes": harness.peak_bytes(),
        "checksum": zlib.crc32(written.numpy().tobytes()),
    }


def run(rounds: int) -> list[Any]:
    """Measure one prompt alone, and eight at a time."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_model(Path(scratch) / "model")
        reports = []
        for rows in BATCHES:
            measured = harness.alternate(__file__, [str(folder), str(rows), str(NEW_TOKENS)], rounds=rounds)
            if measured[harness.OURS]["checksum"] != measured[harness.PEER]["checksum"]:
                raise RuntimeError(f"the tokens differ: {measured}")
            targets = {"seconds": ("faster", 1.0), "peak_bytes": ("smaller", 1.0)}
            title = f"write {NEW_TOKENS} tokens behind {PROMPT}, {rows} at a time; the peer is transformers"
            reports.append(harness.show(title, measured, targets))
        return reports


if __name__ == "__main__":
    harness.main(__doc__ or "", worker, run)
