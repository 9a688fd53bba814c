"""What weight files are called, with their shards, index and variant, and those of adapters. Knows no contents.

Files of one format and one variant are a set, of which a reader takes the single file, else the index with its shards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""What an adapter is saved as; without the first nobody reads the others."""

MAX_INDEX_BYTES = 4_000_000
"""The largest index of shards that is read."""
_VARIANT = r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*?"
_WEIGHTS = re.compile(
    rf"(?:(?P<stem>model|pytorch_model)(?:\.(?P<variant>{_VARIANT}))?(?P<number>-\d{{5}}-of-\d{{5}})?"
    r"\.(?P<ending>safetensors|bin)"
    rf"|(?P<index_stem>model|pytorch_model)\.(?P<index_ending>safetensors|bin)\.index"
    rf"(?:\.(?P<index_variant>{_VARIANT}))?\.json)"
)
_STEMS = {"safetensors": "model", "bin": "pytorch_model"}


@dataclass(frozen=True, slots=True)
class WeightNames:
    """Name the files of one set.

    Raises:
        ValueError: If the variant could not be told from the other parts of a name.
    """

    ending: str = "safetensors"
    """``"safetensors"`` or ``"bin"``."""
    variant: str | None = None
    """A word in the names, as ``fp16`` in ``model.fp16.safetensors``."""

    def __post_init__(self) -> None:
        """Check both words."""
        if self.ending not in _STEMS:
            raise ValueError(f"unknown ending {self.ending!r}; choose from {sorted(_STEMS)}")
        if self.variant is not None and (
            not re.fullmatch(_VARIANT, self.variant) or re.search(r"-\d{5}-of-\d{5}$", self.variant)
        ):
            raise ValueError(f"a variant must be letters, digits, _ and -, as 'fp16', got {self.variant[:100]!r}")

    @property
    def single(self) -> str:
        """The file of a model that needs only one."""
        return f"{self._beginning}.{self.ending}"

    @property
    def index(self) -> str:
        """The file that says which shard holds which tensor."""
        return f"{_STEMS[self.ending]}.{self.ending}.index{self._dotted}.json"

    @property
    def pattern(self) -> str:
        """Names of single file and shards for ``format(suffix=...)``."""
        return f"{self._beginning}{{suffix}}.{self.ending}"

    @property
    def outdated(self) -> tuple[WeightNames, ...]:
        """Sets of which nothing may stay when this one is written: its own, and that which would be read before it."""
        return (self,) if self.ending == "safetensors" else (self, WeightNames("safetensors", self.variant))

    @property
    def _beginning(self) -> str:
        return _STEMS[self.ending] + self._dotted

    @property
    def _dotted(self) -> str:
        return "" if self.variant is None else f".{self.variant}"


def set_of(name: str) -> WeightNames | None:
    """Return the set a file belongs to, or None if its name is not that of a weight file or an index."""
    found = _WEIGHTS.fullmatch(name)
    if found is None:
        return None
    stem, ending = found["stem"] or found["index_stem"], found["ending"] or found["index_ending"]
    return WeightNames(ending, found["variant"] or found["index_variant"]) if _STEMS[ending] == stem else None


def is_plain(name: str) -> bool:
    """Return whether a file is one of weights without a variant, which is what loads take that ask for none."""
    names = set_of(name)
    return names is not None and names.variant is None
