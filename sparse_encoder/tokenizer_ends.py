"""The begin and the end token that a tokenizer puts around a text: told by its post-processor, and changed there.

So what is changed is saved in ``tokenizer.json``, and any library that reads it does the same. Encodes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer as Backend
from tokenizers import processors

from sparse_encoder.tokenizer_engine import Engine

Piece = dict[str, Any]  # {"SpecialToken": {"id": ..., "type_id": ...}} or {"Sequence": {"id": "A", "type_id": ...}}


class TokenizerEnds:
    """Switch the begin and the end token of a tokenizer; the files it is saved to say so too."""

    _engine: Engine
    backend: Backend
    bos_token: Any  # a text or None
    eos_token: Any

    @property
    def add_bos_token(self) -> bool:
        """Whether each text begins with the begin token; of a GPT-2 or Qwen it does not, of most Llamas it does.

        True and False change it, and leave whatever else is put around texts. transformers 5 would take that away too.
        """
        with self._engine.truncation(None):
            return has_end(self.backend, self.bos_token, last=False)

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        """Put the begin token before texts from now on, or no longer."""
        self._set_ends(begin=value)

    @property
    def add_eos_token(self) -> bool:
        """Whether each text ends with the end token; True and False change it as of :attr:`add_bos_token`."""
        with self._engine.truncation(None):
            return has_end(self.backend, self.eos_token, last=True)

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        """Put the end token behind texts from now on, or no longer."""
        self._set_ends(end=value)

    def _set_ends(self, *, begin: bool | None = None, end: bool | None = None) -> None:
        for name, value in (("add_bos_token", begin), ("add_eos_token", end)):
            if not isinstance(value, bool | None):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        with self._engine.truncation(None):
            set_ends(self.backend, Ends(self.bos_token, self.eos_token), begin=begin, end=end)
        self.__dict__.pop("fingerprint", None)  # computed once


_FIXED = ("RobertaProcessing", "BertProcessing")
_KEPT = ("ByteLevel", "TemplateProcessing")


class Ends(NamedTuple):
    """Tokens of which a tokenizer may put one at an end of a text."""

    bos_token: str | None
    eos_token: str | None


def has_end(backend: Backend, token: str | None, *, last: bool) -> bool:
    """Return whether a text alone gets this token at its beginning, or with ``last`` at its end."""
    number = None if token is None else backend.token_to_id(token)
    around = backend.encode("").ids
    return bool(around) and number == around[-1 if last else 0] and _is_at(backend, token, last=last)


def _is_at(backend: Backend, token: str | None, *, last: bool) -> bool:
    """Tell at which side of the text the token is, where the post-processor says so."""
    template = next((step for step in _steps(backend) if step["type"] == "TemplateProcessing"), None)
    if template is None:
        return True  # of the fixed kinds both ends have one
    pieces: list[Piece] = template["single"]
    return _names(pieces[-1 if last else 0], token)


def set_ends(backend: Backend, ends: Ends, *, begin: bool | None = None, end: bool | None = None) -> None:
    """Put the begin or the end token around each text, or take it away; each of a pair of texts has its own.

    Whatever else the tokenizer puts there stays.

    Args:
        backend: Is changed.
        ends: The tokens.
        begin: Whether a text begins with ``bos_token``; None leaves it as it is.
        end: Whether a text ends with ``eos_token``; None leaves it as it is.

    Raises:
        ValueError: If the token is not named, or the tokenizer frames its texts in a way that cannot be changed.
    """
    steps = _steps(backend)
    wanted = [
        (name, token, flag, last)
        for name, token, flag, last in (
            ("bos_token", ends.bos_token, begin, False),
            ("eos_token", ends.eos_token, end, True),
        )
        if flag is not None and flag != has_end(backend, token, last=last)
    ]
    if not wanted:
        return
    for name, token, _, _ in wanted:
        if token is None:
            raise ValueError(f"add_{name} needs a token of that name; set tokenizer.{name} first")
    if unknown := [step["type"] for step in steps if step["type"] not in _KEPT]:
        kind = "frames texts by" if unknown[0] in _FIXED else "has an unknown post-processor"
        raise ValueError(
            f"add_{wanted[0][0]} cannot be changed: the tokenizer {kind} {unknown[0]}; add_special_tokens=False in "
            "processing_kwargs leaves out whatever it puts around texts"
        )
    template = next((step for step in steps if step["type"] == "TemplateProcessing"), None)
    if template is None:
        template = _plain_template()
        steps.append(template)
    for _, token, flag, last in wanted:
        _change(template, backend, str(token), flag=bool(flag), last=last)
    backend.post_processor = _processor(steps)


def _steps(backend: Backend) -> list[dict[str, Any]]:
    if backend.post_processor is None:
        return []
    state = json.loads(backend.post_processor.__getstate__())
    steps: list[dict[str, Any]] = state["processors"] if state["type"] == "Sequence" else [state]
    return steps


def _plain_template() -> dict[str, Any]:
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {"type": "TemplateProcessing", "single": [first], "pair": [first, second], "special_tokens": {}}


def _names(piece: Piece, token: str | None) -> bool:
    return bool(piece.get("SpecialToken", {}).get("id") == token)


def _change(template: dict[str, Any], backend: Backend, token: str, *, flag: bool, last: bool) -> None:
    """Put a token beside each text of the template, or take it away."""
    for form in ("single", "pair"):
        pieces: list[Piece] = []
        for place, piece in enumerate(template[form]):
            beside = _neighbour(template[form], place, last=last)
            if _names(piece, token) and beside is not None and not flag:
                continue
            put = flag and "Sequence" in piece
            added = {"SpecialToken": {"id": token, "type_id": piece["Sequence"]["type_id"]}} if put else None
            pieces += [part for part in ((piece, added) if last else (added, piece)) if part is not None]
        template[form] = pieces
    if flag:
        number = backend.token_to_id(token)
        template["special_tokens"][token] = {"id": token, "ids": [number], "tokens": [token]}


def _neighbour(pieces: Sequence[Piece], place: int, *, last: bool) -> Piece | None:
    """Return the text that a special token stands at: the next one, for an end token the one before."""
    beyond = pieces[:place][::-1] if last else pieces[place + 1 :]
    return next((piece for piece in beyond if "Sequence" in piece), None)


def _processor(steps: Sequence[Mapping[str, Any]]) -> processors.PostProcessor:
    made = []
    for step in steps:
        part = processors.ByteLevel() if step["type"] == "ByteLevel" else processors.TemplateProcessing(single="$A")
        part.__setstate__(json.dumps(step).encode())
        made.append(part)
    return made[0] if len(made) == 1 else processors.Sequence(made)
