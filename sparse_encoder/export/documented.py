"""``export`` and ``validate_model_outputs``: a graph as a configuration describes it, in two steps.

They go through the same steps as ``export_onnx``, which takes one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.export.comparison import compare_graph
from sparse_encoder.export.descriptions import graph_by_config
from sparse_encoder.export.errors import OutputMismatchError
from sparse_encoder.export.graph import Case, Graph, Tensors
from sparse_encoder.export.onnx_config import OnnxConfig, one_preprocessor
from sparse_encoder.export.onnx_config_with_past import EXTRA_PAST, flat_inputs, is_past
from sparse_encoder.export.state import overridden
from sparse_encoder.export.writing import WriteSettings, write_graphs

SHAPES = ((1, 8), (2, 8), (3, 31))
"""Texts and tokens to compare with, special ones included; of a model that takes fewer tokens, so many."""


def export(  # house: peer signature
    preprocessor: Any = None,  # noqa: ANN401 - a tokenizer, ours or of transformers
    model: nn.Module | None = None,
    config: OnnxConfig | None = None,
    opset: int | None = None,
    output: str | Path | None = None,
    tokenizer: Any = None,  # noqa: ANN401 - the older name of preprocessor
    device: str = "cpu",
) -> tuple[list[str], list[str]]:
    """Write the graph of a model as a configuration describes it; it is compared by :func:`validate_model_outputs`.

    Args:
        preprocessor: The tokenizer, which batches to trace with are made by; ``tokenizer`` is its older name.
        model: The model, of the library or any other.
        config: Names inputs, outputs and their axes.
        opset: Version of the operators; None for the configuration's.
        output: The file.
        tokenizer: The older name of ``preprocessor``.
        device: Where to trace: that of the model.

    Returns:
        The inputs, in the order of the model's ``forward``, and the outputs.

    Raises:
        TypeError: If an argument is missing.
        ValueError: If the model takes no such inputs, or an argument is out of range.
        ExportError: If torch cannot make the graph.
    """
    if model is None or config is None or output is None:
        missing = {"model": model, "config": config, "output": output}
        raise TypeError(f"export needs {[name for name, value in missing.items() if value is None]}")
    held = next((str(each.device.type) for each in model.parameters()), "cpu")
    if torch.device(device).type != held:
        raise ValueError(f"device must be {held!r}, where the model is, got {device!r}; model.to({device!r}) moves it")
    inputs = config.generate_dummy_inputs(one_preprocessor(preprocessor, tokenizer), framework="pt")
    matched = matching_inputs(model, inputs)
    if unknown := [name for name in inputs if name not in matched]:
        known = list(inspect.signature(model.forward).parameters)
        raise ValueError(
            f"the configuration's inputs {unknown} are no arguments of {type(model).__name__}.forward, "
            f"which takes {known}"
        )
    graph = graph_by_config(model, config)
    flat = flat_inputs(config, inputs)
    example = _traceable({name: flat[name] for name in graph.inputs}, graph)
    path = Path(output).expanduser()
    settings = WriteSettings(opset=config.default_onnx_opset if opset is None else opset, validate=False)
    with _as_configured(model, config):
        write_graphs({path.name: replace(graph, example=example)}, path.parent, settings)
    return matched, list(graph.outputs)


def _traceable(inputs: Tensors, graph: Graph) -> Tensors:
    """Return inputs to trace with: the graph's own where an axis of any length is 1, which torch takes for fixed."""
    fixed = any(inputs[name].shape[place] < 2 for name, axes in graph.inputs.items() for place in axes)
    return dict(graph.example) if fixed and graph.example else inputs


def matching_inputs(model: nn.Module, inputs: Collection[str]) -> list[str]:
    """Return those inputs that a model's ``forward`` takes, in its order.

    Args:
        model: The model.
        inputs: Their names.
    """
    return [name for name in inspect.signature(model.forward).parameters if name in inputs]


@contextmanager
def _as_configured(model: nn.Module, config: OnnxConfig) -> Iterator[None]:
    """Change what a configuration says of a model, and put it back, also after an error."""
    with overridden(model, config.values_override):
        try:
            config.patch_ops()
            yield
        finally:
            config.restore_ops()


def validate_model_outputs(  # house: peer signature
    config: OnnxConfig,
    preprocessor: Any,  # noqa: ANN401 - a tokenizer, ours or of transformers
    reference_model: nn.Module,
    onnx_model: str | Path,
    onnx_named_outputs: Sequence[str],
    atol: float,
    tokenizer: Any = None,  # noqa: ANN401 - the older name of preprocessor
) -> None:
    """Compare a graph with its model: batches of several shapes, one text alone, padding, no past and a past.

    Args:
        config: Names inputs, outputs and their axes.
        preprocessor: The tokenizer; ``tokenizer`` is its older name.
        reference_model: The model.
        onnx_model: The file.
        onnx_named_outputs: Outputs to compare.
        atol: Largest difference that is allowed; relative to the largest number of an output, where that is above 1.
        tokenizer: The older name of ``preprocessor``, for which None must be given then.

    Raises:
        FileNotFoundError: If there is no file.
        ExportError: If onnxruntime cannot run it.
        OutputMismatchError: If a name, a shape or a number differs; tells the largest difference.
    """
    if not Path(onnx_model).expanduser().is_file():
        raise FileNotFoundError(f"there is no graph {onnx_model}; export(...) writes it")
    graph = graph_by_config(reference_model, config)
    if unknown := [name for name in onnx_named_outputs if name not in graph.outputs]:
        raise OutputMismatchError(f"the model has no outputs {unknown}, it has {list(graph.outputs)}")
    source = one_preprocessor(preprocessor, tokenizer)
    made = [case for shape in _shapes(config, reference_model) for case in _cases(config, graph, source, shape)]
    with _as_configured(reference_model, config):
        compare_graph(
            Path(onnx_model).expanduser(),
            replace(
                graph,
                outputs={name: graph.outputs[name] for name in onnx_named_outputs},
                cases=[*graph.cases, *made],
                feed=config.generate_dummy_inputs_onnxruntime,
            ),
            tolerance=atol,
        )


def _shapes(config: OnnxConfig, model: nn.Module) -> list[tuple[int, int]]:
    """Return texts and tokens to compare with, with room for a past that is as long and a little longer."""
    longest = getattr(getattr(model, "config", None), "max_tokens", None)
    if longest is None:
        return list(SHAPES)
    most = (longest - EXTRA_PAST) // 2 if getattr(config, "use_past", False) else longest
    return list(dict.fromkeys((texts, min(tokens, most)) for texts, tokens in SHAPES))


def _cases(config: OnnxConfig, graph: Graph, source: Any, shape: tuple[int, int]) -> list[Case]:  # noqa: ANN401 - a tokenizer
    """Make batches of one shape: as they come, padded, and without a past."""
    inputs = flat_inputs(config, config.generate_dummy_inputs(source, *shape, framework="pt"))
    cases = [Case("no padding", inputs), Case("a padded row", padded(inputs))]
    if any(map(is_past, graph.inputs)):
        cases.append(Case("no past", without_past(config, inputs)))
    return cases


def padded(inputs: Tensors) -> Tensors:
    """Return inputs whose first text ends in padding: its mask says so, ids need not."""
    name = "attention_mask"
    if name not in inputs or inputs[name].shape[-1] < 2:
        return inputs
    mask = inputs[name].clone()
    mask.flatten(0, -2)[0, -1] = 0
    return {**inputs, name: mask}


def without_past(config: OnnxConfig, inputs: Tensors) -> Tensors:
    """Return inputs of a decoder at its first step.

    Args:
        config: Names the axes.
        inputs: Those of a later step.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in inputs.items():
        axes = config.inputs[name]
        growing = next((place for place, axis in axes.items() if axis.startswith("past_") and " + " in axis), None)
        own = next((place for place, axis in axes.items() if axis in ("past_sequence", "past_decoder_sequence")), None)
        if growing is not None:
            tokens = inputs["decoder_input_ids" if name.startswith("decoder_") else "input_ids"].shape[1]
            result[name] = tensor.narrow(growing, tensor.shape[growing] - tokens, tokens)
        else:
            result[name] = tensor if own is None else tensor.narrow(own, 0, 0)
    return result
