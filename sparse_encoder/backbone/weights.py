"""Named tensors of a checkpoint against the parameters of a model: renamed, tied, and complete, or refused.

Knows neither files nor layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class NamedTensors:
    """Tensors under our names, where they came from, and what was left aside."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """Our names to those in the files."""
    ignored: list[str] = field(default_factory=list)

    def put(self, ours: str, theirs: str, tensor: Tensor) -> None:
        """Take a tensor under our name."""
        self.tensors[ours], self.origins[ours] = tensor, theirs

    def report(self) -> LoadReport:
        """Say what became of the tensors."""
        return LoadReport(used=tuple(sorted(self.origins.values())), ignored=tuple(sorted(self.ignored)))


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
    may_be_ignored = re.compile("|".join(family.ignored) or r"(?!)")
    named = NamedTensors()
    unexpected: list[str] = []
    copy: tuple[str, Tensor] | None = None
    for name, tensor in canonical_names(stored).items():
        candidates = (name, family.base_prefix + name)
        ours = next((found for found in map(table.ours, candidates) if found is not None), None)
        if name == family.decoder_bias_copy and with_head:
            copy = (name, tensor)
        elif name == family.decoder_bias_copy or (ours is not None and ours.startswith("head.") and not with_head):
            named.ignored.append(name)
        elif ours is None:
            allowed = any(may_be_ignored.fullmatch(candidate) for candidate in candidates)
            (named.ignored if allowed else unexpected).append(name)
        elif ours in named.tensors:
            raise CheckpointError(f"{named.origins[ours]!r} and {name!r} are one parameter stored twice", path=path)
        else:
            named.put(ours, name, tensor)
    if unexpected:
        raise CheckpointError(f"{_count(unexpected, 'unexpected tensor')}: {_listed(unexpected)}", path=path)
    if copy is not None:
        _settle_bias(named, *copy, config=config, path=path)
    return named


def _settle_bias(named: NamedTensors, name: str, copy: Tensor, *, config: TransformerConfig, path: Path | None) -> None:
    """Choose between the decoder's bias and its copy under a second name.

    One of them, or both if they agree, is the bias. If they differ, a decoder of its own has used the copy, which
    stands beside its weight; a tied one is not known to have used either.
    """
    bias = named.tensors.get(HEAD_BIAS)
    if bias is not None and torch.equal(bias, copy):
        named.ignored.append(name)
        return
    if bias is not None and config.tie_word_embeddings:
        raise CheckpointError(f"{named.origins[HEAD_BIAS]!r} and {name!r} are one parameter and differ", path=path)
    if bias is not None:
        named.ignored.append(named.origins[HEAD_BIAS])
    named.put(HEAD_BIAS, name, copy)


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
