"""The progress bar of a call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

logger = logging.getLogger("sparse_encoder")


@contextmanager
def progress(total: int, show: bool | None) -> Iterator[Callable[[int], object]]:
    """Show a bar that counts texts.

    Args:
        total: How many there are.
        show: ``None`` shows it when the library's logger tells INFO or DEBUG.

    Yields:
        Takes the number of texts that were finished.
    """
    hidden = not (logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG) if show is None else show)
    with tqdm(total=total, desc="Encoding", unit="text", disable=hidden) as bar:
        yield bar.update
