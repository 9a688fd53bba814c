"""The README of a trained model that is no SparseEncoder: a token classifier, a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sparse_encoder.model_card import TRAINED_TAG
from sparse_encoder.model_card_base import EPOCH, STEP, VALIDATION_LOSS, ModelCardData
from sparse_encoder.model_card_markdown import fence, one_line, sentence_list
from sparse_encoder.model_card_results import EvaluationResult
from sparse_encoder.model_card_sections import base_model_fact, dataset_names, training_parts
from sparse_encoder.training.card.facts import (
    chosen_settings,
    describe_datasets,
    named_datasets,
    token_counter,
    told_settings,
    total_rows,
)
from sparse_encoder.training.card.logs import loss_values, metric_values, rows_of
from sparse_encoder.training.sharding import class_name

if TYPE_CHECKING:
    from torch import nn

    from sparse_encoder.training.card.callback import CardTrainer

_TASK = "Evaluation"
_RUNTIME = "train_runtime"


def generic_card(trainer: CardTrainer) -> ModelCardData:
    """Collect what a trainer knows of its model: data, settings, log, the last evaluation.

    Args:
        trainer: Its history and settings are read; nothing is computed but statistics of the first rows.
    """
    args, state = trainer.args, trainer.state
    card = ModelCardData(tags=[TRAINED_TAG])
    count = token_counter(trainer.model, getattr(trainer, "processing_class", None))
    card.describe_train_datasets(describe_datasets(trainer.train_dataset, {}, count))
    card.describe_eval_datasets(describe_datasets(trainer.eval_dataset, {}, count))
    size = total_rows(trainer.train_dataset)
    if size is not None:
        card.add_tags(f"dataset_size:{size}")
    settings = args.to_dict()
    card.all_hyperparameters = told_settings(settings)
    card.non_default_hyperparameters = chosen_settings(settings, defaults_of(args))
    names = list(named_datasets(trainer.eval_dataset))
    card.training_logs = rows_of(state.log_history, names)
    card.logged_metrics = list(
        dict.fromkeys(name for row in card.training_logs for name in row if name not in (EPOCH, STEP))
    )
    if state.best_global_step is not None:
        card.set_best_model_step(state.best_global_step)
    card.eval_results = _last_results(state.log_history, names, type(trainer).__name__)
    card.training_seconds = next((row[_RUNTIME] for row in reversed(state.log_history) if _RUNTIME in row), None)
    source = _base_model(trainer.model)
    if source is not None:
        card.set_base_model(source)
    return card


def defaults_of(args: Any) -> dict[str, Any]:  # noqa: ANN401  (training arguments; values of many types)
    """Return the settings as they are by default."""
    kind = type(args)
    given = {"output_dir": "unused"} if "output_dir" in {each.name for each in fields(kind)} else {}
    settings: dict[str, Any] = kind(**given).to_dict()
    return settings


def write_generic_card(model: nn.Module, card: ModelCardData) -> str:
    """Write the README of a model: front matter and body.

    Args:
        model: What it is.
        card: What is told of it; gets a title and names of what was evaluated, if it has none.

    Returns:
        Markdown.
    """
    kind = class_name(model)
    card.model_name = card.model_name or (f"{kind} based on {card.base_model}" if card.base_model else kind)
    card.eval_results = [_of_task(result, card) for result in card.eval_results]
    config = getattr(model, "config", None)
    architecture = getattr(config, "model_type", None)
    facts = {
        "Model type": f"{kind} ({architecture})" if architecture else kind,
        "Base model": base_model_fact(card),
        "Tasks": ", ".join(card.tasks) or None,
        "Parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "Training datasets": ", ".join(dataset_names(card.train_datasets)) or None,
        "Evaluation datasets": ", ".join(dataset_names(card.eval_datasets)) or None,
        "Language": ", ".join(card.language or ()) or None,
        "License": one_line(card.license) if card.license else None,
    }
    named = dataset_names(card.train_datasets)
    data = f" on {sentence_list(named)}" if named else ""
    start = f"a version of `{one_line(card.base_model)}` that was" if card.base_model else "a model that was"
    parts = [
        f"---\n{card.to_yaml()}\n---",
        f"# {one_line(card.model_name)}",
        f"This is {start} trained{data} with [sparse-encoder](https://pypi.org/project/sparse-encoder/).",
        "## Model details",
        "\n".join(f"- **{label}:** {value}" for label, value in facts.items() if value),
        "### Architecture",
        fence(str(model)),
        *training_parts(card),
    ]
    return "\n\n".join(parts) + "\n"


def _last_results(history: list[dict[str, float]], names: list[str | None], evaluator: str) -> list[EvaluationResult]:
    """Return the last losses and metrics that were logged, as one result."""
    found: dict[str, float] = {}
    for row in history:
        found |= {**loss_values(row, names), **metric_values(row)}
    metrics = {"loss" if name == VALIDATION_LOSS else name: value for name, value in found.items()}
    dataset = sentence_list([name for name in names if name])
    return [EvaluationResult(evaluator=evaluator, task=_TASK, dataset=dataset, metrics=metrics)] if metrics else []


def _of_task(result: EvaluationResult, card: ModelCardData) -> EvaluationResult:
    """Say which task and data a result is of, as far as the card tells."""
    named = (each for each in (*card.eval_datasets, *card.train_datasets) if each.get("name") or each.get("id"))
    data = next(named, {})
    return replace(
        result,
        task=card.tasks[0] if card.tasks else result.task,
        dataset=result.dataset or str(data.get("name") or data.get("id") or ""),
        dataset_type=str(data.get("id") or ""),
        dataset_config=data.get("config"),
    )


def _base_model(model: object) -> str | None:
    """Return the hub id that a model was loaded from, if it carries one."""
    config = getattr(model, "config", None)
    values = config if isinstance(config, Mapping) else vars(config) if hasattr(config, "__dict__") else {}
    name = values.get("name_or_path") or values.get("_name_or_path")
    return name if isinstance(name, str) and name.count("/") == 1 and not name.startswith((".", "/")) else None
