"""Which graphs a model has. Knows the kinds of models, and nothing of files."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, PretrainedModel
from sparse_encoder.checkpoint.graph_names import DECODER_FILE, ENCODER_FILE, GRAPH_FILE
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.export.decoders import causal_graph, decoder_graph, encoder_graph
from sparse_encoder.export.features import FeaturesManager, features_of
from sparse_encoder.export.graph import Graph, Tensors
from sparse_encoder.export.model_graphs import text_graph
from sparse_encoder.export.named_call import NamedCall, take
from sparse_encoder.export.onnx_config import OnnxConfig
from sparse_encoder.export.onnx_config_seq2seq import OnnxSeq2SeqConfigWithPast
from sparse_encoder.export.onnx_config_with_past import OnnxConfigWithPast
from sparse_encoder.export.sparse_encoders import sparse_graphs
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel
from sparse_encoder.token_classification import TokenClassificationModel


def describe(model: nn.Module, task: str | None, top_k: int | None) -> dict[str, Graph]:
    """Describe the graphs of a model.

    Args:
        model: The model.
        task: What is asked of it; None: what its head is for.
        top_k: For sparse encoders: how many weights of each text are returned.

    Returns:
        The graphs by their places in a folder.

    Raises:
        TypeError: If it is no model that can be exported.
        ValueError: If it cannot do the task.
    """
    known = features_of(model)
    if isinstance(model, ModuleSequence):
        _chosen(task, known, model)
        graphs = sparse_graphs(model, top_k)
        return {GRAPH_FILE if route is None else f"{route}/{GRAPH_FILE}": graph for route, graph in graphs.items()}
    assert isinstance(model, PretrainedModel)  # features_of knows no others
    if top_k is not None:
        raise ValueError(f"top_k is for sparse encoders; leave it out for a {type(model).__name__}")
    feature = _chosen(task, known, model)
    _, constructor = FeaturesManager.check_supported_model_or_raise(model, feature)
    config = constructor(model.config)
    graph = graph_by_config(model, config)
    if isinstance(model, Seq2SeqModel) and isinstance(config, OnnxSeq2SeqConfigWithPast) and config.use_past:
        return {ENCODER_FILE: encoder_graph(model, config), DECODER_FILE: graph}
    return {GRAPH_FILE: graph}


def _chosen(task: str | None, known: tuple[str, ...], model: nn.Module) -> str:
    """Return the feature that is asked for."""
    if task is not None and task not in known:
        raise ValueError(f"task must be one of {list(known)} for a {type(model).__name__}, got {task!r:.80}")
    return known[0] if task is None else task


def graph_by_config(model: nn.Module, config: OnnxConfig) -> Graph:
    """Describe the graph of a model as a configuration says.

    Args:
        model: A model of the library; any other is called with the inputs and read by the outputs that are named.
        config: The configuration; of a pair of stacks with a past it says the decoder's.
    """
    if isinstance(model, CausalLanguageModel) and isinstance(config, OnnxConfigWithPast):
        return causal_graph(model, config)
    if isinstance(model, Seq2SeqModel) and isinstance(config, OnnxSeq2SeqConfigWithPast) and config.use_past:
        return decoder_graph(model, config)
    if isinstance(model, (EncoderModel, MaskedLanguageModel, TokenClassificationModel)):
        return text_graph(model, config.task, inputs=config.inputs, outputs=config.outputs)
    return _graph_of_any(model, config)


def _graph_of_any(model: nn.Module, config: OnnxConfig) -> Graph:
    """Describe the graph of a model of which nothing is known but its names; the example is to be put in."""
    outputs = config.outputs
    order = list(inspect.signature(model.forward).parameters)
    inputs = dict(
        sorted(config.inputs.items(), key=lambda each: order.index(each[0]) if each[0] in order else len(order))
    )

    def reference(inputs: Tensors) -> Tensors:
        found: Any = model(**inputs)  # of any kind
        return {name: take(found, name, place) for place, name in enumerate(outputs)}

    return Graph(
        module=NamedCall(model, list(inputs), list(outputs)),
        reference=reference,
        inputs=inputs,
        outputs=outputs,
        example={},
    )
