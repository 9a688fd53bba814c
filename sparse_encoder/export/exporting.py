"""``export_onnx``: a model to a graph in a file that has been compared with it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET, GRAPH_FOLDER, SUFFIX
from sparse_encoder.export.descriptions import describe
from sparse_encoder.export.graph import Graph
from sparse_encoder.export.report import ExportReport
from sparse_encoder.export.state import check_values
from sparse_encoder.export.writing import DEFAULT_TOLERANCE, WriteSettings, check_packages, write_graphs
from sparse_encoder.renamed import renamed_argument

DTYPES = {"float32": torch.float32, "float16": torch.float16}
TOLERANCES = {"float32": DEFAULT_TOLERANCE, "float16": 1e-2}

ModelT = TypeVar("ModelT", bound=nn.Module)


@renamed_argument("opset_version", "opset")
@renamed_argument("use_external_data_format", "external_data")
def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    opset: int = DEFAULT_OPSET,
    task: str | None = None,
    top_k: int | None = None,
    dtype: str = "float32",
    external_data: bool | None = None,
    validate: bool = True,
) -> ExportReport:
    """Write a model as an ONNX graph for any number of texts of any length, and compare it with the model.

    Inputs are int64: ``input_ids`` and ``attention_mask``, (B, T), and ``token_type_ids`` where a model has them.
    Padding is left out inside the graph. What comes out:

    - of a ``SparseEncoder`` ``sentence_embedding``, (B, V) float32, pooled; with ``top_k`` the terms and weights of
      the largest, ``indices`` and ``weights``, (B, k), in descending order. Of a ``Router`` each route is a graph.
    - of an ``EncoderModel`` ``last_hidden_state``, (B, T, D); of a ``MaskedLanguageModel`` ``logits``, (B, T, V).
    - of a ``TokenClassificationModel`` ``logits``, (B, T, L). With a linear chain they are the scores before it; what
      the chain knows is in the metadata of the file, ``sparse_encoder.crf``: ``start``, ``transitions`` and ``end`` as
      JSON, for whoever looks for the likeliest sequence.
    - of a ``CausalLanguageModel`` ``logits``, (B, T, V), and ``present.{i}.key`` and ``.value``, (B, H, P + T, K), from
      tokens and ``past_key_values.{i}.key`` and ``.value``, (B, H, P, K). P may be 0, so one graph reads the prompt and
      goes on; ``attention_mask`` is (B, P + T), and places are counted in it, so prompts may be padded on the left.
    - of a ``Seq2SeqModel`` two graphs: ``encoder_model.onnx`` and ``decoder_model.onnx``.

    The model is as it was afterwards: its mode, hooks and values. So are the files, unless all went well.

    Args:
        model: The model.
        path: A file, ``*.onnx``; or a folder, in which ``onnx/model.onnx`` is written, and for each route of a
            ``Router`` ``onnx/<route>/model.onnx``.
        opset: Version of the operators.
        task: ``FeaturesManager`` lists what can be asked of a model; None takes what its head is for.
        top_k: For sparse encoders: how many weights of each text are returned; None: all.
        dtype: Of the weights and of what is computed: ``"float32"`` or ``"float16"``; a model of another is copied.
        external_data: Whether the weights lie in ``<name>.onnx_data`` beside the graph; None: from 2 GB on.
        validate: Whether to compare the graph with the model, on batches of several shapes.

    Returns:
        What was written, and the largest difference.

    Raises:
        ImportError: If a package is missing; says how to install it.
        TypeError: If ``model`` is none of those above.
        ValueError: If an argument is out of range, or ``opset`` is not supported.
        OutputMismatchError: If the graph computes something else than the model; nothing is kept.
        ExportError: If torch cannot make the graph.
    """
    if dtype not in DTYPES:
        hint = "; onnxruntime has few kernels for bfloat16, float32 holds its numbers exactly" * (dtype == "bfloat16")
        raise ValueError(f"dtype must be one of {sorted(DTYPES)}, got {dtype!r:.80}{hint}")
    settings = WriteSettings(opset=opset, external_data=external_data, validate=validate, tolerance=TOLERANCES[dtype])
    check_packages(settings)
    if isinstance(model, nn.Module):
        check_values(model)
        model = _in_dtype(model, DTYPES[dtype])
    folder, graphs = _places(Path(path).expanduser(), describe(model, task, top_k))
    first, *others = write_graphs(graphs, folder, settings)
    return replace(first, others=tuple(others))


def _in_dtype(model: ModelT, dtype: torch.dtype) -> ModelT:
    """Return the model, or a copy where its numbers are of another type."""
    floating = (each.dtype for each in model.parameters() if each.is_floating_point())
    return model if all(each == dtype for each in floating) else deepcopy(model).to(dtype=dtype)


def _places(path: Path, graphs: dict[str, Graph]) -> tuple[Path, dict[str, Graph]]:
    """Return a folder, and where in it each graph is to be."""
    if path.suffix != SUFFIX:
        return path, {f"{GRAPH_FOLDER}/{name}": graph for name, graph in graphs.items()}
    if len(graphs) > 1:
        raise ValueError(f"path must be a folder for the graphs {sorted(graphs)}, got the file {path}")
    (graph,) = graphs.values()
    return path.parent, {path.name: graph}
