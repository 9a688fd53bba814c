"""What a card says of a loss: the losses it is made of, their settings as JSON, the papers they come from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from torch import nn

from sparse_encoder.model_card_markdown import describe, sentence_list

MODEL = "model"
"""The name under which a loss holds the model."""

LossFacts = dict[str, str]
"""``name``, the class, and ``config``, its settings as JSON."""


def losses_of(loss: nn.Module | Mapping[str, nn.Module]) -> list[nn.Module]:
    """List a loss, or losses by dataset, and the losses they are made of, each once, from the outside in.

    A module within a loss is a loss itself if it says so, by ``get_config_dict`` or ``citation``.
    """
    found: list[nn.Module] = []
    for outer in loss.values() if isinstance(loss, Mapping) else [loss]:
        _collect(outer, found)
    return found


def _collect(loss: nn.Module, found: list[nn.Module]) -> None:
    if any(loss is each for each in found):
        return
    found.append(loss)
    for name, child in loss.named_children():
        if name == MODEL:
            continue
        for each in child.children() if isinstance(child, nn.ModuleList | nn.ModuleDict) else [child]:
            if hasattr(each, "get_config_dict") or hasattr(each, "citation"):
                _collect(each, found)


def describe_loss(loss: nn.Module) -> LossFacts:
    """Return the name and the settings of a loss."""
    return {"name": type(loss).__name__, "config": settings_as_json(_settings(loss))}


def settings_as_json(settings: Mapping[Any, Any]) -> str:  # values of many types
    """Write settings as JSON, whatever they hold; empty if there are none."""
    plain = {str(name): _plain(value) for name, value in settings.items()}
    return json.dumps(plain, indent=4, ensure_ascii=False) if plain else ""


def citations_of(losses: Iterable[nn.Module]) -> dict[str, str]:
    """Return the papers of losses, as BibTeX, by the names of the losses they are the source of."""
    names: dict[str, list[str]] = {}
    for loss in losses:
        citation = getattr(loss, "citation", None)
        if isinstance(citation, str) and citation.strip():
            known = names.setdefault(inspect.cleandoc(citation), [])
            if type(loss).__name__ not in known:
                known.append(type(loss).__name__)
    return {sentence_list(losses_of_paper): citation for citation, losses_of_paper in names.items()}


def _settings(loss: object) -> dict[str, Any]:  # values of many types
    """Return the settings that a loss tells of itself."""
    tell: Callable[[], object] | None = getattr(loss, "get_config_dict", None)
    config = tell() if tell is not None else {}
    return dict(config) if isinstance(config, Mapping) else {}


def _plain(value: Any) -> Any:  # noqa: ANN401  (values of settings: anything, then what JSON has)
    """Return a setting as JSON can hold it."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, nn.Module):
        return _call(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return describe(value)


def _call(loss: nn.Module) -> str:
    """Return a loss as the call that makes it, but for the model."""
    return f"{type(loss).__name__}({', '.join(f'{name}={_plain(value)!r}' for name, value in _settings(loss).items())})"
