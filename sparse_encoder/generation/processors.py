"""What changes the scores of the next token: the interface, and a list that runs one after another.

Letters: R rows (texts times beams), T tokens so far, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.generation.callers import warn

Processor = Callable[..., Tensor]
"""Takes token ids, (R, T), and scores, (R, V), and perhaps more by name; gives new scores, (R, V)."""


class LogitsProcessor:
    """Change the scores of the next token; what it is given is left as it is."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores.

        Args:
            input_ids: The tokens so far, the prompt included, (R, T).
            scores: Of the next token, float32, (R, V); in beam search log-probabilities.

        Returns:
            (R, V).

        Raises:
            TypeError: If a class of its own does not say what it does.
        """
        raise TypeError(f"{type(self).__name__} must define __call__(input_ids, scores)")


class LogitsProcessorList(list[Processor]):
    """Run processors one after another."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **values: Any) -> Tensor:  # noqa: ANN401 - of any kind
        """Return the scores that the last one gives.

        Args:
            input_ids: The tokens so far, (R, T).
            scores: Of the next token, (R, V).
            values: What processors that take more than two arguments need, by name.

        Raises:
            TypeError: If one returns anything but scores.
            ValueError: If one needs an argument that is not there, or returns scores of another shape.
        """
        for processor in self:
            taken = extra_arguments(processor)
            if missing := [name for name, is_needed in taken.items() if is_needed and name not in values]:
                raise ValueError(f"{_name(processor)} needs the arguments {list(taken)}; missing are {missing}")
            changed = processor(input_ids, scores, **{name: values[name] for name in taken if name in values})
            if not isinstance(changed, Tensor) or changed.shape != scores.shape or not changed.is_floating_point():
                raise _wrong_scores(processor, changed, scores)
            scores = changed
        return scores


def _wrong_scores(processor: Processor, changed: object, scores: Tensor) -> Exception:
    """Say what is wrong with what a processor returned."""
    told = f"{_name(processor)} must return scores of shape {tuple(scores.shape)}"
    if not isinstance(changed, Tensor):
        return TypeError(f"{told}, got {type(changed).__name__}")
    return ValueError(f"{told}, got {changed.dtype} of shape {tuple(changed.shape)}")


def extra_arguments(processor: Processor) -> dict[str, bool]:
    """Return the names of what a processor takes besides token ids and scores, and whether it must have it."""
    parameters = list(inspect.signature(processor).parameters.values())[2:]
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {each.name: each.default is inspect.Parameter.empty for each in parameters if each.kind in by_name}


def with_custom(built_in: Iterable[Any], custom: Iterable[Any], kind: str) -> list[Any]:  # Any: processors or criteria
    """Put a user's parts behind the built-in ones, or in the place of those of the same type; each of them once.

    Args:
        built_in: What the config asks for.
        custom: What the call brings.
        kind: What they are, for the warning.
    """
    given = list(custom)
    of_type = {type(each): each for each in reversed(given)}  # of several the first stands in
    merged = []
    for each in built_in:
        stand_in = of_type.get(type(each))
        if stand_in is not None:
            warn(f"the {kind} {type(each).__name__} of the call takes the place of the one that the config asks for")
        merged.append(each if stand_in is None else stand_in)
    for each in given:
        if each not in merged:  # once, as in transformers
            merged.append(each)
    return merged


def token_ids(name: str, ids: int | Iterable[int] | Tensor, device: torch.device | str | None = None) -> Tensor:
    """Return token ids as a tensor, int64, (number of ids,).

    Raises:
        ValueError: If one is no integer of at least 0.
    """
    if isinstance(ids, Tensor):
        given = ids.reshape(-1)
        if given.is_floating_point() or given.dtype == torch.bool or (given < 0).any():
            raise ValueError(f"{name} must hold ids of at least 0, got {given.tolist()}")
        return given.to(device=device or given.device, dtype=torch.int64)
    listed = list(ids) if isinstance(ids, Iterable) else [ids]
    if not all(isinstance(each, Integral) and not isinstance(each, bool) and int(each) >= 0 for each in listed):
        raise ValueError(f"{name} must hold ids of at least 0, got {ids!r:.100}")
    return torch.tensor([int(each) for each in listed], dtype=torch.int64, device=device)


def chosen(scores: Tensor, ids: Tensor) -> Tensor:
    """Return which of V tokens are among some ids, (V,); an id beyond V is none of them."""
    return torch.isin(torch.arange(scores.shape[-1], device=scores.device), ids.to(scores.device))


def at_least(name: str, value: object, least: int) -> int:
    """Return an integer that is not below a bound.

    Raises:
        ValueError: If it is below it or no integer.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r:.100}")
    return value


def above_zero(name: str, value: object, hint: str = "") -> float:
    """Return a number above 0 as a float.

    Raises:
        ValueError: If it is not above 0, not finite or no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number greater than 0, got {value!r:.100}{hint}")
    return float(value)


def _name(processor: Processor) -> str:
    return getattr(processor, "__name__", type(processor).__name__)
