"""Named tensors of a checkpoint against the parameters of a model: renamed, tied, and complete, or refused.

Knows neither files nor layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import HEAD_BIAS, HEAD_WEIGHT, WORD_EMBEDDINGS, Family
from sparse_encoder.checkpoint import CheckpointError, KeyTable, canonical_names

_MOST_NAMES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What became of the tensors of a checkpoint, by their names in the files."""

    used: tuple[str, ...]
    ignored: tuple[str, ...]
    """Left aside because the family's list allows it."""
    missing: tuple[str, ...] = ()
    """Parameters that no tensor was found for; a strict load has none."""


@dataclass(frozen=True, slots=True)
class NamedTensors:
    """Tensors under our names, and what became of the others."""

    tensors: dict[str, Tensor]
    origins: dict[str, str]
    """Our name to the name in the files."""
    report: LoadReport


def key_table(family: Family, config: TransformerConfig) -> KeyTable:
    """Return the two-way table of a family's names, backbone and head."""
    return KeyTable(family.backbone_rows(config) + family.head_rows)


def to_our_names(
    stored: Mapping[str, Tensor], family: Family, config: TransformerConfig, *, with_head: bool, path: Path | None
) -> NamedTensors:
    """Rename the tensors of a checkpoint.

    A backbone saved alone has no prefix before its names, one saved with a head has; both are understood.

    Args:
        stored: Tensors as named in the files.
        family: Whose names they are.
        config: Of the model they are for.
        with_head: Whether the head's tensors are wanted; otherwise they may be there and are left aside.
        path: Where they came from, for errors.

    Raises:
        CheckpointError: If a tensor has no place and is not on the family's list, or two have the same place.
    """
    table = key_table(family, config)
    ignored_names = re.compile("|".join(family.ignored) or r"(?!)")
    tensors: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    ignored: list[str] = []
    unexpected: list[str] = []
    bias_copies: list[str] = []
    canonical = canonical_names(stored)
    for name in canonical:
        candidates = (name, family.base_prefix + name)
        ours = next((found for found in map(table.ours, candidates) if found is not None), None)
        if name == family.decoder_bias_copy:
            bias_copies.append(name)
        elif ours is None:
            allowed = any(ignored_names.fullmatch(candidate) for candidate in candidates)
            (ignored if allowed else unexpected).append(name)
        elif ours.startswith("head.") and not with_head:
            ignored.append(name)
        elif ours in tensors:
            raise CheckpointError(f"{origins[ours]!r} and {name!r} are stored, but are one parameter", path=path)
        else:
            tensors[ours], origins[ours] = canonical[name], name
    if unexpected:
        raise CheckpointError(f"{_count(unexpected, 'unexpected tensor')}: {_listed(unexpected)}", path=path)
    for name in bias_copies:
        _settle_bias_copy(name, canonical[name], tensors, origins, ignored, with_head=with_head, path=path)
    return NamedTensors(tensors, origins, LoadReport(used=tuple(sorted(origins.values())), ignored=tuple(ignored)))


def _settle_bias_copy(
    name: str,
    copy: Tensor,
    tensors: dict[str, Tensor],
    origins: dict[str, str],
    ignored: list[str],
    *,
    with_head: bool,
    path: Path | None,
) -> None:
    """Take the decoder's bias from its second name if the first is missing; else see that they agree."""
    if not with_head:
        ignored.append(name)
    elif HEAD_BIAS not in tensors:
        tensors[HEAD_BIAS], origins[HEAD_BIAS] = copy, name
    elif torch.equal(tensors[HEAD_BIAS], copy):
        ignored.append(name)
    else:
        raise CheckpointError(f"{origins[HEAD_BIAS]!r} and {name!r} differ, but are one parameter", path=path)


def settle_tie(named: NamedTensors, config: TransformerConfig) -> bool:
    """Decide whether decoder and word embeddings are one, and make the tensors say so.

    They are if the config says so and the files do not contradict: no decoder is stored, only the decoder is stored,
    or both are and agree. A stored decoder that differs is kept as its own parameter.

    Args:
        named: Of a model with a head; a tensor may be given its second name.
        config: Says what the files should hold.
    """
    words, decoder = named.tensors.get(WORD_EMBEDDINGS), named.tensors.get(HEAD_WEIGHT)
    if not config.tie_word_embeddings:
        return False
    if words is not None and decoder is not None:
        return torch.equal(words, decoder)
    if words is None and decoder is not None:
        named.tensors[WORD_EMBEDDINGS] = decoder
    elif words is not None:
        named.tensors[HEAD_WEIGHT] = words
    return True


def check_complete(
    named: NamedTensors, wanted: Mapping[str, Tensor], table: KeyTable, *, what: str, path: Path | None
) -> None:
    """Compare what is there with what a model needs.

    Args:
        named: Tensors under our names.
        wanted: The model's own parameters, of any content.
        table: To name what is missing as the files would.
        what: The model, for errors.
        path: Where the tensors came from, for errors.

    Raises:
        CheckpointError: If a parameter is missing, without a place, or of another shape or kind; all of them listed.
    """
    missing = [table.theirs(name) for name in wanted if name not in named.tensors]
    unexpected = [named.origins[name] for name in named.tensors if name not in wanted and name in named.origins]
    problems = []
    if missing:
        problems.append(f"{_count(missing, 'missing tensor')}: {_listed(missing)}")
    if unexpected:
        problems.append(f"{_count(unexpected, 'unexpected tensor')}: {_listed(unexpected)}")
    both = [name for name in wanted if name in named.tensors and name in named.origins]
    shapes = [
        f"{named.origins[name]} is {tuple(named.tensors[name].shape)}, the config says {tuple(wanted[name].shape)}"
        for name in both
        if named.tensors[name].shape != wanted[name].shape
    ]
    if shapes:
        problems.append(f"{_count(shapes, 'tensor')} of another shape: {_listed(shapes)}")
    kinds = [
        f"{named.origins[name]} is {named.tensors[name].dtype}"
        for name in both
        if not named.tensors[name].is_floating_point()
    ]
    if kinds:
        problems.append(f"{_count(kinds, 'tensor')} not of floating point: {_listed(kinds)}")
    if problems:
        raise CheckpointError(f"the weights do not fit {what}; {'; '.join(problems)}", path=path)


def _count(items: list[str], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
