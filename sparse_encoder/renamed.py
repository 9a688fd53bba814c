"""Older ways to give an argument: scripts that use them go on working, with a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

Arguments = dict[str, Any]  # of any function


def older_arguments(translate: Callable[[Arguments], None]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take named arguments in an older form.

    Args:
        translate: Brings the named arguments of a call, which it may change, into the form that the function knows.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            translate(kwargs)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take an argument by its older name, with a warning.

    Args:
        old: The older name.
        new: The name that the function knows.
    """

    def translate(arguments: Arguments) -> None:
        if old not in arguments:
            return
        if new in arguments:
            raise TypeError(f"{old!r} is the older name of {new!r}; give one of them")
        logger.warning("the argument %r is called %r now", old, new)
        arguments[new] = arguments.pop(old)

    return older_arguments(translate)
