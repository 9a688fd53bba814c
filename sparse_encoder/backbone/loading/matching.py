"""A checkpoint against a model: which parameter gets which tensor, and what does not match."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sparse_encoder.backbone.families.family import HEAD_BIAS, WORD_EMBEDDINGS
from sparse_encoder.backbone.loading.options import LoadOptions
from sparse_encoder.backbone.loading.sources import PeekedSource, TensorSource, TransposedSource
from sparse_encoder.backbone.weights import LoadReport, Mismatch, Names, Naming, counted, listed, to_our_names
from sparse_encoder.checkpoint import CheckpointError

logger = logging.getLogger(__name__)

Ties = Mapping[str, str]
"""Names of parameters that are another one, to the names of those."""


@dataclass(slots=True)
class Match:
    """Where every tensor of a checkpoint goes, by our names."""

    places: dict[str, str] = field(default_factory=dict)
    """Parameters to names in the files."""
    missing: list[str] = field(default_factory=list)
    """Parameters without a tensor, which need new values."""
    zeros: list[str] = field(default_factory=list)
    """Parameters without a tensor, which the family leaves out because they are zero."""
    mismatched: dict[str, Mismatch] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def as_ours(
    source: TensorSource, names: Names, *, key_mapping: Mapping[str, str] | None = None, path: Path | None = None
) -> TensorSource:
    """Return a source whose matrices lie as the model's do, whichever way the family's files hold them.

    Args:
        source: The files.
        names: What the model knows.
        key_mapping: Of the names in the files.
        path: Where they came from, for errors.
    """
    if not names.transposed.rows:
        return source
    naming = to_our_names(source.tensors, names, key_mapping=key_mapping, path=path)
    turned = [naming.stored[theirs] for ours, theirs in naming.origins.items() if names.is_transposed(ours)]
    return TransposedSource(source, turned)


def settle_bias(naming: Naming, source: PeekedSource, *, tied: bool, path: Path | None) -> None:
    """Choose between the decoder's bias and its copy under a second name.

    One of them, or both if they agree, is the bias. If they differ, a decoder of its own has used the copy, which
    stands beside its weight; a tied one is not known to have used either.

    Args:
        naming: Of a model with a decoder; it is changed.
        source: Of the tensors.
        tied: Whether the decoder is the word embeddings.
        path: Where the tensors came from, for errors.

    Raises:
        CheckpointError: If the two differ in a tied model.
    """
    copy, bias = naming.second_bias, naming.origins.get(HEAD_BIAS)
    if copy is None:
        return
    if bias is not None and torch.equal(*source.peek(naming.stored[bias], naming.stored[copy])):
        naming.ignored.append(copy)
        naming.second_names.add(copy)
        return
    if bias is not None and tied:
        raise CheckpointError(f"{bias!r} and {copy!r} are one parameter and differ", path=path)
    if bias is not None:
        naming.ignored.append(bias)
        naming.second_names.add(bias)
    naming.origins[HEAD_BIAS] = copy


def settle_words(naming: Naming, source: PeekedSource, path: Path | None) -> None:
    """Take the word embeddings once, under whichever of their names they are stored.

    Args:
        naming: Of the model; it is changed.
        source: Of the tensors.
        path: Where the tensors came from, for errors.

    Raises:
        CheckpointError: If two of them differ: both stacks of a model share one table here.
    """
    for copy in naming.word_copies:
        words = naming.origins.setdefault(WORD_EMBEDDINGS, copy)
        if words == copy:
            continue
        if not torch.equal(*source.peek(naming.stored[words], naming.stored[copy])):
            raise CheckpointError(f"{words!r} and {copy!r} are one table of words and differ", path=path)
        naming.ignored.append(copy)
        naming.second_names.add(copy)


def settle_tie(naming: Naming, ties: Ties, source: PeekedSource, path: Path | None) -> bool:
    """Decide whether parameters that the config ties are tied, and name the tensor both get.

    They are if the files do not contradict: only one of them is stored, or both are and agree. One that is stored and
    differs is kept as its own parameter.

    Args:
        naming: Of the model; it is changed.
        ties: What the config says is tied.
        source: Of the tensors.
        path: Where the tensors came from, for the warning.
    """
    for target, origin in ties.items():
        stored = [naming.stored[naming.origins[name]] for name in (target, origin) if name in naming.origins]
        if len(stored) == 2 and not torch.equal(*source.peek(*stored)):
            logger.warning(
                "%s: %s and %s differ, though the config ties them: they are kept apart",
                path or "the given tensors",
                naming.origins[target],
                naming.origins[origin],
            )
            return False
    for target, origin in ties.items():
        if origin not in naming.origins and target in naming.origins:
            naming.origins[origin] = naming.origins[target]
    return True


def match(
    naming: Naming, source: TensorSource, wanted: Mapping[str, Tensor], ties: Ties, zeros: tuple[str, ...]
) -> Match:
    """Give every parameter its tensor.

    Args:
        naming: Of the tensors.
        source: Says their types and shapes.
        wanted: The model's parameters and buffers, of any content.
        ties: Parameters that are others.
        zeros: Parameters that may be left out and are zero then.
    """
    found = Match(unexpected=list(naming.unexpected))
    turned = source.turned if isinstance(source, TransposedSource) else frozenset()
    for name, tensor in wanted.items():
        if name in ties:
            continue  # comes with the one it is
        origin = naming.origins.get(name)
        if origin is None:
            (found.zeros if name in zeros else found.missing).append(name)
            continue
        shape = source.tensors[naming.stored[origin]].shape
        if shape != tuple(tensor.shape):
            step = -1 if naming.stored[origin] in turned else 1  # shapes are told as the files have them
            found.mismatched[name] = (origin, shape[::step], tuple(tensor.shape)[::step])
        else:
            found.places[name] = naming.stored[origin]
    for target in ties:
        _match_second_name(target, ties[target], naming, source, wanted, found)
    used = {naming.stored[origin] for name, origin in naming.origins.items() if name in wanted}
    found.unexpected += [each for each in naming.origins.values() if naming.stored[each] not in used]
    return found


def _match_second_name(
    target: str, origin: str, naming: Naming, source: TensorSource, wanted: Mapping[str, Tensor], found: Match
) -> None:
    """Check the shape of a tied tensor that is stored twice, and equal."""
    name = naming.origins.get(target)
    if name is None or name == naming.origins.get(origin):
        return
    shape = source.tensors[naming.stored[name]].shape
    if shape != tuple(wanted[target].shape):
        found.mismatched.setdefault(target, (name, shape, tuple(wanted[target].shape)))


def check(
    found: Match,
    naming: Naming,
    source: TensorSource,
    names: Names,
    options: LoadOptions,
    *,
    what: str,
    path: Path | None,
) -> None:
    """Refuse what does not match, unless the caller has asked to be told instead.

    Args:
        found: What goes where.
        naming: Of the tensors.
        source: Says their types.
        names: What the model knows, to name what is missing as the files would.
        options: Whether to refuse.
        what: The model, for errors.
        path: Where the tensors came from, for errors.

    Raises:
        CheckpointError: If a parameter is missing, without a place, or of another shape or kind; all of them listed.
    """
    problems = []
    if found.missing and not options.is_lenient:
        theirs = [names.own.theirs(name) for name in found.missing]
        problems.append(f"{counted(theirs, 'missing tensor')}: {listed(theirs)}")
    if found.unexpected and not options.is_lenient:
        problems.append(f"{counted(found.unexpected, 'unexpected tensor')}: {listed(found.unexpected)}")
    if found.mismatched and not options.ignore_mismatched_sizes:
        shapes = [f"{name} is {stored}, the config says {own}" for name, stored, own in found.mismatched.values()]
        problems.append(f"{counted(shapes, 'tensor')} of another shape: {listed(shapes)}")
    kinds = [
        f"{naming.origins[name]} is {source.tensors[stored].dtype}"
        for name, stored in found.places.items()
        if not source.tensors[stored].is_floating_point
    ]
    if kinds:
        problems.append(f"{counted(kinds, 'tensor')} not of floating point: {listed(kinds)}")
    if problems:
        lenient = found.missing or found.unexpected
        raise CheckpointError(
            f"the weights do not fit {what}; {'; '.join(problems)}",
            path=path,
            hint="strict=False starts what is missing anew and leaves aside what is unexpected" if lenient else None,
        )


def report(found: Match, naming: Naming, names: Names, ties: Ties, *, prefix: str) -> LoadReport:
    """Say what became of the tensors.

    Args:
        found: What went where.
        naming: Of the tensors.
        names: What the model knows.
        ties: Parameters that are others: they are missing when those are.
        prefix: What names of a model without a head do not begin with.
    """
    missing = [*found.missing, *(target for target, origin in ties.items() if origin in found.missing)]
    theirs = [names.own.theirs(name) for name in missing]
    if HEAD_BIAS in missing and names.has_second_bias and names.family.decoder_bias_copy:
        theirs.append(names.family.decoder_bias_copy)
    fitting = [origin for name, origin in naming.origins.items() if name not in found.mismatched]
    return LoadReport(
        used=tuple(sorted({origin for origin in fitting if origin not in found.unexpected})),
        ignored=tuple(sorted(naming.ignored)),
        missing=tuple(sorted(name.removeprefix(prefix) for name in theirs)),
        unexpected=tuple(sorted(found.unexpected)),
        mismatched=tuple(sorted((name.removeprefix(prefix), *shapes) for name, *shapes in found.mismatched.values())),  # type: ignore[misc]
        second_names=frozenset(naming.second_names),
    )


def tell(made: LoadReport, *, what: str, path: Path | None) -> None:
    """Warn once of everything that did not match."""
    parts = []
    if made.missing:
        parts.append(f"{counted(list(made.missing), 'tensor')} missing: {listed(made.missing)}")
    if made.mismatched:
        names = [f"{name} {stored} for {own}" for name, stored, own in made.mismatched]
        parts.append(f"{counted(names, 'tensor')} of another shape: {listed(names)}")
    new = bool(parts)
    if made.unexpected:
        parts.append(f"{counted(list(made.unexpected), 'tensor')} left aside: {listed(made.unexpected)}")
    if parts:
        advice = "; those that are missing or of another shape have new random values: train them" if new else ""
        warnings.warn(
            f"the weights of {path or 'the given state_dict'} do not fit {what}; {'; '.join(parts)}{advice}",
            UserWarning,
            stacklevel=4,
        )
