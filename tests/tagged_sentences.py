"""Tagged sentences of persons, places and companies, written for the tests; names of one part are not in another."""

from __future__ import annotations

import random
from collections.abc import Sequence

FIRST = [
    "Ada", "Alan", "Barbara", "Carlos", "Dennis", "Edith", "Fatima", "Grace", "Hedy", "Ingrid", "Joan", "Karl",
    "Linus", "Mary", "Niklaus", "Olga", "Petra", "Quentin", "Radia", "Sofia", "Tim", "Ursula", "Vint", "Wangari",
    "Xavier", "Yukihiro", "Zoe", "Amir", "Bjarne", "Chiara",
]  # fmt: skip
LAST = [
    "Lovelace", "Turing", "Liskov", "Santana", "Ritchie", "Clarke", "Khan", "Hopper", "Lamarr", "Berg", "Clarke",
    "Popper", "Torvalds", "Shelley", "Wirth", "Ivanova", "Novak", "Moore", "Perlman", "Rossi", "Lee", "Franklin",
    "Cerf", "Maathai", "Silva", "Matsumoto", "Quinn", "Nassar", "Stroustrup", "Bianchi",
]  # fmt: skip
PLACES = [
    "Berlin", "New York", "Paris", "Buenos Aires", "Tokyo", "Lagos", "Oslo", "San Francisco", "Cairo", "Lima",
    "Vienna", "Cape Town", "Madrid", "Hanoi", "Nairobi", "Mexico City", "Prague", "Dublin", "Kuala Lumpur", "Zurich",
    "London", "Rome", "Boston", "Chicago", "Los Angeles", "Moscow", "Beijing", "Shanghai", "Mumbai", "Delhi", "Seoul",
    "Bangkok", "Jakarta", "Manila", "Sydney", "Melbourne", "Toronto", "Montreal", "Havana", "Bogota", "Santiago",
    "Athens", "Lisbon", "Warsaw", "Budapest", "Stockholm", "Helsinki", "Istanbul", "Tehran", "Baghdad", "Kiev",
    "Minsk", "Brussels", "Amsterdam", "Hamburg", "Munich", "Geneva", "Milan", "Naples", "Barcelona",
]  # fmt: skip
STEMS = [
    "Acme", "Nova", "Global", "Pioneer", "Sunrise", "Atlas", "Vertex", "Orion", "Delta", "Summit", "Harbor", "Falcon",
    "Quantum", "Maple", "Crystal", "Northern", "Pacific", "United", "Imperial", "Golden", "Silver", "Eastern",
    "Central", "Royal", "Liberty", "Phoenix", "Titan", "Apex", "Beacon", "Cascade",
]  # fmt: skip
KINDS = ["Corp", "Industries", "Bank", "Airlines", "Motors", "Group"]
TEMPLATES = [
    "{PER} works for {ORG} in {LOC} .",
    "Shares of {ORG} fell after {PER} resigned on Monday .",
    "{LOC} is the home of {ORG} .",
    "Last year {PER} moved from {LOC} to {LOC} .",
    "The minister met {PER} and {PER} in {LOC} .",
    "{ORG} said it would buy {ORG} .",
    "It rained all day in {LOC} , and nobody came .",
    '" We are happy " , said {PER} , who leads {ORG} .',
    "Nothing of note happened on Tuesday .",
    "A spokesman for {ORG} declined to comment .",
]


def tagged_sentences(number: int, *, seed: int, part: int) -> tuple[list[list[str]], list[list[str]]]:
    """Write sentences with IOB2 tags.

    Args:
        number: How many.
        seed: Of the draws.
        part: 0 or 1: each has half of the names.
    """
    draw = random.Random(seed)
    words, tags = [], []
    for _ in range(number):
        sentence: list[str] = []
        labels: list[str] = []
        for word in draw.choice(TEMPLATES).split():
            if not word.startswith("{"):
                sentence.append(word)
                labels.append("O")
                continue
            kind = word[1:-1]
            name = _name(kind, draw, part)
            sentence += name
            labels += [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)]
        words.append(sentence)
        tags.append(labels)
    return words, tags


def _name(kind: str, draw: random.Random, part: int) -> list[str]:
    def one(names: Sequence[str]) -> str:
        return draw.choice(names[part::2])

    if kind == "PER":
        return [one(FIRST), one(LAST)] if draw.random() < 0.7 else [one(LAST)]
    return one(PLACES).split() if kind == "LOC" else [one(STEMS), draw.choice(KINDS)]
