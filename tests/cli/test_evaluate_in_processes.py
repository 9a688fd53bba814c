"""``sparse-encoder evaluate`` under a launcher: the figures of one process, printed and written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from collections_helpers import write_beir
from model_helpers import write_masked_language_model

from sparse_encoder.cli import processes
from sparse_encoder.cli.main import main

TIMES = ("search_ms_per_query", "ms_per_query")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate_in_processes")
    write_beir(folder / "small")
    write_masked_language_model(folder / "model")
    return folder


def launch(*arguments: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*launcher, "-m", "sparse_encoder.cli.main", "evaluate", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def results(folder: Path) -> dict[str, object]:
    found: dict[str, dict[str, object]] = json.loads((folder / "results.json").read_text())
    return {**found, "cost": {name: value for name, value in found["cost"].items() if name not in TIMES}}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model", "bm25"])
def test_two_processes_find_what_one_finds(place: Path, tmp_path: Path, model: str) -> None:
    given = [model if model == "bm25" else str(place / model), str(place / "small")]
    device = [] if model == "bm25" else ["--device", "cpu"]
    assert main(["evaluate", *given, *device, "--output", str(tmp_path / "alone")]) == 0
    finished = launch(*given, *device, "--output", str(tmp_path / "both"))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count(f"{given[0]} on small: 5 documents, 2 judged queries") == 1
    assert finished.stdout.count("written: ") == 1
    assert results(tmp_path / "both") == results(tmp_path / "alone")
    assert (tmp_path / "both" / "run.trec").read_bytes() == (tmp_path / "alone" / "run.trec").read_bytes()
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["results.json", "run.trec"]


@pytest.mark.slow
def test_a_mistake_ends_all_processes_and_is_told_once(place: Path, tmp_path: Path) -> None:
    for given, reason in (
        ([str(place / "model"), str(tmp_path / "file")], "a collection is a folder or an ir_datasets id"),  # of one
        ([str(tmp_path / "file"), str(place / "small")], "file"),  # of each
    ):
        (tmp_path / "file").write_text("mine")
        finished = launch(*given, "--device", "cpu")
        assert finished.returncode != 0
        told = [line for line in finished.stderr.splitlines() if line.startswith("sparse-encoder evaluate: ")]
        assert len(told) == 1
        assert reason in told[0]


def test_without_a_place_to_meet(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert main(["evaluate", "bm25", str(place / "small")]) == 2
    assert "environment variable RANK expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "rank", "found"),
    [(None, 0, "cuda:0"), (None, 3, "cuda:1"), ("cuda", 1, "cuda:1"), ("cuda:0", 1, "cuda:0"), ("cpu", 1, "cpu")],
)
def test_each_process_has_a_device(monkeypatch: pytest.MonkeyPatch, asked: str | None, rank: int, found: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert processes.device_of_process(asked) == asked  # alone
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert processes.device_of_process(asked) == found
