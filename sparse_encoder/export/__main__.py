"""``python -m sparse_encoder.export --model=MODEL OUTPUT``: a model as a graph, with the options of transformers.onnx.

Sparse encoders are written by ``sparse-encoder export``, together with what serves them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from sparse_encoder.checkpoint import fetch_model_folder
from sparse_encoder.checkpoint.graph_names import GRAPH_FILE, SPARSE_TASK, SUFFIX
from sparse_encoder.export.documented import export, validate_model_outputs
from sparse_encoder.export.features import FeaturesManager
from sparse_encoder.tokenizer import Tokenizer

logger = logging.getLogger("sparse_encoder.export")


def main(arguments: Sequence[str] | None = None) -> None:
    """Export a model and compare the graph with it.

    Args:
        arguments: What follows the command; ``None`` for that of this process.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If the model cannot be exported for this.
        OutputMismatchError: If the graph computes something else; it stays, to be looked at.
    """
    options = _parser().parse_args(arguments)
    folder = fetch_model_folder(options.model, cache_folder=options.cache_dir)
    model = FeaturesManager.get_model_from_feature(options.feature, folder, framework=options.framework)
    _, constructor = FeaturesManager.check_supported_model_or_raise(model, feature=options.feature)
    config = constructor(model.config)
    output: Path = options.output if options.output.suffix == SUFFIX else options.output / GRAPH_FILE
    tokenizer = Tokenizer.from_pretrained(folder)
    opset = config.default_onnx_opset if options.opset is None else options.opset
    _, outputs = export(tokenizer, model, config, opset, output)
    tolerance = config.atol_for_validation if options.atol is None else options.atol
    validate_model_outputs(config, tokenizer, model, output, outputs, tolerance)
    logger.info("All good, model saved at: %s", output.as_posix())


def _parser() -> argparse.ArgumentParser:
    features = [name for name in FeaturesManager.AVAILABLE_FEATURES if name != SPARSE_TASK]
    parser = argparse.ArgumentParser("python -m sparse_encoder.export", description="Write a model as an ONNX graph.")
    parser.add_argument("output", type=Path, help=f"the graph, *{SUFFIX}, or a folder for {GRAPH_FILE}")
    parser.add_argument("-m", "--model", required=True, help="folder or repository of the model")
    parser.add_argument("--feature", choices=features, default="default", help="what the graph is for")
    parser.add_argument("--opset", type=int, help="version of the operators")
    parser.add_argument("--atol", type=float, help="largest difference from the model that is allowed")
    parser.add_argument("--framework", choices=["pt"], default="pt", help="there is torch only")
    parser.add_argument("--cache_dir", help="where downloads are kept")
    parser.add_argument(
        "--preprocessor", choices=["auto", "tokenizer"], default="auto", help="there are tokenizers only"
    )
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
