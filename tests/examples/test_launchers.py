"""The same script under every launcher, on the CPU, in two processes that find each other over a free port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from model_helpers import mixed_texts, write_masked_language_model
from torch import Tensor

from sparse_encoder import SparseEncoder

SCRIPT = Path(__file__).parents[2] / "examples" / "train_distributed.py"
SIZE, UPDATES = 2, 3
TEXTS = mixed_texts(9, seed=7, longest=12)


def free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


def launcher(name: str) -> list[str]:
    accelerate = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
    accelerate += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port()]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    commands = {
        "python": [],
        "torchrun": [*torchrun, "--rdzv-endpoint", f"127.0.0.1:{free_port()}"],
        "accelerate": [*accelerate, "--multi_gpu"],
        "accelerate fsdp": [*accelerate, "--use_fsdp", "--fsdp_version", "2"],
    }
    return [sys.executable, *commands[name]]


def train(folder: Path, name: str, *options: str) -> str:
    output = folder / name
    command = [*launcher(name), str(SCRIPT), str(folder / "pairs.jsonl"), "--model", str(folder / "start")]
    command += ["--output", str(output), "--max-steps", str(UPDATES), "--learning-rate", "0.01", "--cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*map(str, sys.path)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def encoded(model: Path) -> Tensor:
    rows: Tensor = SparseEncoder(str(model)).encode(TEXTS).to_dense()
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launchers")
    write_masked_language_model(folder / "start")
    texts = mixed_texts(4 * SIZE * UPDATES, longest=12)
    rows = [{"query": query, "document": text} for query, text in zip(texts[::2], texts[1::2], strict=True)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert "1 processes, 3 updates" in train(folder, "python", "--batch-size", str(2 * SIZE))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchrun", "accelerate", "accelerate fsdp"])
def test_two_processes_train_to_the_model_of_one(folder: Path, name: str) -> None:
    kind = "FSDPSparseEncoder" if name == "accelerate fsdp" else "SparseEncoder"
    assert f"2 processes, 3 updates of a {kind}\n" in train(folder, name, "--batch-size", str(SIZE))
    start, expected = encoded(folder / "start"), encoded(folder / "python" / "model")
    moved = (expected - start).norm()
    assert moved > 0.1 * start.norm()
    assert (encoded(folder / name / "model") - expected).norm() < 1e-3 * moved
