"""Tables and coloured texts of ``sparse-encoder ner``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PARTS = ("precision", "recall", "f1")
_COLOURS = (46, 44, 45, 42, 43, 41, 106, 104, 105, 102)
"""Backgrounds of a terminal, one for each type in turn."""
_RESET = "\x1b[0m"


def score_table(report: Mapping[str, Any]) -> str:
    """Return the scores of each type and overall as a Markdown table.

    Args:
        report: As ``entity_scores`` returns it; or ``overall_accuracy`` alone, then there is no table.
    """
    told = f"words right: {report['overall_accuracy']:.3f}"
    if set(report) == {"overall_accuracy"}:
        return told
    rows: list[tuple[str, ...]] = [
        ("", "precision", "recall", "F1", "entities"),
        ("---", "---:", "---:", "---:", "---:"),
    ]
    kinds = {name: values for name, values in report.items() if isinstance(values, dict)}
    for name, values in sorted(kinds.items()):
        rows.append((name, *(f"{values[part]:.3f}" for part in PARTS), str(values["number"])))
    total = sum(values["number"] for values in kinds.values())
    rows.append(("all", *(f"{report[f'overall_{part}']:.3f}" for part in PARTS), str(total)))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table}\n\n{told}"


class Painter:
    """Mark entities in texts, each type in its colour."""

    def __init__(self) -> None:
        self._colours: dict[str, int] = {}

    def paint(self, text: str, entities: Sequence[Mapping[str, Any]]) -> str:
        """Return a text with its entities on coloured ground, each with its type behind it.

        Args:
            text: The text.
            entities: As the pipeline returns them, whole or token by token.
        """
        parts, place = [], 0
        for entity in sorted(entities, key=lambda each: int(each["start"])):
            if entity["start"] < place:
                continue  # within the one before
            kind = str(entity["entity_group"] if "entity_group" in entity else entity["entity"])
            colour = self._colours.setdefault(kind, _COLOURS[len(self._colours) % len(_COLOURS)])
            parts.append(printable(text[place : entity["start"]]))
            found = printable(text[entity["start"] : entity["end"]])
            parts.append(f"\x1b[30;{colour}m{found}\x1b[2m {printable(kind)}{_RESET}")
            place = entity["end"]
        parts.append(printable(text[place:]))
        return "".join(parts)


def printable(text: str) -> str:
    """Return a text whose control characters a terminal does not obey."""
    return "".join(sign if sign.isprintable() or sign in "\t" else "\ufffd" for sign in text)
