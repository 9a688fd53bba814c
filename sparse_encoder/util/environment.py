"""What is installed."""

from __future__ import annotations

from importlib.util import find_spec


def is_datasets_available() -> bool:
    """Say whether the package ``datasets`` is installed, which this library requires."""
    return find_spec("datasets") is not None


def is_training_available() -> bool:
    """Say whether what training needs is installed: ``accelerate`` and ``datasets``, which this library requires."""
    return find_spec("accelerate") is not None and is_datasets_available()
