"""A local copy of the NanoBEIR repository: the same layout, few and short texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset

SPLITS = ("NanoMSMARCO", "NanoNQ", "NanoArguAna")
TEXTS = [f"text {number}" for number in range(60)]


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep what ``datasets`` prepares in a folder, and its bars off the screen."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write_repository(
    folder: Path,
    changes: dict[tuple[str, str], list[dict[str, Any]]] | None = None,
    *,
    splits: tuple[str, ...] = SPLITS,
    listed: bool = False,
) -> str:
    """Write a repository.

    Args:
        folder: Made.
        changes: Rows in the place of those of a subset and split.
        splits: What is in it.
        listed: Whether judgements list the documents of a query in one row.
    """
    lines = ["---", "configs:"]
    for subset in ("corpus", "queries", "qrels"):
        (folder / subset).mkdir(parents=True)
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split in splits:
            rows = (changes or {}).get((subset, split)) or rows_of(subset, split, listed)
            file = f"{subset}/{split}-00000-of-00001.parquet"
            Dataset.from_list(rows).to_parquet(str(folder / file))
            lines += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return str(folder)


def rows_of(subset: str, split: str, listed: bool = False) -> list[dict[str, Any]]:
    """Make the rows of a file; the last query and the last document have no text, one query no answer."""
    number = SPLITS.index(split)
    random = np.random.default_rng(number)
    size, asked = 30 + 5 * number, 8 + number
    if subset == "corpus":
        texts = [TEXTS[place] for place in random.permutation(60)[:size]]
        return [{"_id": f"d{place}", "text": text} for place, text in enumerate([*texts, ""])]
    if subset == "queries":
        return [{"_id": f"q{place}", "text": text} for place, text in enumerate([*TEXTS[:asked], ""])]
    pairs = [
        (f"q{place}", sorted({f"d{document}" for document in random.integers(0, size + 1, 4)}))
        for place in [*range(1, asked), asked]
    ]
    if listed:
        return [{"query-id": query, "corpus-id": documents} for query, documents in pairs]
    return [{"query-id": query, "corpus-id": document} for query, documents in pairs for document in documents]
