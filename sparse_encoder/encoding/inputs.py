"""What may be encoded: it turns the caller's inputs into a list of strings, or says which of them is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from sparse_encoder.tokenizer_options import merged_options, text_options


class Inputs(NamedTuple):
    """The texts of one call."""

    texts: list[str]
    """The texts, in the caller's order."""
    single: bool
    """Whether the caller gave one text rather than a list."""
    task: str | None
    """The task of the call, or the one that its inputs name, as in ``{"query": "text"}``."""


def is_singular_input(inputs: object) -> bool:
    """Say whether an input is one text (or one ``{task: text}``), not a collection of them."""
    return isinstance(inputs, (str, Mapping))


def read_inputs(inputs: object, *, task: str | None = None, with_tasks: bool = False) -> Inputs:
    """Check the inputs of a call.

    Args:
        inputs: A string, or a collection of strings (list, tuple, array of strings, dataset column, series).
        task: The task of the call.
        with_tasks: Whether an input may also be a mapping of one task to the text, the same task for all, as a model
            with routes takes it.

    Returns:
        The texts, whether there was only one, and the task.

    Raises:
        TypeError: If an input is no string; names the position of the first that is none.
        ValueError: If the inputs name different tasks, or more than one each, or another than the call.
    """
    single = is_singular_input(inputs) and (with_tasks or isinstance(inputs, str))
    if single:
        items: Iterable[object] = [inputs]
    elif isinstance(inputs, Iterable) and not isinstance(inputs, (bytes, bytearray, Mapping)):
        items = inputs
    else:
        raise TypeError(f"inputs must be a string or a collection of strings, got {type(inputs).__name__}")
    texts: list[str] = []
    tasks: set[str] = set() if task is None else {task}
    for index, item in enumerate(items):
        text = item
        if with_tasks and isinstance(item, Mapping):
            if len(item) != 1:
                raise ValueError(f"inputs[{index}] must map one task to a text, got the keys {sorted(map(str, item))}")
            ((name, text),) = item.items()
            tasks.add(str(name))
        if not isinstance(text, str):
            raise TypeError(f"inputs[{index}] must be a string, got {type(text).__name__}: {text!r:.80}")
        texts.append(str(text))
    if len(tasks) > 1:
        raise ValueError(f"all inputs of a call must be of one task, got {sorted(tasks)}")
    return Inputs(texts, single, next(iter(tasks), None))


def max_length_of_call(processing_kwargs: Mapping[str, Mapping[str, object]]) -> int | None:
    """Read the length at which one call cuts its texts.

    Args:
        processing_kwargs: ``{"text": {...}}`` with ``max_length``; ``truncation`` and ``padding`` may be named, only
            as they are done anyway.

    Raises:
        TypeError: If the options of a kind of input are no mapping, or a value is of another type.
        ValueError: If an option is unknown, or cannot be set for one call.
    """
    options = text_options(processing_kwargs)
    if not options.add_special_tokens:
        raise ValueError("add_special_tokens cannot be set for one call; give it to the Transformer module")
    return options.max_length


class CallLengths(NamedTuple):
    """The lengths of the texts of one call."""

    max_length: int | None
    """Most tokens of a text; ``None`` for what the model says."""
    padded_to_max_length: bool
    """Whether every text is padded to the length at which it would be cut."""


def lengths_of_call(processing_kwargs: Mapping[str, Mapping[str, object]]) -> CallLengths:
    """Read the length at which one call cuts its texts, and whether it pads to it.

    Args:
        processing_kwargs: As :func:`max_length_of_call` takes them; ``padding`` may also be ``"max_length"``.

    Raises:
        TypeError: If the options of a kind of input are no mapping, or a value is of another type.
        ValueError: If an option is unknown, or cannot be set for one call.
    """
    options = merged_options(processing_kwargs)
    padded = options.get("padding") == "max_length"
    if padded:
        del options["padding"]
    return CallLengths(max_length_of_call({"text": options}), padded)


def check_positive(name: str, value: int) -> int:
    """Return a positive integer; numpy's become Python's.

    Raises:
        ValueError: If the value is not one; a boolean is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
