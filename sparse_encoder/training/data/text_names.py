"""Whether prompts and routes name columns and datasets that exist; knows neither models nor tokenizers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import datasets

from sparse_encoder.training.data.collator import DATASET_NAME
from sparse_encoder.training.data.datasets import TrainingData, kept_randomness
from sparse_encoder.training.data.names import NamingSettings

logger = logging.getLogger(__name__)

_BY_NAME = ("prompts", "router_mapping")


def check_text_names(args: NamingSettings, sets: Iterable[TrainingData]) -> None:
    """Check that every column and dataset that prompts and routes go by is one of the data's.

    Args:
        args: Has the prompts and the routes.
        sets: The data to train and to evaluate on; a name needs to be in one of them.

    Raises:
        ValueError: If there is none of a name; says which there are.
    """
    given = {name: getattr(args, name) for name in _BY_NAME if isinstance(getattr(args, name), Mapping)}
    if not any(given.values()):
        return
    known: dict[str | None, set[str]] = {}  # columns by name of the dataset; None is one without a name
    for data in sets:
        for key, part in data.parts.items():
            known.setdefault(key if data.is_mapping else None, set()).update(_columns(part))
    for name, by_name in given.items():
        if known:
            _check(name, by_name, known)


def warn_about_unused_names(args: NamingSettings, collator: object) -> None:
    """Say which of prompts and routes a collator that was given does not have, as only the default one gets them."""
    unused = [name for name in _BY_NAME if getattr(args, name) and getattr(collator, name, None) != getattr(args, name)]
    if unused:
        logger.warning(
            "%s of the arguments reach no batch unless the data_collator reads them: only the default one gets them",
            " and ".join(unused),
        )


def _check(argument: str, by_name: Mapping[str, Any], known: Mapping[str | None, set[str]]) -> None:
    """Check one argument; see :func:`check_text_names`."""
    every = set().union(*known.values())
    names = sorted(name for name in known if name is not None)
    for key, each in by_name.items():
        if isinstance(each, Mapping):
            if key not in known:
                told = f"there are {names}" if names else "there is one, which has no name"
                raise ValueError(f"{argument} has {key!r}, which is none of the datasets; {told}")
            if unknown := [column for column in each if column not in known[key]]:
                raise ValueError(
                    f"{argument}[{key!r}] has {unknown[0]!r}, which is no column of it; there are {sorted(known[key])}"
                )
        elif key not in every and not (argument == "prompts" and key in names):
            datasets_too = f", and datasets {names}" if names and argument == "prompts" else ""
            raise ValueError(f"{argument} has {key!r}, which is no column; there are {sorted(every)}{datasets_too}")


def _columns(part: Any) -> set[str]:  # noqa: ANN401  (anything that rows are read from)
    """Return the columns of rows; those that a transform makes are seen in the first row."""
    has_transform = isinstance(part, datasets.Dataset) and part.format["type"] == "custom"
    names = part.features if isinstance(part, datasets.IterableDataset) else getattr(part, "column_names", None)
    if names is None or has_transform:
        with kept_randomness():
            names = list(part[0])
    return set(names) - {DATASET_NAME}
