"""The import lines of scripts for sentence-transformers, with no more than the name of the package changed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

import sparse_encoder

PATHS = os.pathsep.join(path for path in sys.path if path)

HOMES = {
    "backend": {
        "export_dynamic_quantized_onnx_model": "serving.quantization",
        "export_optimized_onnx_model": "serving.optimization",
    },
    "base.evaluation": {
        "BaseEvaluator": "evaluation.base",
        "SentenceEvaluator": "evaluation.base",
        "SequentialEvaluator": "evaluation.sequential",
    },
    "base.modules": {
        "Dense": "modules.dense",
        "InputModule": "modules.base",
        "Module": "modules.base",
        "Normalize": "modules.normalize",
        "Router": "modules.router",
        "Transformer": "modules.transformer",
    },
    "base.sampler": {
        "BatchSamplers": "samplers.names",
        "DefaultBatchSampler": "samplers.default",
        "GroupByLabelBatchSampler": "samplers.group_by_label",
        "MultiDatasetBatchSamplers": "samplers.names",
        "MultiDatasetDefaultBatchSampler": "samplers.multi_dataset",
        "NoDuplicatesBatchSampler": "samplers.no_duplicates",
        "ProportionalBatchSampler": "samplers.multi_dataset",
        "RoundRobinBatchSampler": "samplers.multi_dataset",
    },
    "base.training_args": {
        "BatchSamplers": "samplers.names",
        "MultiDatasetBatchSamplers": "samplers.names",
    },
    "callbacks": {
        "CodeCarbonCallback": "training.events.codecarbon",
        "DefaultFlowCallback": "training.events.flow",
        "EarlyStoppingCallback": "training.events.early_stopping",
        "ExportableState": "training.events.protocol",
        "PrinterCallback": "training.events.progress",
        "ProgressCallback": "training.events.progress",
        "SchedulerType": "training.events.splade_weights",
        "SpladeRegularizerWeightSchedulerCallback": "training.events.splade_weights",
        "TensorBoardCallback": "training.events.tensorboard",
        "TrainerCallback": "training.events.protocol",
        "TrainerControl": "training.state",
        "TrainerState": "training.state",
        "WandbCallback": "training.events.wandb",
    },
    "callbacks.splade_callbacks": {
        "SchedulerType": "training.events.splade_weights",
        "SpladeRegularizerWeightSchedulerCallback": "training.events.splade_weights",
    },
    "data_collator": {"SparseEncoderDataCollator": "training.data.collator"},
    "evaluation": {
        "ReciprocalRankFusionEvaluator": "evaluation.reciprocal_rank_fusion",
        "SequentialEvaluator": "evaluation.sequential",
        "SimilarityFunction": "similarity",
        "SparseBinaryClassificationEvaluator": "evaluation.binary_classification",
        "SparseEmbeddingSimilarityEvaluator": "evaluation.embedding_similarity",
        "SparseInformationRetrievalEvaluator": "evaluation.information_retrieval",
        "SparseMSEEvaluator": "evaluation.mse",
        "SparseNanoBEIREvaluator": "evaluation.nano_beir_evaluator",
        "SparseRerankingEvaluator": "evaluation.reranking",
        "SparseTranslationEvaluator": "evaluation.translation",
        "SparseTripletEvaluator": "evaluation.triplet",
    },
    "models": {
        "Asym": "modules.router",
        "Dense": "modules.dense",
        "Dropout": "modules.dropout",
        "InputModule": "modules.base",
        "MLMTransformer": "modules.transformer",
        "Module": "modules.base",
        "Normalize": "modules.normalize",
        "Pooling": "modules.pooling",
        "Router": "modules.router",
        "SparseAutoEncoder": "modules.sparse_auto_encoder",
        "SparseStaticEmbedding": "modules.sparse_static_embedding",
        "SpladePooling": "modules.splade_pooling",
        "Transformer": "modules.transformer",
    },
    "sampler": {
        "BatchSamplers": "samplers.names",
        "DefaultBatchSampler": "samplers.default",
        "GroupByLabelBatchSampler": "samplers.group_by_label",
        "MultiDatasetBatchSamplers": "samplers.names",
        "MultiDatasetDefaultBatchSampler": "samplers.multi_dataset",
        "NoDuplicatesBatchSampler": "samplers.no_duplicates",
        "ProportionalBatchSampler": "samplers.multi_dataset",
        "RoundRobinBatchSampler": "samplers.multi_dataset",
    },
    "similarity_functions": {"SimilarityFunction": "similarity"},
    "trainer": {"SparseEncoderTrainer": "training.trainer"},
    "training_args": {
        "BatchSamplers": "samplers.names",
        "MultiDatasetBatchSamplers": "samplers.names",
        "SparseEncoderTrainingArguments": "training.sparse_arguments",
    },
    "util.similarity": {
        "SimilarityFunction": "similarity",
        "cos_sim": "similarity",
        "dot_score": "similarity",
        "euclidean_sim": "similarity",
        "manhattan_sim": "similarity",
        "pairwise_angle_sim": "similarity",
        "pairwise_cos_sim": "similarity",
        "pairwise_dot_score": "similarity",
        "pairwise_euclidean_sim": "similarity",
        "pairwise_manhattan_sim": "similarity",
        "pytorch_cos_sim": "util",
    },
}
"""By module, and by name in it: where that name is defined."""

PLACES = [(module, name, home) for module, names in HOMES.items() for name, home in names.items()]


@pytest.mark.parametrize(("module", "name", "home"), PLACES)
def test_a_name_is_the_one_that_the_library_uses_itself(module: str, name: str, home: str) -> None:
    found = getattr(import_module(f"sparse_encoder.{module}"), name)
    assert found is getattr(import_module(f"sparse_encoder.{home}"), name)


@pytest.mark.parametrize("module", sorted(set(HOMES) - {"evaluation"}))
def test_a_module_of_aliases_has_no_other_names(module: str) -> None:
    names = import_module(f"sparse_encoder.{module}").__all__
    assert names == sorted(HOMES[module])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("dataset", "resolve_ids"),
        ("environment", "is_datasets_available"),
        ("environment", "is_training_available"),
        ("logging", "LoggingHandler"),
        ("retrieval", "semantic_search"),
        ("tensor", "batch_to_device"),
        ("tensor", "compute_count_vector"),
        ("tensor", "normalize_embeddings"),
        ("tensor", "select_max_active_dims"),
        ("tensor", "to_scipy_coo"),
    ],
)
def test_utilities_are_defined_where_scripts_import_them_from(module: str, name: str) -> None:
    found = getattr(import_module(f"sparse_encoder.util.{module}"), name)
    assert found.__module__ == f"sparse_encoder.util.{module}"
    assert found is getattr(import_module("sparse_encoder.util"), name)


@pytest.mark.parametrize("name", ["evaluation", "losses", "models", "modules", "samplers", "util"])
def test_modules_are_found_in_the_package(name: str) -> None:
    imported: dict[str, object] = {}
    exec(f"from sparse_encoder import {name}", imported)
    assert imported[name] is import_module(f"sparse_encoder.{name}")


def test_parts_are_found_through_the_package_alone() -> None:
    code = """
import sparse_encoder
sparse_encoder.losses.SpladeLoss, sparse_encoder.evaluation.SequentialEvaluator, sparse_encoder.models.SpladePooling
sparse_encoder.modules.Router, sparse_encoder.util.cos_sim
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": PATHS})
    assert done.returncode == 0


PACKAGE = {
    "DataCollatorWithPadding": "training.data.padding",
    "DefaultBatchSampler": "samplers.default",
    "DefaultFlowCallback": "training.events.flow",
    "EarlyStoppingCallback": "training.events.early_stopping",
    "EvalPrediction": "training.outputs",
    "LoggingHandler": "util",
    "MultiDatasetDefaultBatchSampler": "samplers.multi_dataset",
    "PrinterCallback": "training.events.progress",
    "ProgressCallback": "training.events.progress",
    "Trainer": "training.generic",
    "TrainerCallback": "training.events.protocol",
    "TrainerControl": "training.state",
    "TrainerState": "training.state",
    "TrainingArguments": "training.arguments",
    "export_dynamic_quantized_onnx_model": "serving.quantization",
    "export_optimized_onnx_model": "serving.optimization",
    "resolve_ids": "util.dataset",
}
"""Names that scripts import from sentence_transformers or transformers itself."""


@pytest.mark.parametrize(("name", "home"), PACKAGE.items())
def test_the_package_itself_has_the_name(name: str, home: str) -> None:
    assert name in sparse_encoder.__all__
    assert getattr(sparse_encoder, name) is getattr(import_module(f"sparse_encoder.{home}"), name)


@pytest.mark.parametrize(
    "name",
    [
        *("Adafactor", "AdamW", "get_constant_schedule", "get_cosine_schedule_with_warmup", "get_scheduler"),
        *("get_linear_schedule_with_warmup", "get_polynomial_decay_schedule_with_warmup", "get_last_checkpoint"),
        *("HubStrategy", "IntervalStrategy", "SaveStrategy", "set_seed", "default_data_collator"),
        *("PredictionOutput", "TrainOutput", "CallbackHandler", "ExportableState", "GradientAccumulator"),
    ],
)
def test_training_has_what_scripts_import_from_transformers(name: str) -> None:
    training = import_module("sparse_encoder.training")
    assert name in training.__all__
    assert getattr(training, name).__name__ == name


@pytest.mark.parametrize("module", ["sparse_encoder", "sparse_encoder.backend"])
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("export_static_quantized_openvino_model", "export_dynamic_quantized_onnx_model"),
    ],
)
def test_functions_that_are_not_here_are_refused_with_what_is(module: str, name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=f"{name} is not in this library: .*{instead}"):
        exec(f"from {module} import {name}", {})
