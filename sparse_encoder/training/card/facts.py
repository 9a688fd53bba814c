"""What can be read off a trainer for a README: its datasets, its losses, its settings without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from sparse_encoder.model_card_columns import TokenCounter
from sparse_encoder.model_card_datasets import DatasetFacts, describe_dataset, num_rows
from sparse_encoder.model_card_losses import LossFacts, describe_loss
from sparse_encoder.tokenizer import Tokenizer

LONGEST_COUNTED = 20_000
"""Characters of a text whose tokens are counted; what is behind them is left out."""

_BOOKKEEPING = {
    "do_eval", "do_predict", "do_test", "do_train", "eval_delay", "eval_steps", "eval_strategy",
    "evaluation_strategy", "greater_is_better", "logging_dir", "logging_first_step", "logging_steps",
    "logging_strategy", "metric_for_best_model", "output_dir", "report_to", "run_name", "samples_per_label",
    "save_steps", "save_strategy", "save_total_limit", "show_progress_bar",
}  # fmt: skip
"""Settings that say where and how often a run reports, not what it computes."""
_SECRET = re.compile(
    r"(^|_)((token|secret)(_value)?|secrets|(hf|hub|access|auth|api|bearer)_?tokens?(_.*)?|auth|authorization|"
    r"pass(word|wd|phrase)s?|(api|access|private|secret)_?keys?(_.*)?|credentials?)$",
    re.IGNORECASE,
)


def named_datasets(data: object) -> dict[str | None, object]:
    """Return the datasets of a trainer by name; a single one has none, and what is not there is not in it."""
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return {str(name): dataset for name, dataset in data.items()}
    return {None: data}


def losses_by_name(loss: object) -> dict[str | None, nn.Module]:
    """Return the losses of a trainer by the dataset they are for; a single one is for all."""
    if isinstance(loss, Mapping | nn.ModuleDict):
        return {str(name): each for name, each in loss.items() if isinstance(each, nn.Module)}
    return {None: loss} if isinstance(loss, nn.Module) else {}


def describe_losses(loss: object) -> dict[str | None, LossFacts]:
    """Describe the losses of a trainer by the dataset they are for."""
    return {name: describe_loss(each) for name, each in losses_by_name(loss).items()}


def describe_datasets(
    data: object, losses: Mapping[str | None, LossFacts], count_tokens: TokenCounter | None
) -> list[DatasetFacts]:
    """Describe the datasets of a trainer, each with its loss."""
    described = []
    for name, dataset in named_datasets(data).items():
        facts = describe_dataset(dataset, name=name, count_tokens=count_tokens)
        loss = losses.get(name, losses.get(None))
        described.append(facts if loss is None else {**facts, "loss": loss})
    return described


def total_rows(data: object) -> int | None:
    """Return the number of rows of all datasets; None if one of them does not know it, or there are none."""
    sizes = [num_rows(dataset) for dataset in named_datasets(data).values()]
    return sum(size or 0 for size in sizes) if sizes and None not in sizes else None


def token_counter(model: object, processing_class: object = None) -> TokenCounter | None:
    """Return what counts the tokens of texts as the model reads them; None if it has no tokenizer of the library.

    Args:
        model: Asked for ``tokenizer`` and ``max_seq_length``.
        processing_class: Used in the place of the model's tokenizer, if it is one of the library.
    """
    tokenizer = processing_class if isinstance(processing_class, Tokenizer) else getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        return None
    longest = getattr(model, "max_seq_length", None)

    def count(texts: list[str]) -> list[int]:
        return tokenizer.encode_batch([text[:LONGEST_COUNTED] for text in texts], max_length=longest).lengths

    return count


def told_settings(settings: Mapping[str, Any]) -> dict[str, Any]:  # values of many types
    """Return settings that say what a run computes, without anything that looks like a secret, nested ones too."""
    return {name: value for name, value in without_secrets(settings).items() if name not in _BOOKKEEPING}


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:  # as above
    """Leave out what is named like a token, key or password, however deep it is."""
    return {str(name): _without(value) for name, value in settings.items() if not _SECRET.search(str(name))}


def _without(value: Any) -> Any:  # noqa: ANN401  (as above)
    if isinstance(value, Mapping):
        return without_secrets(value)
    return [_without(each) for each in value] if isinstance(value, list | tuple) else value


def chosen_settings(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:  # as above
    """Return those of the told settings that differ from what they are by default."""
    told, usual = told_settings(settings), told_settings(defaults)
    return {name: value for name, value in told.items() if name in usual and value != usual[name]}
