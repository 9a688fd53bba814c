"""Names of a checkpoint's tensors against the parameters of a model, and what is said of those that do not match.

Knows neither files nor layers; what tensors hold does not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import Family, Rows
from sparse_encoder.checkpoint import CheckpointError, KeyTable, canonical_names

_MOST_NAMES = 20
_TASK_HEADS = (
    r"(pre_)?classifier\.((dense|out_proj)\.)?(weight|bias)",
    r"score\.(weight|bias)",
    r"qa_outputs\.(weight|bias)",
    r"sequence_summary\.summary\.(weight|bias)",
)
"""Names, of whatever family, of heads that a backbone was fine-tuned with: for classes, labels, answers, choices."""
_BUFFERS = re.compile(r"(?:.*\.)?(?:position_ids|token_type_ids|inv_freq)")
"""Leftovers that no loader counts as unexpected."""

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Name, shape in the files, shape in the model."""


class LoadingInfo(TypedDict):
    """What became of a checkpoint, in the words of transformers; every list is sorted."""

    missing_keys: list[str]
    unexpected_keys: list[str]
    mismatched_keys: list[Mismatch]
    error_msgs: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What became of the tensors of a checkpoint, by their names in the files."""

    used: tuple[str, ...]
    ignored: tuple[str, ...]
    """Left aside because the family's list allows it."""
    missing: tuple[str, ...] = ()
    """Parameters that no tensor was found for, and that have new values; a strict load has none."""
    unexpected: tuple[str, ...] = ()
    """Tensors without a place, left aside; a strict load has none."""
    mismatched: tuple[Mismatch, ...] = ()
    """Tensors of another shape, whose parameters have new values; only with ``ignore_mismatched_sizes``."""
    second_names: frozenset[str] = frozenset()
    """Those of the ignored that are a used one under another name."""

    def info(self) -> LoadingInfo:
        """Return the report in the words of transformers, which calls unexpected what is left aside."""
        left = (name for name in self.ignored if name not in self.second_names and not _BUFFERS.fullmatch(name))
        return LoadingInfo(
            missing_keys=sorted(self.missing),
            unexpected_keys=sorted({*self.unexpected, *left}),
            mismatched_keys=sorted(self.mismatched),
            error_msgs=[],
        )


class Names(NamedTuple):
    """Which names a kind of model knows."""

    family: Family
    own: KeyTable
    """Of the tensors it has."""
    left_aside: KeyTable
    """Of heads it does not have, which may be there."""
    has_second_bias: bool
    """Whether the family's second name of the decoder's bias means one of its tensors."""
    may_be_ignored: re.Pattern[str]
    """Other names that may be there; if the model has no head, those of heads for tasks among them."""
    transposed: KeyTable
    """Of the tensors that files hold with rows and columns changed about."""

    def is_transposed(self, ours: str) -> bool:
        """Return whether files hold a tensor of ours with rows and columns changed about."""
        return self.transposed.theirs_or_none(ours) is not None


def names_of(family: Family, config: TransformerConfig, head_rows: Rows) -> Names:
    """Return the names a model knows.

    Args:
        family: Whose names they are.
        config: Of the model.
        head_rows: Names of the head that the model has; empty for none.
    """
    others = tuple(row for row in family.head_rows if row not in head_rows)
    own = KeyTable(family.backbone_rows(config) + head_rows)
    ignored = family.ignored if head_rows else (*family.ignored, *_TASK_HEADS)
    if family.decoder_names is not None and config.decoder is None:
        ignored = (*ignored, family.decoder_names)
    may_be_ignored = re.compile("|".join(ignored) or r"(?!)")
    transposed = KeyTable([row for row in own.rows if row[1] in family.transposed])
    return Names(family, own, KeyTable(others), head_rows == family.head_rows, may_be_ignored, transposed)


@dataclass(slots=True)
class Naming:
    """The names of a checkpoint under ours, and what was left aside."""

    origins: dict[str, str] = field(default_factory=dict)
    """Our names to theirs, wrappers and age undone."""
    stored: dict[str, str] = field(default_factory=dict)
    """Theirs to those in the files."""
    ignored: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    second_bias: str | None = None
    """A second name of the decoder's bias that is there."""
    word_copies: list[str] = field(default_factory=list)
    """Second names of the word embeddings that are there."""
    second_names: set[str] = field(default_factory=set)


def to_our_names(
    stored: Iterable[str], names: Names, *, key_mapping: Mapping[str, str] | None = None, path: Path | None = None
) -> Naming:
    """Rename the tensors of a checkpoint.

    Wrappers and age are undone, then ``key_mapping`` is applied, then the family's table is asked. A backbone saved
    alone has no prefix before its names, one saved with a head has; both are understood, and so are the family's
    other prefixes.

    Args:
        stored: Names in the files.
        names: What the model knows.
        key_mapping: Patterns and what they become; the first that is found in a name changes it.
        path: Where they came from, for errors.

    Raises:
        ValueError: If a pattern of ``key_mapping`` is none.
        CheckpointError: If two tensors have the same place.
    """
    family = names.family
    naming = Naming(stored=_mapped(canonical_names({name: name for name in stored}), key_mapping, path))
    for name in naming.stored:
        candidates = family.spellings(name)
        ours = next((found for found in map(names.own.ours, candidates) if found is not None), None)
        if name == family.decoder_bias_copy and names.has_second_bias:
            naming.second_bias = name
        elif any(candidate in family.word_copies for candidate in candidates):
            naming.word_copies.append(name)
        elif ours is None:
            known = name == family.decoder_bias_copy or any(names.left_aside.ours(each) for each in candidates)
            allowed = known or any(names.may_be_ignored.fullmatch(candidate) for candidate in candidates)
            (naming.ignored if allowed else naming.unexpected).append(name)
        elif ours in naming.origins:
            raise CheckpointError(f"{naming.origins[ours]!r} and {name!r} are one parameter stored twice", path=path)
        else:
            naming.origins[ours] = name
    return naming


def _mapped(names: dict[str, str], key_mapping: Mapping[str, str] | None, path: Path | None) -> dict[str, str]:
    """Apply a caller's patterns to names."""
    if not key_mapping:
        return names
    patterns = compiled(key_mapping)
    result: dict[str, str] = {}
    for name, stored in names.items():
        renamed = next((pattern.sub(by, name) for pattern, by in patterns if pattern.search(name)), name)
        if renamed in result:
            raise CheckpointError(f"two tensors are called {renamed!r} once key_mapping is applied", path=path)
        result[renamed] = stored
    return result


def compiled(key_mapping: Mapping[str, str]) -> list[tuple[re.Pattern[str], str]]:
    """Return a caller's patterns, ready for use.

    Raises:
        ValueError: If one is none, or becomes no text.
    """
    try:
        patterns = [(re.compile(pattern), replacement) for pattern, replacement in key_mapping.items()]
    except (re.error, TypeError, AttributeError) as reason:
        raise ValueError(f"key_mapping must map regular expressions to replacements: {reason}") from reason
    if wrong := [replacement for _, replacement in patterns if not isinstance(replacement, str)]:
        raise ValueError(f"key_mapping must map regular expressions to replacements: {wrong[0]!r:.100} is no text")
    return patterns


def counted(items: list[str], what: str) -> str:
    """Return how many there are of something, in words."""
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Return names in one line, sorted; a long list is cut."""
    names = sorted(names)
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
