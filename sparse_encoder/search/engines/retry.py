"""How often and how late something is tried again. Knows no network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import Random

BUSY = frozenset({429, 502, 503, 504})
"""HTTP statuses that mean: later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Try a bounded number of times, with pauses that double and jitter, so that many clients do not return at once.

    The pause after try number n is drawn from the upper half of ``[0, first_delay_seconds * 2 ** (n - 1)]``; what a
    server asks for in ``Retry-After`` comes on top.

    Raises:
        ValueError: If ``max_tries`` is below 1 or a delay is negative.
    """

    max_tries: int = 6
    """The first try included."""
    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 60.0
    """No pause is longer; a server that asks for a longer one is not asked again."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    """Seconds since 1970, for a ``Retry-After`` that names a date."""
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.max_tries < 1:
            raise ValueError(f"max_tries must be at least 1, got {self.max_tries}")
        if self.first_delay_seconds < 0 or self.max_delay_seconds < 0:
            raise ValueError(f"delays must not be negative, got {self.first_delay_seconds}, {self.max_delay_seconds}")

    def wait(self, tries: int, retry_after: str | None = None) -> bool:
        """Pause before the next try.

        Args:
            tries: How many there have been, at least 1.
            retry_after: The header of that name, seconds or a date.

        Returns:
            Whether there is to be another try; if not, there was no pause.
        """
        asked = self._seconds(retry_after)
        if tries >= self.max_tries or asked > self.max_delay_seconds:
            return False
        longest = min(self.first_delay_seconds * 2 ** (tries - 1), self.max_delay_seconds)
        jittered = longest * (1 + self.random.random()) / 2
        self.sleep(min(asked + jittered, self.max_delay_seconds))
        return True

    def _seconds(self, retry_after: str | None) -> float:
        if retry_after is None:
            return 0.0
        if retry_after.strip().isdecimal():
            return float(retry_after)
        try:
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - self.clock())
        except ValueError:  # neither a number nor a date: as if it were not there
            return 0.0
