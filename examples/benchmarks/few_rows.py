"""Products of a weight with the few rows of a decoder's step: ours against ``torch.nn.functional.linear``.

The weights are those of decoders (a vocabulary of 32,000 or 49,152, and the feed-forward block); each size is in memory
several times, so that it comes from there and not out of a cache. One thread.

Run: ``python examples/benchmarks/few_rows.py`` (about 20 seconds).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_encoder.backbone.few_rows import linear

SIZES = ((32000, 288), (768, 288), (288, 768), (49152, 576), (1536, 576), (576, 1536), (3072, 768), (768, 3072))
ROWS = (1, 2, 4, 8)
BYTES, PASSES = 60_000_000, 7


def seconds(product: Callable[[Tensor, Tensor], Tensor], rows: Tensor, weights: list[Tensor]) -> float:
    """Return the processor time of one product."""
    started = time.process_time()
    for weight in weights:
        product(rows, weight)
    return (time.process_time() - started) / len(weights)


def main() -> None:
    """Print a line for each size and number of rows."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        for size in SIZES:
            weights = [torch.randn(size) for _ in range(max(1, BYTES // (4 * size[0] * size[1])))]
            for count in ROWS:
                rows = torch.randn(count, 1, size[1])
                times = [[seconds(each, rows, weights) for each in (linear, F.linear)] for _ in range(PASSES)]
                ours, plain = (min(each) for each in zip(*times, strict=True))
                print(f"{size}, {count} rows: {1e6 * ours:9.1f} us, plain {1e6 * plain:9.1f} us, {plain / ours:.2f}")


if __name__ == "__main__":
    main()
