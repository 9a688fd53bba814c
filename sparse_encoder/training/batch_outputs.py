"""What any model returns for a batch, or generates from it, taken apart by name; leaves no trace in the run."""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse_encoder.backbone.devices import device_of
from sparse_encoder.backbone.modes import evaluating

GENERATED = "sequences"


def predict(
    model: nn.Module, inputs: dict[str, Tensor] | Tensor, output_columns: Sequence[str] | None
) -> dict[str, Tensor]:
    """Run a model; a single tensor is given as its first argument, columns as those keywords that it knows.

    Args:
        model: Returns a tensor, a tuple, a dict or a dataclass.
        inputs: (B, ...), or several by name.
        output_columns: Which outputs, in this order; those of a tuple are called ``"0"``, ``"1"`` and so on. None is
            all that have rows but the loss and ``config.keys_to_ignore_at_inference``.

    Returns:
        (B, ...) by name.

    Raises:
        ValueError: If an output is missing, is no tensor, or none is left.
    """
    outputs = model(**_known(model, inputs)) if isinstance(inputs, dict) else model(inputs)
    columns = _by_name(outputs)
    if output_columns is not None:
        if wrong := [name for name in output_columns if not isinstance(columns.get(name), Tensor)]:
            raise ValueError(f"output_cols {wrong} are no tensors among the model's outputs {sorted(columns)}")
        return {name: columns[name] for name in output_columns}
    ignored = {"loss", *(getattr(getattr(model, "config", None), "keys_to_ignore_at_inference", None) or ())}
    rows = {
        name: value
        for name, value in columns.items()
        if name not in ignored and isinstance(value, Tensor) and value.ndim > 0
    }
    if not rows:
        raise ValueError(f"the model returns no tensor with rows, only {sorted(columns)}; name some in output_cols")
    return rows


def generate(model: nn.Module, inputs: dict[str, Tensor] | Tensor, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Let a model generate from its main input and the attention mask; it never sees labels.

    Args:
        model: Has ``generate``.
        inputs: Columns, or the main input.
        options: More keywords of ``generate``; of several types.

    Returns:
        Token ids, (B, T), as ``sequences``.

    Raises:
        TypeError: If the model cannot generate.
        ValueError: If its main input is missing.
    """
    function = getattr(model, "generate", None)
    if not callable(function):
        raise TypeError(f"predict_with_generate needs a model with generate(), {type(model).__name__} has none")
    if isinstance(inputs, Tensor):
        result = function(inputs, **options)
    else:
        name = str(getattr(getattr(model, "encoder", model), "main_input_name", "input_ids"))
        if name not in inputs:
            raise ValueError(f"generate() begins with {name!r}, and the columns are {sorted(inputs)}")
        mask = {"attention_mask": inputs["attention_mask"]} if "attention_mask" in inputs else {}
        result = function(inputs[name], **{**mask, **options})
    tokens = result if isinstance(result, Tensor) else _by_name(result)[GENERATED]
    return {GENERATED: tokens}


def pad_token_id(model: nn.Module, tokenizer: object, options: Mapping[str, Any]) -> int | None:  # keywords, as above
    """Return the id that fills up texts, from the keywords of ``generate``, the model or its tokenizer."""
    places = (getattr(model, "generation_config", None), getattr(model, "config", None), tokenizer)
    found = [options.get("pad_token_id"), *(getattr(place, "pad_token_id", None) for place in places)]
    return next((int(value) for value in found if isinstance(value, int | Tensor)), None)


@contextmanager
def undisturbed(model: nn.Module, seed: int) -> Iterator[None]:
    """Run a model in evaluation mode, without gradients, on random numbers of its own; all is put back afterwards.

    Gradients are switched off by ``no_grad``: what a model caches under ``inference_mode`` could not be used when
    training goes on.

    Args:
        model: Each of its modules gets the mode back that it had.
        seed: Of the numbers that are drawn meanwhile on the CPU.
    """
    python, numpy = random.getstate(), np.random.get_state()
    device = device_of(model)
    forked = [device] if device.type in ("cuda", "xpu") else []
    with (
        torch.random.fork_rng(forked, device_type=device.type if forked else "cuda"),
        torch.no_grad(),
        evaluating(model),
    ):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def moved(inputs: dict[str, Tensor] | Tensor, device: torch.device) -> dict[str, Tensor] | Tensor:
    """Return tensors on a device."""
    return {name: each.to(device) for name, each in inputs.items()} if isinstance(inputs, dict) else inputs.to(device)


def _known(model: nn.Module, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the columns that a model's forward has a parameter for; all if it names none and takes any."""
    parameters = inspect.signature(model.forward).parameters.values()
    known = {name: value for name, value in columns.items() if name in {each.name for each in parameters}}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return columns if takes_any and not known else known


def _by_name(outputs: Any) -> dict[str, Any]:  # noqa: ANN401  (what models return: tensors and anything)
    if isinstance(outputs, Tensor):
        return {"0": outputs}
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {each.name: getattr(outputs, each.name) for each in dataclasses.fields(outputs)}
    if isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", None) or [str(index) for index in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))
    raise TypeError(f"a model must return a tensor, tuple, dict or dataclass, got {type(outputs).__name__}")
