"""Train, evaluate, search with and serve learned sparse retrieval models on plain torch.

Public names are loaded on first use (PEP 562): importing the package imports neither torch nor anything heavy.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_encoder.backbone import LoraConfig
    from sparse_encoder.backend import export_dynamic_quantized_onnx_model, export_optimized_onnx_model
    from sparse_encoder.embeddings import SparseEmbeddings
    from sparse_encoder.model import SparseEncoder
    from sparse_encoder.model_card import SparseEncoderModelCardData
    from sparse_encoder.samplers import DefaultBatchSampler, MultiDatasetDefaultBatchSampler
    from sparse_encoder.search import BM25, SparseIndex
    from sparse_encoder.similarity import SimilarityFunction
    from sparse_encoder.training import (
        DataCollatorWithPadding,
        DefaultFlowCallback,
        EarlyStoppingCallback,
        EvalPrediction,
        PrinterCallback,
        ProgressCallback,
        SparseEncoderDataCollator,
        SparseEncoderTrainer,
        SparseEncoderTrainingArguments,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from sparse_encoder.util import LoggingHandler, resolve_ids

__version__ = "0.1.0"

_HOMES = {
    "BM25": "sparse_encoder.search",
    "DataCollatorWithPadding": "sparse_encoder.training",
    "DefaultBatchSampler": "sparse_encoder.samplers",
    "DefaultFlowCallback": "sparse_encoder.training",
    "EarlyStoppingCallback": "sparse_encoder.training",
    "EvalPrediction": "sparse_encoder.training",
    "LoggingHandler": "sparse_encoder.util.logging",
    "LoraConfig": "sparse_encoder.backbone",
    "MultiDatasetDefaultBatchSampler": "sparse_encoder.samplers",
    "PrinterCallback": "sparse_encoder.training",
    "ProgressCallback": "sparse_encoder.training",
    "SimilarityFunction": "sparse_encoder.similarity_names",
    "SparseEmbeddings": "sparse_encoder.embeddings",
    "SparseEncoder": "sparse_encoder.front",
    "SparseEncoderDataCollator": "sparse_encoder.training",
    "SparseEncoderModelCardData": "sparse_encoder.model_card",
    "SparseEncoderTrainer": "sparse_encoder.training",
    "SparseEncoderTrainingArguments": "sparse_encoder.training",
    "SparseIndex": "sparse_encoder.search",
    "Trainer": "sparse_encoder.training",
    "TrainerCallback": "sparse_encoder.training",
    "TrainerControl": "sparse_encoder.training",
    "TrainerState": "sparse_encoder.training",
    "TrainingArguments": "sparse_encoder.training",
    "export_dynamic_quantized_onnx_model": "sparse_encoder.backend",
    "export_optimized_onnx_model": "sparse_encoder.backend",
    "resolve_ids": "sparse_encoder.util.dataset",
}
_REFUSED = {"export_static_quantized_openvino_model"}
"""Names of the peer's; ``backend`` says what to use."""


_PARTS = {"backend", "evaluation", "losses", "models", "modules", "samplers", "util"}

__all__ = [
    "BM25",
    "DataCollatorWithPadding",
    "DefaultBatchSampler",
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "EvalPrediction",
    "LoggingHandler",
    "LoraConfig",
    "MultiDatasetDefaultBatchSampler",
    "PrinterCallback",
    "ProgressCallback",
    "SimilarityFunction",
    "SparseEmbeddings",
    "SparseEncoder",
    "SparseEncoderDataCollator",
    "SparseEncoderModelCardData",
    "SparseEncoderTrainer",
    "SparseEncoderTrainingArguments",
    "SparseIndex",
    "Trainer",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "TrainingArguments",
    "export_dynamic_quantized_onnx_model",
    "export_optimized_onnx_model",
    "resolve_ids",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home, or a part of the library, the first time it is asked for."""
    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    if name in _REFUSED:
        return getattr(import_module("sparse_encoder.backend"), name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; choose from {sorted(_HOMES)}")
    if name == "SparseEncoder" and sys.modules.get("torch") is not None:
        import_module("sparse_encoder.model")  # fills the class, see there
    try:
        value: object = getattr(import_module(_HOMES[name]), name)
    except ImportError:
        if name == "SparseEmbeddings" and sys.modules.get("torch") is None:  # where there is no torch they are arrays
            return import_module("sparse_encoder.embeddings_arrays").ArrayEmbeddings
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_HOMES})
