"""Names of tensors in two worlds, by one table that is read both ways.

Knows no model: the tables belong to the families.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from sparse_encoder.checkpoint.errors import CheckpointError

_T = TypeVar("_T")
_NUMBER = "(0|[1-9][0-9]*)"
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
LEGACY_SUFFIXES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
"""Names of the first BERT checkpoints, and what they are called since."""


class KeyTable:
    """Translate names one to one.

    A row is ``(theirs, ours)``; ``{}`` stands for a number, which must be a whole part between dots. The first ``{}``
    of one side is the first of the other, and so on: ``("encoder.layer.{}.output.dense.weight",
    "layers.{}.mlp.down.weight")``.

    Args:
        rows: Pairs of patterns.

    Raises:
        ValueError: If the sides of a row have different numbers of ``{}``, a ``{}`` is only a part of a part, or two
            rows could both translate one name.
    """

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.rows = tuple(rows)
        for theirs, ours in self.rows:
            if theirs.count("{}") != ours.count("{}"):
                raise ValueError(f"both sides of a row need the same number of {{}}, got {theirs!r} and {ours!r}")
        self._to_ours = _Translation([(theirs, ours) for theirs, ours in self.rows])
        self._to_theirs = _Translation([(ours, theirs) for theirs, ours in self.rows])

    def ours(self, theirs: str) -> str | None:
        """Return our name of a tensor of theirs, or None if the table does not know it."""
        return self._to_ours.translate(theirs)

    def theirs_or_none(self, ours: str) -> str | None:
        """Return their name of a tensor of ours, or None if the table does not know it."""
        return self._to_theirs.translate(ours)

    def theirs(self, ours: str) -> str:
        """Return their name of a tensor of ours.

        Raises:
            ValueError: If the table does not know it.
        """
        name = self.theirs_or_none(ours)
        if name is None:
            raise ValueError(f"the key table has no row for {ours!r}")
        return name


class _Translation:
    """One direction of a table: patterns grouped by what they look like with every number taken out."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self._rows: dict[int, list[tuple[re.Pattern[str], str]]] = {}
        seen: dict[int, list[list[str]]] = {}
        for source, target in rows:
            parts = source.split(".")
            if any("{}" in part and part != "{}" for part in parts):
                raise ValueError(f"{{}} must stand alone between dots, got {source!r}")
            for other in seen.setdefault(len(parts), []):
                if all(map(_meet, parts, other)):
                    raise ValueError(f"{source!r} and {'.'.join(other)!r} could be the same name")
            seen[len(parts)].append(parts)
            pattern = re.compile(r"\.".join(_NUMBER if part == "{}" else re.escape(part) for part in parts))
            self._rows.setdefault(len(parts), []).append((pattern, target))

    def translate(self, name: str) -> str | None:
        for pattern, target in self._rows.get(name.count(".") + 1, ()):
            match = pattern.fullmatch(name)
            if match:
                return target.format(*match.groups())
        return None


def _meet(one: str, other: str) -> bool:
    """Return whether one part of a name could match both patterns."""
    if one == other:
        return True
    literal = other if one == "{}" else one if other == "{}" else None
    return literal is not None and re.fullmatch(_NUMBER, literal) is not None


def canonical_names(tensors: Mapping[str, _T]) -> dict[str, _T]:
    """Undo what wrappers and age do to names, before a key table is asked.

    A prefix of :data:`WRAPPER_PREFIXES` is taken off when every name has it, again and again;
    :data:`LEGACY_SUFFIXES` are renamed.

    Args:
        tensors: Tensors, or what is known of them, as named in the files.

    Raises:
        CheckpointError: If two tensors would get one name.
    """
    names = {name: name for name in tensors}
    while names:
        prefix = next((p for p in WRAPPER_PREFIXES if all(name.startswith(p) for name in names.values())), None)
        if prefix is None:
            break
        names = {old: name.removeprefix(prefix) for old, name in names.items()}
    for suffix, modern in LEGACY_SUFFIXES:
        names = {
            old: name.removesuffix(suffix) + modern if name.endswith(suffix) else name for old, name in names.items()
        }
    result: dict[str, _T] = {}
    for old, name in names.items():
        if name in result:
            raise CheckpointError(f"two tensors are called {name!r} once {old!r} is renamed", field=old)
        result[name] = tensors[old]
    return result
