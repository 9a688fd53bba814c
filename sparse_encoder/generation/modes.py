"""The ways of choosing tokens that a generation config may ask for. Names alone."""

from __future__ import annotations

from enum import Enum


class GenerationMode(str, Enum):
    """Name a way of choosing tokens; equal to its text, as in transformers."""

    GREEDY_SEARCH = "greedy_search"
    SAMPLE = "sample"
    BEAM_SEARCH = "beam_search"
    BEAM_SAMPLE = "beam_sample"

    @classmethod
    def of(cls, *, num_beams: int, do_sample: bool) -> GenerationMode:
        """Return the one that these settings ask for."""
        if num_beams == 1:
            return cls.SAMPLE if do_sample else cls.GREEDY_SEARCH
        return cls.BEAM_SAMPLE if do_sample else cls.BEAM_SEARCH
