"""Texts for a first module that users wrote: it turns them into features by itself, and nobody knows their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor


def given_options(
    read: Callable[..., object], *, prompt: str | None, task: str | None, max_length: int | None
) -> dict[str, Any]:
    """Return the options with which to call a module's function that reads texts: those that are given.

    A task, which ``encode_query`` always has, is left out where the function does not name it: then there are no tasks.

    Args:
        read: The function.
        prompt: Put before each text.
        task: Name of the task.
        max_length: Most tokens of a text.
    """
    options = {"prompt": prompt or None, "task": task, "max_length": max_length}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "task" in given:
        parameters = signature(read).parameters
        if "task" not in parameters and all(each.kind is not Parameter.VAR_KEYWORD for each in parameters.values()):
            del given["task"]
    return given


class OwnTexts:
    """Stand in for the tokens of texts where there are only features, made batch by batch.

    Args:
        texts: The texts.
        preprocess: Makes the features of some of them.
    """

    def __init__(self, texts: Sequence[str], preprocess: Callable[[list[str]], dict[str, Any]]) -> None:
        self._texts = texts
        self._preprocess = preprocess

    @property
    def lengths(self) -> list[int]:
        """One for each text, so that batches are cut by the number of texts alone and keep their order."""
        return [1] * len(self._texts)

    def pad(
        self, rows: Sequence[int], *, length: int | None = None, device: torch.device | str | None = None
    ) -> dict[str, Any]:
        """Make the features of some texts.

        Args:
            rows: Their numbers.
            length: Left to the module, which pads as it likes.
            device: Where the tensors go.
        """
        features = self._preprocess([self._texts[row] for row in rows])
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()}
