"""Graphs in 8 bits: weights are rounded once, in blocks, and the numbers they meet at run time, row by row.

Both are rounded block by block along the axis that is summed over, so that a token's result depends on that token
alone. On most machines onnxruntime's products with blocks of weights do it; on those with VNNI products of integers
(``examples/benchmarks/encode_onnx.py`` measures either). Its ``quantize_dynamic`` has one scale for all tokens of a
batch instead: there a text's weights change with the texts beside it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sparse_encoder.checkpoint.graph_names import LARGEST_BYTES, MACHINE, QUANTIZED, variant_name
from sparse_encoder.checkpoint.onnx_packages import quiet_options, require
from sparse_encoder.serving.integer_products import IntegerProducts
from sparse_encoder.serving.machine import CONFIGS, INTEGERS, this_machine
from sparse_encoder.serving.onnx_file import check_onnx_file
from sparse_encoder.serving.quality import SENTENCES, QuantizationReport, compare_graphs, graphs_of
from sparse_encoder.serving.session import onnxruntime, try_graph
from sparse_encoder.serving.tables import quantize_tables
from sparse_encoder.serving.variants import export_variant, write_beside

if TYPE_CHECKING:
    from sparse_encoder.evaluation import SentenceEvaluator

BLOCK = 128
"""Weights that share a scale. Measured on a BERT of MiniLM's size: 32 is nearer to float32 and slower than 128."""
PURPOSE = "a graph in 8 bits"
_ACCURACY = 4  # the level at which onnxruntime multiplies 8-bit numbers


def quantize_onnx(
    folder: str | os.PathLike[str],
    *,
    quantization_config: str | None = None,
    file_suffix: str | None = None,
    texts: Iterable[str] | None = None,
    evaluator: SentenceEvaluator | None = None,
) -> QuantizationReport:
    """Write each graph of a model in 8 bits beside it, as ``onnx/model_qint8_avx2.onnx``, and measure the change.

    Products with fixed weights are quantised, the projection on the vocabulary included, and the table of a
    vocabulary's embeddings, row by row; small tables, layer norms and attention between tokens stay in float32. A
    projection that shares its numbers with the table has its own in 8 bits. Open the result with
    ``SparseEncoder(folder, backend="onnx", model_kwargs={"file_name": report.file_name})``.

    Args:
        folder: A saved model with ``onnx/model.onnx``, or ``onnx/<route>/model.onnx`` for each route that is not
            read from a table.
        quantization_config: The machine that the file is for and named after, one of :data:`CONFIGS`; ``None`` for
            this one. ``"avx512_vnni"`` has products of integers if this machine is one, too; the graph says so, and
            opening it on an x86 processor without VNNI, where it would be less exact, is an error. The other files,
            and that one written elsewhere, are the same; onnxruntime chooses their kernels when it runs.
        file_suffix: What follows ``model_`` in the file's name instead: letters of ASCII, digits, ``_``, ``.``, ``-``.
        texts: Encoded by both graphs, to compare; ``None`` for a few sentences in English.
        evaluator: Run on both, too.

    Returns:
        What has changed, in figures.

    Raises:
        FileNotFoundError: If there is no graph.
        CheckpointError: If a graph is damaged, or its change cannot be opened; then nothing is written.
        ImportError: If onnx or onnxruntime is not installed.
        TypeError: If a text or the suffix is no string.
        ValueError: If the name is unknown, the suffix has other letters, there are no texts, or a graph has nothing to
            quantise; then nothing is written.
    """
    if quantization_config is not None:
        _check_name(quantization_config)
    machine = quantization_config or this_machine()
    name = variant_name(f"qint8_{machine}" if file_suffix is None else file_suffix)
    listed = _texts(texts)
    folder = Path(folder).expanduser()
    graphs = graphs_of(folder)
    integers = machine == this_machine() == INTEGERS
    write_beside(folder, graphs.values(), name, lambda graph, target: _quantize(graph, target, integers=integers))
    return compare_graphs(folder, graphs, name, texts=listed or SENTENCES, evaluator=evaluator)


def _texts(texts: Iterable[str] | None) -> list[str] | None:
    """Return the texts to compare with as a list.

    Raises:
        TypeError: If one is no string.
        ValueError: If there are none, or only one that is not in a list.
    """
    if texts is None:
        return None
    listed = [] if isinstance(texts, str) else list(texts)
    if not listed:
        raise ValueError("texts must be a list of at least one text")
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"texts[{place}] must be a string, got {text!r:.80}")
    return listed


def export_dynamic_quantized_onnx_model(  # house: peer signature
    model: Any,  # noqa: ANN401 - a SparseEncoder of either backend
    quantization_config: str,
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
) -> QuantizationReport:
    """Write a model's graph in 8 bits into a folder; by the name and signature of sentence-transformers.

    Args:
        model: A torch model, which is saved and exported into the folder; or one of ``backend="onnx"``, which is
            copied there with its graphs, unless it is the model of that folder. What was there is replaced.
        quantization_config: One of :data:`CONFIGS`, as for :func:`quantize_onnx`.
        model_name_or_path: The folder; with ``push_to_hub`` the repository, which gets the new graph alone.
        push_to_hub: Whether to upload the graph; nothing stays here then.
        create_pr: Open a pull request instead of pushing.
        file_suffix: What follows ``model_`` in the file's name; ``qint8_<config>`` if it is not said.

    Returns:
        What has changed; sentence-transformers returns nothing. Of an uploaded graph there are no ``paths``.

    Raises:
        TypeError: If the model is none of these.
        ValueError: If there is ``create_pr`` without ``push_to_hub``, or the model's graph is in 8 bits already;
            otherwise as :func:`quantize_onnx`.
    """
    _check_name(quantization_config)
    if file_suffix is not None:
        variant_name(file_suffix)
    return export_variant(
        model,
        partial(quantize_onnx, quantization_config=quantization_config, file_suffix=file_suffix),
        model_name_or_path=model_name_or_path,
        push_to_hub=push_to_hub,
        create_pr=create_pr,
    )


def _check_name(quantization_config: str) -> None:
    """Check that a machine is one of :data:`CONFIGS`.

    Raises:
        ValueError: If it is none.
    """
    if quantization_config not in CONFIGS:
        raise ValueError(f"unknown quantization_config {quantization_config!r}; choose from {list(CONFIGS)}")


def _quantize(graph: Path, target: Path, *, integers: bool) -> None:
    """Write one graph in 8 bits.

    Args:
        graph: The graph.
        target: The file to write.
        integers: Whether products are those of integers, as far as they can be.
    """
    check_onnx_file(graph)
    onnx, package = require("onnx", PURPOSE), onnxruntime()
    with TemporaryDirectory() as scratch, _quiet():
        folded = _fold(package, graph, Path(scratch) / "folded.onnx")
        model = onnx.load(folded)
        count = IntegerProducts(onnx, model).rewrite() if integers else 0
        tools = require("onnxruntime.quantization.matmul_nbits_quantizer", PURPOSE)
        algorithm = tools.DefaultWeightOnlyQuantConfig(
            block_size=BLOCK, is_symmetric=True, accuracy_level=_ACCURACY, bits=8
        )
        quantizer = tools.MatMulNBitsQuantizer(model, algo_config=algorithm)
        quantizer.process()
        result = quantizer.model.model
        if not count and not any(node.op_type == "MatMulNBits" for node in result.graph.node):
            raise ValueError(f"{graph} has no product with fixed weights that could be quantised")
        quantize_tables(onnx, result)
        original = onnx.load(graph, load_external_data=False)
        del result.metadata_props[:]
        result.metadata_props.extend(original.metadata_props)
        told = {QUANTIZED: "qint8"} | ({MACHINE: INTEGERS} if count else {})
        onnx.helper.set_model_props(result, {each.key: each.value for each in original.metadata_props} | told)
        if result.ByteSize() >= LARGEST_BYTES:
            raise ValueError(f"{graph} has {result.ByteSize()} bytes in 8 bits, more than a file can hold")
        onnx.save(result, target)


def _fold(package: Any, graph: Path, target: Path) -> Path:  # noqa: ANN401 - onnxruntime
    """Write a graph whose constants are computed, so that a transposed weight is a weight."""
    options = quiet_options(package)
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = package.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
    try_graph(graph, options=options)
    return target


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the program's logging as it is: the tools of onnxruntime set it up, and tell of every node."""
    root, tools = logging.getLogger(), logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    handlers, level, told = root.handlers[:], root.level, tools.level
    tools.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        tools.setLevel(told)
