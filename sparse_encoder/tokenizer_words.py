"""Words that come alone, for tokenizers that tell the beginning of a word by the blank before it. Knows the backend."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

_BYTES = "ByteLevel"
_PREFIX = "add_prefix_space"


class SpacedWords:
    """Put a blank before everything that is encoded, as byte-level tokenizers with ``add_prefix_space`` do.

    Without that option these tokenizers take ``["Hello", "world"]`` for ``Hello`` and ``world``, but in ``Hello world``
    they see ``Hello`` and ``\u0120world``. The blank has no offsets: those of a word still count from its first letter.

    Args:
        backend: The tokenizer proper; it is not changed before :meth:`switch`.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.needed = _lacks_blank(_state(backend.pre_tokenizer))
        """Whether the backend loses the blanks between words that come alone."""
        if self.needed:
            self._plain = backend.normalizer, backend.post_processor
            blank = normalizers.Prepend(" ")
            normalizer = backend.normalizer
            self._spaced = (
                blank if normalizer is None else normalizers.Sequence([normalizer, blank]),
                _trimming_less(backend.post_processor),
            )

    def switch(self, on: bool) -> None:
        """Set the backend to words that come alone, or back to texts."""
        if self.needed:
            self._backend.normalizer, self._backend.post_processor = self._spaced if on else self._plain


def _state(part: Any) -> Any:  # noqa: ANN401 - a part of a backend, and its description as JSON
    """Return the description of a part of a backend; None of none."""
    return None if part is None else json.loads(part.__getstate__())


def _lacks_blank(pre_tokenizer: Any) -> bool:  # noqa: ANN401 - as above
    parts = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    prefixes = [bool(part.get(_PREFIX)) for part in parts if part["type"] == _BYTES]
    return bool(prefixes) and not any(prefixes)


def _trimming_less(processor: Any) -> Any:  # noqa: ANN401 - as above
    """Return a post-processor that does not take the blank off the offsets, which never had it."""
    if processor is None:
        return None
    state = _state(processor)
    for part in state.get("processors", [state]):
        if _PREFIX in part:
            part[_PREFIX] = True
    changed = deepcopy(processor)
    changed.__setstate__(json.dumps(state).encode())
    return changed
