"""The logits never exist: what a projection adds to the peak of a process is far below B x T x V."""

from __future__ import annotations

import sys

import pytest
from process_helpers import run_python

SCRIPT = """
import sys
import torch
from sparse_encoder.kernels import max_projection, sum_projection

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

torch.set_num_threads(1)
texts, tokens, width, terms = 16, 256, 64, 20_000  # logits: 328 MB in float32
hidden = torch.randn(texts, tokens, width, requires_grad=True)
weight = torch.randn(terms, width, requires_grad=True)
mask = torch.ones(texts, tokens)
kernel = {"max": max_projection, "sum": sum_projection}[sys.argv[1]]
kernel(hidden[:1, :16], weight[:64], None, mask[:1, :16]).sum().backward()
before = peak()
kernel(hidden, weight, None, mask).relu().sum().backward()
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kernel", ["max", "sum"])
def test_a_training_step_adds_a_fraction_of_the_logits_to_the_peak(kernel: str) -> None:
    grown = float(run_python(SCRIPT, kernel))
    assert 0 < grown < 120  # MiB, of 312 for one copy of the logits; the dense way keeps several
