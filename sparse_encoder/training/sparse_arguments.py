"""The settings of a SparseEncoder's training, named as in sentence-transformers; knows neither data nor model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import BatchSampler

from sparse_encoder.samplers import BatchSamplers, DefaultBatchSampler, MultiDatasetBatchSamplers
from sparse_encoder.training.argument_values import read_mapping
from sparse_encoder.training.arguments import TrainingArguments

BatchSamplerFactory = Callable[..., BatchSampler]
ByColumnOrDataset = dict[str, str | dict[str, str]]

_DEFAULTS_ONLY = {
    "label_smoothing_factor": "losses of sparse encoders have no class labels to smooth",
    "include_for_metrics": "losses of sparse encoders have no outputs; give the trainer an evaluator",
    "batch_eval_metrics": "losses of sparse encoders have no outputs; give the trainer an evaluator",
    "eval_accumulation_steps": "losses of sparse encoders have no outputs that could pile up",
    "eval_do_concat_batches": "losses of sparse encoders have no outputs",
    "eval_use_gather_object": "losses of sparse encoders have no outputs",
    "label_names": "the data collator's valid_label_columns say which columns hold labels",
    "train_sampling_strategy": "batch_sampler says which rows go into which batch",
    "length_column_name": "batch_sampler says which rows go into which batch",
    "average_tokens_across_devices": "losses of sparse encoders are means over rows",
}
"""Fields of the generic trainer that have no meaning here, and why."""


@dataclass
class SparseEncoderTrainingArguments(TrainingArguments):
    """Settings of :class:`~sparse_encoder.training.SparseEncoderTrainer`.

    Every field is honoured; a field of the peer that is missing here is refused by name (``TypeError``), and so is a
    value that has no meaning here (``ValueError``), both at construction.

    Raises:
        ValueError: If a value is out of range, unknown, not supported, or contradicts another.
        TypeError: If a value has the wrong type.
    """

    prediction_loss_only: bool = True
    """Losses of sparse encoders have no outputs, so this becomes true, here as in sentence-transformers."""
    remove_unused_columns: bool = True
    """Unlike in the generic trainer all columns are used: none is removed, as in sentence-transformers."""
    prompts: ByColumnOrDataset | str | None = None
    """Put in front of the texts of every column, or by column, by dataset, or by dataset and column."""
    batch_sampler: BatchSamplers | str | type[DefaultBatchSampler] | BatchSamplerFactory = BatchSamplers.BATCH_SAMPLER
    """A name, or a class or function called as :meth:`SparseEncoderTrainer.get_batch_sampler` is."""
    multi_dataset_batch_sampler: MultiDatasetBatchSamplers | str | BatchSamplerFactory = (
        MultiDatasetBatchSamplers.PROPORTIONAL
    )
    """The same for the order of datasets, called as :meth:`SparseEncoderTrainer.get_multi_dataset_batch_sampler` is."""
    router_mapping: ByColumnOrDataset | str | None = field(default_factory=dict)
    """The route of each column, perhaps by dataset, for models with a Router."""

    def __post_init__(self) -> None:
        """Bring the values into one form and check them."""
        self.router_mapping = read_mapping("router_mapping", self.router_mapping)
        self.prompts = _prompts(self.prompts)
        super().__post_init__()
        self.prediction_loss_only = True
        if isinstance(self.batch_sampler, str):
            self.batch_sampler = BatchSamplers(self.batch_sampler)
        if isinstance(self.multi_dataset_batch_sampler, str):
            self.multi_dataset_batch_sampler = MultiDatasetBatchSamplers(self.multi_dataset_batch_sampler)
        self._check()

    def _check(self) -> None:
        """Check what is given by column or dataset, and refuse what has no meaning here."""
        for name, reason in _DEFAULTS_ONLY.items():
            default = getattr(TrainingArguments, name, [])
            if getattr(self, name) != default:
                raise ValueError(f"{name} must be {default!r}, got {getattr(self, name)!r}: {reason}")
        _check_texts("prompts", self.prompts)
        _check_texts("router_mapping", self.router_mapping)
        for name in ("batch_sampler", "multi_dataset_batch_sampler"):
            if not isinstance(getattr(self, name), str) and not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a name, a class or a function, got {getattr(self, name)!r}")


def _check_texts(name: str, value: object) -> None:
    """Check texts by column, by dataset, or by dataset and column."""
    if not isinstance(value, dict):
        if not isinstance(value, str | None):
            raise TypeError(f"{name} must be a str or a dict to str, got {value!r}")
        return
    for key, each in value.items():
        if isinstance(each, dict) and not any(isinstance(text, dict) for text in each.values()):
            _check_texts(f"{name}[{key!r}]", each)
        elif not isinstance(each, str):
            raise TypeError(f"{name} must hold str by column, dataset, or dataset and column, got {each!r} for {key!r}")


def _prompts(value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:  # texts, or texts by column
    """Return prompts from JSON if it is an object, else as they are: a prompt need not be JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            return value
        return parsed if isinstance(parsed, dict) else value
    return value
