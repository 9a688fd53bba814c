"""Tags of words, and the entities they stand for, in the schemes in use. Knows no tokens and no model.

A tag is ``O`` or a prefix, a dash and a type: ``B-GPE-LOC`` begins an entity of type ``GPE-LOC``. What the prefixes
mean is the scheme's:

=====  ==========================================================================
IOB1   ``I`` is inside; ``B`` begins an entity only where one of its type just ended
IOB2   ``B`` begins every entity, ``I`` goes on
IOBES  as IOB2, but ``E`` ends an entity of several words and ``S`` is one of one
BILOU  IOBES with ``L`` for ``E`` and ``U`` for ``S``
=====  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
ALIASES = {"BIO": "IOB2", "BIOES": "IOBES", "IOB": "IOB2", "BILUO": "BILOU"} | {s: s for s in SCHEMES}
"""Names of schemes, among them those other libraries use."""
OUTSIDE = "O"
_PREFIXES = {"IOB1": "IB", "IOB2": "IB", "IOBES": "IBES", "BILOU": "IBLU"}


class Entity(NamedTuple):
    """Words that are one thing.

    Attributes:
        type: What it is.
        start: Number of its first word.
        end: Number behind its last word.
    """

    type: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """Return prefix and type; ``("O", "")`` for a word outside, and no prefix for a tag that has none.

    Only the first dash counts, and only behind a prefix of one of the schemes: the type of ``B-GPE-LOC`` is
    ``GPE-LOC``, and so is that of ``GPE-LOC``.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, rest = tag.partition("-")
    return (prefix, rest) if dash and len(prefix) == 1 and prefix in "BIESLU" else ("", tag)


def has_prefix(tag: str) -> bool:
    """Return whether a tag is one of an entity: a prefix of one of the schemes, a dash and a type."""
    prefix, kind = split_tag(tag)
    return prefix not in (OUTSIDE, "") and bool(kind)


def scheme_named(name: str) -> Scheme:
    """Return the scheme of a name, in whatever case.

    Raises:
        ValueError: If there is none of that name.
    """
    for scheme in SCHEMES:
        if ALIASES.get(name.upper()) == scheme:
            return scheme
    raise ValueError(f"unknown scheme {name!r}; choose from {sorted(ALIASES)}")


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Find out which scheme some sentences are tagged by.

    Args:
        sentences: Tags of each sentence. Where they fit two schemes (no entity, or only such of one word in IOB), the
            first of IOB2, IOBES, BILOU, IOB1 is returned.

    Raises:
        ValueError: If they fit no scheme; the message says what is wrong with them as IOB2, with the sentence.
    """
    rows = [list(tags) for tags in sentences]
    reasons: dict[Scheme, str] = {}
    candidates: tuple[Scheme, ...] = ("IOB2", "IOBES", "BILOU", "IOB1")
    for scheme in candidates:
        try:
            for number, tags in enumerate(rows):
                check_tags(tags, scheme, sentence=number)
        except ValueError as reason:
            reasons[scheme] = str(reason)
        else:
            return scheme
    prefixes = {split_tag(tag)[0] for tags in rows for tag in tags}
    likely: Scheme = "BILOU" if prefixes & {"L", "U"} else "IOBES" if prefixes & {"E", "S"} else "IOB2"
    raise ValueError(f"the tags fit none of {sorted(reasons)}; as {likely}: {reasons[likely]}")


def scheme_of_labels(names: Iterable[str]) -> Scheme | None:
    """Return the scheme of a model's labels by their prefixes: IOB2, IOBES or BILOU; None if not all have one.

    A label ``E-F`` ends an entity only where all others have a prefix too; else it is a type of that name.
    """
    prefixes = {split_tag(name)[0] for name in names} - {OUTSIDE}
    if prefixes <= {"B", "I"}:
        return "IOB2"
    if prefixes <= set(_PREFIXES["IOBES"]):
        return "IOBES"
    return "BILOU" if prefixes <= set(_PREFIXES["BILOU"]) else None


def check_tags(tags: Sequence[str], scheme: str, *, sentence: int | None = None) -> None:
    """Check that tags are a sentence of a scheme.

    Args:
        tags: Tags of the words of one sentence.
        scheme: A name in :data:`ALIASES`.
        sentence: Its number, for the error.

    Raises:
        ValueError: If a tag is unknown to the scheme or cannot stand where it stands; it names the word.
    """
    name = scheme_named(scheme)
    for place, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        if prefix != OUTSIDE and (prefix == "" or prefix not in _PREFIXES[name] or not kind):
            known = ", ".join(f"{letter}-TYPE" for letter in sorted(_PREFIXES[name]))
            raise ValueError(f"{_where(sentence, place)}unknown tag {tag!r} in {name}; choose O or one of {known}")
        before = split_tag(tags[place - 1]) if place else (OUTSIDE, "")
        wrong = _rule_broken(name, before, (prefix, kind))
        if wrong:
            raise ValueError(f"{_where(sentence, place)}{tag!r} {wrong} in {name}, got {_shown(tags, place)}")
    if tags:
        wrong = _rule_broken(name, split_tag(tags[-1]), (OUTSIDE, ""))
        if wrong:
            raise ValueError(f"{_where(sentence, len(tags))}the end {wrong} in {name}, got {_shown(tags, len(tags))}")


def _where(sentence: int | None, place: int) -> str:
    return f"word {place}: " if sentence is None else f"sentence {sentence}, word {place}: "


def _shown(tags: Sequence[str], place: int) -> str:
    return repr(list(tags[max(0, place - 2) : place + 1]))


def _rule_broken(scheme: Scheme, before: tuple[str, str], now: tuple[str, str]) -> str | None:
    """Say which rule two neighbouring tags break."""
    (old, old_kind), (new, kind) = before, now
    if scheme == "IOB1":
        fits = new != "B" or (old in ("I", "B") and old_kind == kind)
        return None if fits else "must follow an entity of its type"
    if scheme == "IOB2":
        return (
            None if new != "I" or (old in ("I", "B") and old_kind == kind) else "needs B- or I- of its type before it"
        )
    goes_on = old in ("B", "I")
    if goes_on != (new in ("I", "E", "L")):
        return "must end the entity before it" if goes_on else "needs B- or I- of its type before it"
    return "needs B- or I- of its type before it" if goes_on and old_kind != kind else None


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Read the entities of one sentence as the CoNLL script does: whatever the scheme, and whether or not it is kept.

    ``B``, ``S`` and ``U`` begin an entity; so does any tag behind ``O``, another type, or ``E``, ``L``, ``S``, ``U``.
    """
    found: list[Entity] = []
    begin: int | None = None
    before = (OUTSIDE, "")
    for place, tag in enumerate([*tags, OUTSIDE]):
        now = split_tag(tag)
        ends = now[0] in ("B", "S", "U", OUTSIDE) or now[1] != before[1] or before[0] in ("E", "L", "S", "U")
        if begin is not None and ends:
            found.append(Entity(before[1], begin, place))
            begin = None
        if begin is None and now[0] != OUTSIDE:
            begin = place
        before = now
    return found


def write_tags(entities: Iterable[Entity], num_words: int, *, scheme: str = "IOB2") -> list[str]:
    """Tag the words of one sentence.

    Args:
        entities: They may not overlap.
        num_words: Words of the sentence.
        scheme: A name in :data:`ALIASES`.

    Raises:
        ValueError: If two entities overlap, or one is empty or ends beyond the sentence.
    """
    name = scheme_named(scheme)
    tags = [OUTSIDE] * num_words
    last = Entity("", 0, 0)
    for entity in sorted(entities, key=lambda each: each.start):
        if not last.end <= entity.start < entity.end <= num_words:
            raise ValueError(
                f"entities must be apart and within the {num_words} words, got {tuple(last)} and {tuple(entity)}"
            )
        adjoins = entity.start == last.end and entity.type == last.type
        for place, prefix in enumerate(_prefixes(name, entity.end - entity.start, adjoins), start=entity.start):
            tags[place] = f"{prefix}-{entity.type}"
        last = entity
    return tags


def _prefixes(scheme: Scheme, length: int, adjoins: bool) -> Iterator[str]:
    """Yield the prefixes of an entity's words."""
    end, single = {"IOBES": ("E", "S"), "BILOU": ("L", "U")}.get(scheme, ("I", ""))
    if length == 1 and single:
        yield single
        return
    yield "I" if scheme == "IOB1" and not adjoins else "B"
    for place in range(1, length):
        yield end if place == length - 1 else "I"


def convert_tags(tags: Sequence[str], target: str, *, source: str | None = None) -> list[str]:
    """Write the tags of one sentence in another scheme.

    Args:
        tags: Of its words.
        target: A name in :data:`ALIASES`.
        source: The scheme they are in, which they must keep; None reads them as :func:`find_entities` does.

    Raises:
        ValueError: If a scheme is unknown, the tags do not keep theirs, or one has no prefix (a part of speech).
    """
    if source is not None:
        check_tags(tags, source)
    for place, tag in enumerate(tags):
        if tag != OUTSIDE and not has_prefix(tag):
            raise ValueError(
                f"word {place}: only tags of entities have a scheme, {OUTSIDE} or a prefix, a dash and a type as in "
                f"B-{tag or 'TYPE'}, got {tag!r}"
            )
    return write_tags(find_entities(tags), len(tags), scheme=target)
