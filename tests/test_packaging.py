"""What is shipped is what is there, and importing it stays cheap."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from process_helpers import run_python

import sparse_encoder

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
LINKED = {name: folder for name, folder in FOLDERS.items() if "." in name}
HEAVY = ("transformers", "sentence_transformers", "datasets", "accelerate", "huggingface_hub")


def shipped_files() -> dict[str, Path]:
    """Return every file of the packages by its path in a wheel, the mapped folders under their package's name."""
    files = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT / folder)
            through_link = package == "sparse_encoder" and f"sparse_encoder.{relative.parts[0]}" in LINKED
            if (path.suffix == ".py" or path.name == "py.typed") and not through_link:
                files[f"{package.replace('.', '/')}/{relative.as_posix()}"] = path
    return files


def test_the_listed_packages_are_those_that_are_there() -> None:
    found = {name.removesuffix("/__init__.py").replace("/", ".") for name in shipped_files() if "__init__" in name}
    assert sorted(found) == PROJECT["tool"]["setuptools"]["packages"]


def test_no_module_lies_outside_a_package() -> None:
    files = shipped_files()
    homeless = [name for name in files if f"{name.rpartition('/')[0]}/__init__.py" not in files]
    assert homeless == []


@pytest.mark.parametrize(("package", "folder"), LINKED.items())
def test_links_lead_to_the_mapped_folders(package: str, folder: str) -> None:
    link = ROOT / package.replace(".", "/")
    if not link.is_symlink():
        pytest.skip("a checkout without links")
    assert os.readlink(link) == f"../{folder}"
    assert link.resolve() == (ROOT / folder).resolve()


def test_the_version_is_said_once() -> None:
    assert PROJECT["project"]["version"] == sparse_encoder.__version__


def test_every_requirement_is_pinned_to_a_version_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins: dict[str, set[str]] = {}
    for pinned in (Requirement(line) for line in lines if line and not line.startswith("#")):
        pins.setdefault(pinned.name, set()).update(version.version for version in pinned.specifier)
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    for requirement in map(Requirement, wanted):
        assert requirement.name in pins, f"{requirement.name} has no pin in constraints.txt"
        for pin in pins[requirement.name]:
            assert requirement.specifier.contains(pin), f"{requirement} does not allow {pin}"


def test_what_runs_on_the_oldest_python_has_a_pin_that_installs_there() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    old = {"python_version": oldest}
    there = {each.name: each for each in pinned if each.marker is None or each.marker.evaluate(old)}
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        assert requirement.name in there, f"{requirement.name} has no pin for Python {oldest}"
        (pin,) = (version.version for version in there[requirement.name].specifier)
        if pin == version(requirement.name):  # else it cannot be looked into here
            wanted = metadata(requirement.name).get("Requires-Python") or ">=3"
            assert SpecifierSet(wanted).contains(oldest), f"{requirement.name} {pin} needs Python {wanted}"


def test_public_names_are_sorted_and_there() -> None:
    names = sparse_encoder.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    assert set(names) <= set(dir(sparse_encoder))
    for name in names:
        value = getattr(sparse_encoder, name)
        assert value.__name__ == name
        assert value.__module__.startswith("sparse_encoder.")
    with pytest.raises(AttributeError, match="choose from .*SparseEncoder"):
        _ = sparse_encoder.SparseEncodr


@pytest.mark.parametrize("package", PROJECT["tool"]["setuptools"]["packages"])
def test_every_package_lists_its_public_names_in_order(package: str) -> None:
    module = importlib.import_module(package)
    names = list(getattr(module, "__all__", []))
    constants_first = sorted(names, key=lambda name: (not name.isupper(), name))
    assert names in (sorted(names), constants_first)
    assert [name for name in names if not hasattr(module, name)] == []


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, sparse_encoder; dir(sparse_encoder); print([n for n in ('torch', 'numpy') if n in sys.modules])"
    assert run_python(code) == "[]"


def test_importing_the_encoder_imports_nothing_that_is_slow() -> None:
    code = f"import sys; from sparse_encoder import SparseEncoder; print([n for n in {HEAVY} if n in sys.modules])"
    assert run_python(code) == "[]"


def setuptools_can_build() -> bool:
    """Return whether the build backend is installed here, new enough for ``pyproject.toml``."""
    needed = Requirement(PROJECT["build-system"]["requires"][0])
    try:
        return needed.specifier.contains(Version(version(needed.name)))
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not setuptools_can_build(), reason="the build backend is not installed")
def test_the_wheel_has_exactly_the_files_of_the_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in FOLDERS.values():
        skipped = shutil.ignore_patterns("__pycache__", *(FOLDERS.values() if folder == "sparse_encoder" else ()))
        shutil.copytree(ROOT / folder, source / folder, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path / "dist"), str(source)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name: archive.read(name) for name in archive.namelist()}
    about = {name for name in shipped if re.fullmatch(r"sparse_encoder-[0-9.]+\.dist-info/.*", name)}
    assert {name.split("/", 1)[1] for name in about} >= {"METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    expected = shipped_files()
    assert set(shipped) - about == set(expected)
    assert [name for name, path in expected.items() if shipped[name] != path.read_bytes()] == []
