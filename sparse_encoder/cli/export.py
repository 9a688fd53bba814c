"""``sparse-encoder export MODEL OUTPUT``: a sparse encoder as an ONNX graph, and what 8-bit weights change."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparse_encoder.cli.places import check_folder

MAX_TEXTS = 1000
"""Lines of ``--texts`` that are encoded; more would say the same, later."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which options there are."""
    parser.add_argument("model", metavar="MODEL", help="folder or repository of a sparse encoder")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="a folder for the model and its graph in onnx/")
    parser.add_argument("--top-k", type=int, metavar="N", help="give out the N largest weights of a text, not all")
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators (default: the exporter's)")
    parser.add_argument("--int8", action="store_true", help="write a graph with 8-bit weights, too, and measure it")
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help=f"a text a line, on which --int8 is measured (the first {MAX_TEXTS:,})",
    )


def run(options: argparse.Namespace) -> None:
    """Export, hold the graph against the model, and quantise.

    Raises:
        ValueError: If an option is out of range, or the model cannot be exported.
        FileNotFoundError: If the model or the texts are not there.
        NotADirectoryError: If the output folder cannot be made.
        PermissionError: If it cannot be written to.
        ImportError: If the extra is not installed.
    """
    if options.texts is not None and not options.int8:
        raise ValueError("--texts measures what --int8 changes; give both, or none")
    texts = None if options.texts is None else _lines(options.texts)
    check_folder(options.output, "OUTPUT")
    from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET
    from sparse_encoder.model import SparseEncoder
    from sparse_encoder.serving import quantize_onnx

    model = SparseEncoder(options.model, device="cpu")
    opset = DEFAULT_OPSET if options.opset is None else options.opset
    report = model.export_onnx(options.output, top_k=options.top_k, opset=opset)
    for each in (report, *report.others):
        size, off = f"{each.num_bytes / 1e6:.1f} MB", f"at most {each.largest_difference:.1e} off the model"
        print(f"{each.path}: opset {each.opset}, {size}, {off} in {each.num_cases} batches")
    if options.int8:
        print(quantize_onnx(options.output, texts=texts))


def _lines(file: Path) -> list[str]:
    """Read the texts that are not blank.

    Raises:
        ValueError: If there are none, or they are not UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as reason:
        raise ValueError(f"{file} must be UTF-8: {reason}") from None
    texts = [line for line in lines if line.strip()][:MAX_TEXTS]
    if not texts:
        raise ValueError(f"{file} has no texts")
    return texts
