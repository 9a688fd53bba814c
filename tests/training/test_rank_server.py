"""The process that ranks of tests are forked from imports what the tests import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed_helpers import PACKAGE, in_processes, place_of_server, run_rank

LOOK = "import importlib.util, json, os; print(json.dumps([importlib.util.find_spec('sparse_encoder').origin, {}]))"


def decoy(folder: Path) -> None:
    (folder / "sparse_encoder").mkdir()
    (folder / "sparse_encoder" / "__init__.py").touch()


def test_it_starts_with_the_same_package_and_nothing_of_a_single_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OF_ONE_TEST", "1")
    look = [sys.executable, "-c", LOOK.format("'OF_ONE_TEST' in os.environ")]
    with place_of_server():  # python starts the server with -c too
        found, knows = json.loads(subprocess.run(look, capture_output=True, check=True).stdout)
    assert Path(found) == Path(PACKAGE)
    assert not knows
    assert (Path.cwd(), os.environ["OF_ONE_TEST"]) == (tmp_path, "1")


def where(rank: int, folder: str) -> list[str]:
    import sparse_encoder

    return [str(sparse_encoder.__file__), os.getcwd(), os.environ["OF_ONE_TEST"]]


def test_ranks_have_the_folder_and_the_environment_of_their_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_ONE_TEST", "2")
    assert in_processes(where, ranks=1, folder=tmp_path / "ranks") == [[PACKAGE, str(tmp_path), "2"]]


def test_a_rank_with_another_package_is_told() -> None:
    with pytest.raises(AssertionError, match="the tests are of elsewhere"):
        run_rank(0, where, 1, "", {}, "elsewhere")
