"""Which dtype a model's parameters get. Knows nothing of models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sparse_encoder.checkpoint import ConfigError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
DTYPE_KEYS = ("dtype", "torch_dtype")
"""What transformers 5 and 4 call it in a config."""
GUARDED = ".feed_forward.down."
"""What the names have in common that stay float32 in a guarded model of float16."""
_TOO_SHORT = re.compile(r"float[84]_[a-z0-9_]+")


class Dtypes(NamedTuple):
    """What the parameters of a model get."""

    usual: torch.dtype
    guards_float16: bool
    """As the field of :class:`TransformerConfig`."""

    def of(self, name: str) -> torch.dtype:
        """Return the dtype of a parameter, by our name."""
        guarded = self.guards_float16 and self.usual == torch.float16 and GUARDED in f".{name}"
        return torch.float32 if guarded else self.usual


def chosen_dtype(
    asked: torch.dtype | str | None,
    hf_config: Mapping[str, Any],  # Any: parsed JSON
    stored: Iterable[torch.dtype] = (),
    *,
    in_index: str | None = None,
    path: Path | None = None,
) -> torch.dtype:
    """Decide the dtype of a model's parameters.

    Args:
        asked: A dtype or its name; None and ``"auto"`` look on.
        hf_config: The content of a ``config.json``; may name one. Those of 8 or 4 bits are passed over, here and below:
            they are formats to store in, and models do not compute in them.
        stored: What tensors have; the first floating one decides otherwise; float32 if there is none.
        in_index: What the index of the weight files names, which counts before what tensors have.
        path: Where the config came from, for errors.

    Raises:
        ValueError: If the dtype asked for is not one that models compute in.
        ConfigError: If that of the config or of the index is not.
    """
    if asked is not None and asked != "auto":
        name = str(asked).removeprefix("torch.")
        if name not in DTYPES:
            raise ValueError(f"unknown dtype {asked!r}; choose from {sorted(DTYPES)} or 'auto'")
        return DTYPES[name]
    named = [(key, hf_config.get(key)) for key in DTYPE_KEYS]
    for key, value in (*named, ("metadata.dtype of the index", in_index)):
        if value not in (None, "auto"):
            name = str(value).removeprefix("torch.")
            if _TOO_SHORT.fullmatch(name):
                continue
            if name not in DTYPES:
                raise ConfigError(f"unknown dtype {value!r:.100}; choose from {sorted(DTYPES)}", path=path, field=key)
            return DTYPES[name]
    return next((dtype for dtype in stored if dtype in DTYPES.values()), torch.float32)
