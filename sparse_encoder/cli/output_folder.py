"""Where a quickstart leaves its files, and what becomes of an earlier one. Knows names, not contents."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sparse_encoder.checkpoint import write_json

DEFAULT_NAME = "quickstart"


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """Names of the files of one run."""

    path: Path

    @property
    def settings(self) -> Path:
        """What was asked for; a folder that has it belongs to a quickstart."""
        return self.path / "settings.json"

    @property
    def start(self) -> Path:
        """The model before training."""
        return self.path / "start"

    @property
    def checkpoints(self) -> Path:
        """Of the training; removed when it is over."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.path / "model"

    @property
    def index(self) -> Path:
        """Over all documents, by the trained model."""
        return self.path / "index"

    @property
    def documents(self) -> Path:
        """Ids, questions and documents, one JSON object per line."""
        return self.path / "documents.jsonl"

    @property
    def results(self) -> Path:
        """The figures that have been measured so far."""
        return self.path / "results.json"


def new_folder(path: Path | None, settings: dict[str, Any], *, overwrite: bool) -> OutputFolder:  # plain values
    """Make the folder of a new run.

    Args:
        path: Where; ``None`` takes the first of ``quickstart``, ``quickstart-2``, ... that does not exist yet.
        settings: Of the run, kept for ``--resume``.
        overwrite: Remove what an earlier quickstart left in ``path``.

    Raises:
        FileExistsError: If there are files that may not be removed.
    """
    if path is None:
        path = next(each for each in _default_paths() if not each.exists())
    folder = OutputFolder(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not path.is_dir() or not folder.settings.exists():
            raise FileExistsError(f"{path} holds something else than a quickstart; choose another --output")
        if not overwrite:
            raise FileExistsError(
                f"{path} holds an earlier quickstart: --resume goes on with it, --overwrite removes it, "
                "or choose another --output"
            )
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    write_json(folder.settings, settings)
    return folder


def earlier_folder(path: Path | None) -> OutputFolder:
    """Find the folder of an earlier run.

    Args:
        path: Where; ``None`` takes the last of ``quickstart``, ``quickstart-2``, ... that exists.

    Raises:
        FileNotFoundError: If no quickstart was there.
    """
    if path is None:
        path = Path(DEFAULT_NAME)
        for each in _default_paths():
            if not each.exists():
                break
            path = each
    folder = OutputFolder(path)
    if not folder.settings.is_file():
        raise FileNotFoundError(f"there is no quickstart to resume in {path}: {folder.settings.name} is missing")
    return folder


def _default_paths() -> Iterator[Path]:
    yield Path(DEFAULT_NAME)
    yield from (Path(f"{DEFAULT_NAME}-{number}") for number in count(2))
