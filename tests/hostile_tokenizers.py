"""The hostile tokenizers: rows 30 to 35 of bad_inputs.py, and the one of row 10."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_helpers import Case, Harm, both, file, values, vocabulary
from model_helpers import VOCABULARY

READERS = ("encoder", "tokenizer", "tagger")
ERROR = "TokenizerError"
Content = dict[str, Any]  # parsed JSON


def part(name: str, value: object) -> Harm:
    """Return a harm that replaces a part of tokenizer.json."""
    return vocabulary(lambda content: content.update({name: value}))


def model(**changes: object) -> Harm:
    """Return a harm that changes the model of tokenizer.json."""
    return vocabulary(lambda content: content["model"].update(changes))


def words(change: Callable[[dict[str, Any]], object]) -> Harm:
    """Return a harm that changes the vocabulary."""
    return vocabulary(lambda content: change(content["model"]["vocab"]))


def pattern(expression: str, kind: str = "Split") -> Harm:
    """Return a harm that puts a regular expression before everything else."""
    shared = {"type": kind, "pattern": {"Regex": expression}}
    if kind == "Split":
        return part("pre_tokenizer", {**shared, "behavior": "Isolated", "invert": False})
    return part("normalizer", {**shared, "content": ""})


def without(token: str) -> Harm:
    """Return a harm that takes a token out of the vocabulary, and leaves its name."""

    def change(content: Content) -> None:
        del content["model"]["vocab"][token]
        content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] != token]

    return vocabulary(change)


def template(name: str, number: int = 900) -> Harm:
    """Return a harm that puts a token around texts."""
    special = {name: {"id": name, "ids": [number], "tokens": [name]}}
    single = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    made = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    return part("post_processor", made)


def absent_template(folder: Path) -> None:
    """Let a template name a token that its own list lacks: the library panics."""
    vocabulary(lambda content: content["post_processor"].update(special_tokens={}))(folder)


MERGES = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["aaaa", "bbbb"]], "unk_token": None}
PANICS = {
    "a merge longer than all tokens": part("model", {**MERGES}),
    "a template of nothing": absent_template,
    "a broken map": part("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "a broken map of letters": part("normalizer", {"type": "Precompiled", "precompiled_charsmap": "////////"}),
    "an unknown model": part("model", {"type": "os.system", "vocab": {"a": 0}}),
    "an unknown normalizer": part("normalizer", {"type": "builtins.eval"}),
    "a model that is a list": part("model", []),
    "no model": part("model", None),
    "a vocabulary that is a number": model(vocab=5),
    "a vocabulary of lists of lists": model(type="Unigram", vocab=[[["x"], 0.0]], unk_id=0),
    "a vocabulary of numbers": model(type="Unigram", vocab=[[5, 0.0]], unk_id=0),
    "a vocabulary of objects": model(type="Unigram", vocab=[[{"a": 1}, 0.0]], unk_id=0),
    "an unknown piece beyond all": model(type="Unigram", vocab=[["a", 0.0]], unk_id=10**6),
    "added tokens of a number": part("added_tokens", 5),
    "added tokens of texts": part("added_tokens", ["a"]),
    "an added token of a huge id": part("added_tokens", [{"id": 4_000_000_000, "content": "evil", "special": True}]),
    "a list": file("tokenizer.json", "[]"),
    "deep": file("tokenizer.json", '{"model":' * 100_000),
    "a name twice": file("tokenizer.json", '{"model": {}, "model": {}}'),
    "nested steps": part(
        "pre_tokenizer",
        {"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [{"type": "evil"}]}]},
    ),
}
SLOW = ("(a+)+$", "(a|a)*b", "(x+x+)+y", "([a-z]+)*[0-9]$", "(.*)*\\d{3}$", "(", "[", "\\")
IDS = {
    "a negative id": lambda found: found.update(rain=-1),
    "an id twice": lambda found: found.update(rain=found["sun"]),
    "a huge id": lambda found: found.update(rain=4_000_000_000),
    "an id beyond 64 bits": lambda found: found.update(rain=2**70),
    "an id that is a text": lambda found: found.update(rain="7"),
    "an id that is true": lambda found: found.update(rain=True),
    "an id that is a fraction": lambda found: found.update(rain=1.5),
    "no id": lambda found: found.update(rain=None),
    "all of one id": lambda found: found.update(dict.fromkeys(found, 0)),
    "far apart": lambda found: found.update({name: 5000 * number for name, number in found.items()}),
    "no words": lambda found: found.clear(),
}
LENGTHS = ("x", -1, 0, [1], {"a": 1}, True)

TOKENIZER_CASES = [
    *(Case(f"tokenizer: {name}", (30,), READERS, harm, ERROR) for name, harm in PANICS.items()),
    Case("a template of an unknown id", (30, 33), READERS, template("[X]"), ERROR, "puts ids around a text"),
    *(
        Case(f"{kind} at {expression!r}", (31,), READERS, pattern(expression, kind), ERROR, "the pattern")
        for expression in SLOW
        for kind in ("Split", "Replace")
    ),
    *(
        Case(f"words of {limit} characters", (32,), READERS, model(max_input_chars_per_word=limit), None)
        for limit in (10**9, 2**63, 2**70)
    ),
    *(
        Case(f"words of {limit!r} characters", (32,), READERS, model(max_input_chars_per_word=limit), ERROR)
        for limit in (-1, "x", 1.5)
    ),
    *(Case(f"ids: {name}", (33,), READERS, words(change), ERROR, "id|token") for name, change in IDS.items()),
    *(
        Case(f"without {token}", (34,), READERS, without(token), ERROR, r"lacks '\[|puts ids around")
        for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    ),
    Case(
        "a special token nobody has",
        (34,),
        READERS,
        values("tokenizer_config.json", pad_token="<nothing>"),
        ERROR,
        "lacks '<nothing>'",
    ),
    Case("no limit", (35,), READERS, values("tokenizer_config.json", model_max_length=10**30), None),
    Case("no limit as a real number", (35,), READERS, values("tokenizer_config.json", model_max_length=1e30), None),
    *(
        Case(f"a limit of {value!r}", (35,), READERS, values("tokenizer_config.json", model_max_length=value), ERROR)
        for value in LENGTHS
    ),
    *(
        Case(f"{name} is {value!r}", (34,), READERS, values("tokenizer_config.json", **{name: value}), ERROR)
        for name, value in (
            ("padding_side", "os.system"),
            ("truncation_side", 5),
            ("added_tokens_decoder", {"x": {"content": "a"}}),
            ("added_tokens_decoder", {"0": {"content": 5}}),
            ("added_tokens_decoder", [1]),
            ("added_tokens_decoder", {"-5": {"content": "evil"}}),
            ("added_tokens_decoder", {str(10**9): {"content": "evil"}}),
            ("additional_special_tokens", 5),
            ("model_input_names", 5),
        )
    ),
    Case(
        "more words than rows",
        (10, 33),
        ("encoder", "tagger"),
        words(lambda found: found.update(evil=len(VOCABULARY))),
        ERROR,
        "the tokenizer has 89 tokens, the model embeddings for 88",
    ),
    Case(
        "a text for the special tokens",
        (34,),
        READERS,
        both(file("special_tokens_map.json", '"evil"')),
        ERROR,
        "JSON object",
    ),
]
