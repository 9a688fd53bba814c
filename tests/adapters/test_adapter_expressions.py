"""Expressions of files: matched as Python's would be, in bounded time, or refused."""

from __future__ import annotations

import re
import time

import pytest

from sparse_encoder.backbone.adapters.expressions import BoundedExpression, bounded

NAMES = [
    "bert.encoder.layer.0.attention.self.query",
    "bert.encoder.layer.1.attention.self.value",
    "bert.encoder.layer.11.output.dense",
    "cls.predictions.transform.dense",
    "query",
    "",
]


@pytest.mark.parametrize(
    "expression",
    [
        "query",
        r".*\.(query|value)",
        r"layer\.0\..*query",
        r".*layer\.\d+\.attention\.self\.(query|key)",
        r"^bert.*dense$",
        "^query|value$",
        r".*\.(layer\.(0|1)|transform)\..*",
        "(?:query|)",
        r"layer.[01]\..*(query|va?lue+)",
        r"[^b].*",
        r"layer\.1+\.\w*\.dense",
        "",
        ".*",
        "a*b*c*.*",
    ],
)
def test_they_match_as_those_of_python(expression: str) -> None:
    ours = BoundedExpression(expression)
    for name in NAMES:
        assert ours.matches(name) == (re.fullmatch(f"(?:{expression})", name) is not None), name
        assert ours.matches_end(name) == (re.match(rf"(.*\.)?({expression})$", name) is not None), name


@pytest.mark.parametrize(
    "expression",
    ["(a+)+", "(x+x+)+y", "(ab){3}", "a{2}", "(?=a)b", r"(a)\1", "(", "a)", "[", "a**", "[z-a]", "a" * 1001, r"\(a"],
)
def test_others_are_refused(expression: str) -> None:
    assert bounded(expression) is None
    with pytest.raises(ValueError):
        BoundedExpression(expression)


def test_the_time_is_bounded() -> None:
    with pytest.raises(ValueError, match="too many alternatives"):
        BoundedExpression("(a|b)" * 100)
    started = time.process_time()
    assert not BoundedExpression(".*" * 400 + "y").matches("x" * 400)
    assert time.process_time() - started < 1
