"""The parts of a README that tell of training: evaluation, datasets, settings, log, cost, versions, citations.

Each part is a function from card data to Markdown, empty if there is nothing to tell.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sparse_encoder import __version__
from sparse_encoder.model_card_base import EPOCH, STEP, TRAINING_LOSS, ModelCardData
from sparse_encoder.model_card_datasets import DatasetFacts
from sparse_encoder.model_card_markdown import (
    code,
    duration,
    escape,
    fence,
    folded,
    indent,
    number,
    one_line,
    sentence_list,
    setting,
    table,
)
from sparse_encoder.model_card_results import result_tables

LONGEST_LOG = 100
"""Rows of the training log up to which it is not folded."""

_MODALITIES = {"string": "text", "image": "image"}
_HUB = "https://huggingface.co"
_LIBRARIES = (
    ("PyTorch", "torch"),
    ("Accelerate", "accelerate"),
    ("Datasets", "datasets"),
    ("Tokenizers", "tokenizers"),
    ("Safetensors", "safetensors"),
    ("Hugging Face Hub", "huggingface_hub"),
)


def training_parts(card: ModelCardData) -> list[str]:
    """Return all parts that have something to tell, in their order."""
    details = [
        datasets_part(card.train_datasets, "training"),
        datasets_part(card.eval_datasets, "evaluation"),
        hyperparameters_part(card),
        log_part(card),
        impact_part(card),
        time_part(card),
    ]
    told = [part for part in details if part]
    training = ["## Training details", *told, versions_part()] if told else []
    return [part for part in (evaluation_part(card), *training, citation_part(card)) if part]


def base_model_fact(card: ModelCardData) -> str | None:
    """Name the base model, with its address and revision."""
    if not card.base_model:
        return None
    revision = f" at revision `{one_line(card.base_model_revision)}`" if card.base_model_revision else ""
    return f"`{one_line(card.base_model)}`{revision}"


def dataset_names(datasets: list[DatasetFacts]) -> list[str]:
    """Name the datasets that have a name, those of the hub with their address."""
    return [_linked(dataset) for dataset in datasets if dataset.get("name") or dataset.get("id")]


def evaluation_part(card: ModelCardData) -> str:
    """Tell what evaluators found."""
    return f"## Evaluation\n\n### Metrics\n\n{result_tables(card.eval_results)}" if card.eval_results else ""


def datasets_part(datasets: list[DatasetFacts], use: str) -> str:
    """Tell what is known of the datasets of one use; nothing of those of which only the name is known.

    Args:
        datasets: As the card has them.
        use: ``training`` or ``evaluation``.
    """
    known = [dataset for dataset in datasets if dataset.get("columns") or dataset.get("size") is not None]
    if not known:
        return ""
    plural = "s" if len(known) > 1 else ""
    parts = [f"### {use.capitalize()} dataset{plural}"]
    parts += [f"#### {escape(_name(dataset))}\n\n{_dataset(dataset, use)}" for dataset in known]
    return "\n\n".join(parts)


def _name(dataset: DatasetFacts) -> str:
    return one_line(str(dataset.get("name") or dataset.get("id") or "Unnamed dataset"))


def _linked(dataset: DatasetFacts) -> str:
    name = escape(_name(dataset))
    return f"[{name}]({_HUB}/datasets/{dataset['id']})" if dataset.get("id") else name


def _dataset(dataset: DatasetFacts, use: str) -> str:
    """Write the list of what is known of a dataset."""
    revision, hub_id = dataset.get("revision"), dataset.get("id")
    at = f" at [{str(revision)[:7]}]({_HUB}/datasets/{hub_id}/tree/{revision})" if revision and hub_id else ""
    split = f", split {code(str(dataset['split']))}" if dataset.get("split") else ""
    config = f", configuration {code(str(dataset['config']))}" if dataset.get("config") else ""
    lines = [f"* Dataset: {_linked(dataset)}{at}{config}{split}"]
    if dataset.get("size") is not None:
        lines.append(f"* Size: {dataset['size']:,} {use} samples")
    columns = [str(column) for column in dataset.get("columns", ())]
    if columns:
        lines.append(f"* Columns: {sentence_list([code(column) for column in columns])}")
    statistics = dataset.get("statistics")
    if statistics:
        lines.append(f"* Approximate statistics based on the first {dataset['num_rows']} samples:")
        lines.append(indent(_statistics(statistics)))
        lines += ["* Samples:", indent(_samples(columns, dataset["samples"]))]
    loss = dataset.get("loss")
    if loss:
        lines.append(f"* Loss: {code(loss['name'])}{' with these parameters:' if loss['config'] else ''}")
        lines += [indent(fence(loss["config"], "json"))] if loss["config"] else []
    return "\n".join(lines)


def _statistics(statistics: Mapping[str, Mapping[str, Any]]) -> str:  # types and details by column
    headers = ["", *(escape(one_line(column)) for column in statistics)]
    kinds = ["type", *(escape(each["type"]) for each in statistics.values())]
    modalities = ["modality", *(_MODALITIES.get(each["type"], "") for each in statistics.values())]
    details = ["details", *(_items(each["details"]) for each in statistics.values())]
    return table(headers, [kinds, *([modalities] if any(modalities[1:]) else []), details])


def _items(details: Mapping[str, str]) -> str:
    items = "".join(f"<li>{escape(one_line(name))}: {escape(value)}</li>" for name, value in details.items())
    return f"<ul>{items}</ul>" if items else ""


def _samples(columns: list[str], samples: list[dict[str, str]]) -> str:
    headers = [escape(one_line(column)) for column in columns]
    return table(headers, [[code(sample[column]) for column in columns] for sample in samples])


def hyperparameters_part(card: ModelCardData) -> str:
    """Tell the settings of training, those that were chosen first."""
    if not card.all_hyperparameters:
        return ""
    chosen = _settings(card.non_default_hyperparameters) or "None."
    every = folded(_settings(card.all_hyperparameters))
    return f"### Training hyperparameters\n\n#### Non-default\n\n{chosen}\n\n#### All\n\n{every}"


def _settings(settings: Mapping[str, object]) -> str:
    return "\n".join(f"- `{name}`: {setting(value)}" for name, value in settings.items())


def log_part(card: ModelCardData) -> str:
    """Write the training log: the best step in bold, a long log folded."""
    columns = [column for column in card.logged_metrics if any(column in row for row in card.training_logs)]
    columns.sort(key=lambda column: (column != TRAINING_LOSS, not column.lower().endswith("loss")))  # stable
    rows = [row for row in card.training_logs if any(column in row for column in columns)]
    if not rows:
        return ""
    best = card.best_model_step
    text = table(
        [EPOCH, STEP, *(escape(column) for column in columns)],
        [_log_row(row, columns, bold=row[STEP] == best) for row in rows],
        align="center",
    )
    if len(rows) > LONGEST_LOG:
        text = folded(text)
    if any(row[STEP] == best for row in rows):
        text += "\n\n* The bold row is that of the best evaluation."
    return f"### Training log\n\n{text}"


def _log_row(row: Mapping[str, float], columns: list[str], *, bold: bool) -> list[str]:
    cells = [number(row[EPOCH]), str(int(row[STEP]))]
    cells += [number(row[column]) if column in row else "-" for column in columns]
    return [f"**{cell}**" for cell in cells] if bold else cells


def impact_part(card: ModelCardData) -> str:
    """Tell the energy that training took, and on what."""
    emissions = card.co2_eq_emissions
    if not emissions:
        return ""
    lines = ["Measured with [CodeCarbon](https://github.com/mlco2/codecarbon)."]
    if emissions.get("energy_consumed") is not None:
        lines.append(f"- **Energy consumed:** {number(float(emissions['energy_consumed']))} kWh")
    if emissions.get("emissions") is not None:
        lines.append(f"- **Carbon emitted:** {number(float(emissions['emissions']) / 1000)} kg of CO2")
    if emissions.get("on_cloud") is not None:
        lines.append(f"- **On cloud:** {'yes' if emissions['on_cloud'] else 'no'}")
    hardware = {"GPU": "hardware_used", "CPU": "cpu_model", "RAM": "ram_total_size"}
    for label, name in hardware.items():
        if emissions.get(name):
            shown = f"{emissions[name]:.2f} GB" if isinstance(emissions[name], float) else str(emissions[name])
            lines.append(f"- **{label}:** {escape(one_line(shown))}")
    head, *items = lines
    return f"### Environmental impact\n\n{head}\n\n" + "\n".join(items) if items else ""


def time_part(card: ModelCardData) -> str:
    """Tell how long the run took, without and with evaluations."""
    if card.training_seconds is None:
        return ""
    evaluation = min(card.evaluation_seconds, card.training_seconds)
    since = f", since it was resumed at step {card.resumed_at}" if card.resumed_at else ""
    lines = [f"- **Training:** {duration(card.training_seconds - evaluation)}{since}"]
    if evaluation:
        lines.append(f"- **Evaluation:** {duration(evaluation)}")
        lines.append(f"- **Total:** {duration(card.training_seconds)}")
    return "### Training time\n\n" + "\n".join(lines)


def versions_part() -> str:
    """Tell hardware and the versions of libraries that this runs on."""
    lines = [
        f"- Hardware: {_hardware()}",
        f"- Python: {platform.python_version()}",
        f"- sparse-encoder: {__version__}",
    ]
    for label, distribution in _LIBRARIES:
        found = _version(distribution)
        if found is not None:
            lines.append(f"- {label}: {found}")
    return "### Environment\n\n" + "\n".join(lines)


@cache  # a card is written at every checkpoint, and the whole of a distribution's metadata is parsed for its version
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _hardware() -> str:
    """Name the accelerators, or the processor if there are none."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return escape(sentence_list([f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]))
    return f"CPU ({platform.machine() or 'unknown'})"


def citation_part(card: ModelCardData) -> str:
    """Cite the papers of the losses."""
    if not card.citations:
        return ""
    entries = [f"#### {escape(one_line(source))}\n\n{fence(text, 'bibtex')}" for source, text in card.citations.items()]
    return "\n\n".join(["## Citation", "### BibTeX", *entries])
