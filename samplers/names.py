"""The names of the samplers, as training arguments spell them."""

from __future__ import annotations

from enum import Enum


class _Name(str, Enum):
    """A string with a closed set of values."""

    @classmethod
    def _missing_(cls, value: object) -> _Name:
        raise ValueError(f"unknown {cls.__name__} {value!r}; choose from {[member.value for member in cls]}")


class BatchSamplers(_Name):
    """How the rows of one dataset are grouped into batches."""

    BATCH_SAMPLER = "batch_sampler"
    """A new random order every epoch."""
    NO_DUPLICATES = "no_duplicates"
    """No text occurs twice in a batch, in whatever columns."""
    NO_DUPLICATES_HASHED = "no_duplicates_hashed"
    """Another name for it: hashes are computed once in any case."""
    GROUP_BY_LABEL = "group_by_label"
    """Every batch has several labels, and several rows of each."""


class MultiDatasetBatchSamplers(_Name):
    """From which of several datasets the next batch comes."""

    ROUND_ROBIN = "round_robin"
    """In turn, until the shortest is used up."""
    PROPORTIONAL = "proportional"
    """In random order, every batch of every dataset once."""
