"""Threads of gloo end before the interpreter, which they would abort now and then; a process that fails leaves them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_helpers import run_python

from sparse_encoder.training import TrainingArguments
from sparse_encoder.training.devices import build_accelerator

GROUP = """
import atexit, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch import nn
from sparse_encoder.training.processes import end_group_at_exit

def tell_what_is_left():  # runs last, as it is registered first
    names = [each.read_text() for each in Path("/proc/self/task").glob("*/comm")]
    print(dist.is_initialized(), sum("gloo" in name for name in names))

if Path("/proc/self/task").exists():
    atexit.register(tell_what_is_left)
dist.init_process_group(sys.argv[1], store=dist.HashStore(), rank=0, world_size=1)
"""
WRAPPED = """
end_group_at_exit()
end_group_at_exit()
wrapped = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
wrapped(torch.ones(1, 3)).sum().backward()
wrapped.itself = [wrapped]  # a cycle
del wrapped
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo,cuda:gloo"])
def test_the_threads_of_the_group_end_before_the_interpreter_does(backend: str) -> None:
    assert run_python(GROUP + WRAPPED, backend).splitlines()[-1] == "False 0"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_an_error_leaves_the_group_alone() -> None:
    code = GROUP + "end_group_at_exit()\nraise ValueError('of the script')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "gloo"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 1
    assert "ValueError: of the script" in done.stderr
    assert done.stdout.startswith("True ")


def test_every_run_sees_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("sparse_encoder.training.devices.end_group_at_exit", lambda: calls.append(True))
    build_accelerator(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    assert calls == [True]
