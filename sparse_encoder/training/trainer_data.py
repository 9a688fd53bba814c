"""The datasets of a SparseEncoder's training: which, how they are named, sampled and read; knows no losses' maths."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import BatchSampler, DataLoader

from sparse_encoder.samplers import (
    BATCH_SAMPLERS,
    MULTI_DATASET_BATCH_SAMPLERS,
    BatchSamplers,
    MultiDatasetBatchSamplers,
)
from sparse_encoder.training.data import names
from sparse_encoder.training.data.collator import Batch
from sparse_encoder.training.data.datasets import TrainingData, as_training_data, fingerprint
from sparse_encoder.training.data.loaders import build_loader
from sparse_encoder.training.data.streams import stream_order
from sparse_encoder.training.data.text_names import check_text_names, warn_about_unused_names
from sparse_encoder.training.data.trainer_loading import data_to_evaluate, loader_settings, sets_by_name
from sparse_encoder.training.objectives import check_losses
from sparse_encoder.training.sparse_arguments import SparseEncoderTrainingArguments

logger = logging.getLogger(__name__)

_LONGEST_NAME = 1000


class TrainerData:
    """The methods of a trainer that have to do with data."""

    args: SparseEncoderTrainingArguments
    accelerator: Accelerator
    train_dataset: Any  # of any kind that can be trained on, or several by name
    eval_dataset: Any  # as above
    data_collator: Any  # makes a batch of rows
    evaluator: Any  # works without a dataset
    given_loss: Any  # one loss, or several by name of the dataset
    _own_collator: bool  # whether the trainer made it

    def preprocess_dataset(
        self,
        dataset: object = None,
        prompts: object = None,
        router_mapping: object = None,
        dataset_name: str | None = None,
    ) -> Any:  # noqa: ANN401  (a dataset, or several by name)
        """Return a view of a dataset that adds the name of the dataset to its rows, if something goes by it."""
        return names.preprocess_dataset(
            dataset, prompts, router_mapping, dataset_name, args=self.args, loss=self.given_loss
        )

    def maybe_add_dataset_name_column(
        self, dataset: object, prompts: object = None, router_mapping: object = None, dataset_name: str | None = None
    ) -> Any:  # noqa: ANN401  (a dataset, or several by name)
        """Return a view with the column ``dataset_name`` if something goes by it, else the dataset itself."""
        return names.maybe_add_dataset_name_column(
            dataset, prompts, router_mapping, dataset_name, args=self.args, loss=self.given_loss
        )

    def should_dataset_name_column_be_added(
        self, dataset: object, args: SparseEncoderTrainingArguments, loss: object
    ) -> bool:
        """Return whether losses, prompts or routes go by the name of the dataset."""
        return names.should_dataset_name_column_be_added(dataset, args, loss)

    add_dataset_name_column = staticmethod(names.add_dataset_name_column)
    add_dataset_name_transform = staticmethod(names.add_dataset_name_transform)
    validate_column_names = staticmethod(names.validate_column_names)

    def eval_sets(self, eval_dataset: object) -> dict[str | None, object]:
        """Return the datasets to evaluate by name; a single one, or none at all for the evaluator alone, has None.

        Raises:
            ValueError: If there is nothing to evaluate with, or no dataset of this name.
        """
        data = self._eval_data(eval_dataset)
        if data is None:
            if self.evaluator is None:
                raise ValueError("evaluate() needs an eval_dataset or an evaluator")
            return {None: None}
        return sets_by_name(data, eval_dataset)

    def get_batch_sampler(  # house: peer signature
        self,
        dataset: Any,  # noqa: ANN401  (anything with a length)
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler:
        """Return what decides which rows go into which batch; override it, or set ``args.batch_sampler``."""
        chosen = self.args.batch_sampler
        build: Any = BATCH_SAMPLERS[chosen] if isinstance(chosen, BatchSamplers) else chosen
        sampler: BatchSampler = build(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            valid_label_columns=valid_label_columns,
            generator=generator,
            seed=seed,
        )
        return sampler

    def get_multi_dataset_batch_sampler(
        self,
        dataset: Any,  # noqa: ANN401  (anything whose datasets have lengths)
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler:
        """Return what decides from which dataset the next batch comes; override it, or set the argument."""
        chosen = self.args.multi_dataset_batch_sampler
        build: Any = chosen
        if isinstance(chosen, MultiDatasetBatchSamplers):
            build = MULTI_DATASET_BATCH_SAMPLERS[chosen]
        sampler: BatchSampler = build(dataset, batch_samplers=batch_samplers, generator=generator, seed=seed)
        return sampler

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of an epoch, on the device.

        Raises:
            ValueError: If there is no train_dataset, or it is too small for a batch.
        """
        if self.train_dataset is None:
            raise ValueError("train() needs a train_dataset")
        drop_last = self.args.dataloader_drop_last
        if self.accelerator.num_processes > 1 and not drop_last:
            logger.warning("incomplete batches are left out, so that all processes make as many updates")
            drop_last = True
        data = as_training_data(self.train_dataset, "train_dataset")
        return self._loader(data, self.args.per_device_train_batch_size, drop_last=drop_last, even_batches=False)

    def get_eval_dataloader(self, eval_dataset: object = None) -> DataLoader[Batch]:
        """Return the batches of a dataset, or of the trainer's own, in the same random order every time.

        Raises:
            ValueError: If there is no dataset.
        """
        data = self._eval_data(eval_dataset)
        if data is None:
            raise ValueError("there is no eval_dataset")
        return self._loader(data, self.args.per_device_eval_batch_size, drop_last=False, even_batches=True)

    def get_test_dataloader(self, test_dataset: object) -> DataLoader[Batch]:
        """Return the batches of a dataset to predict on."""
        return self.get_eval_dataloader(test_dataset)

    def data_identity(self) -> dict[str, Any]:  # settings of several types
        """Return what decides which rows are in which batch, and what is in them."""
        data = as_training_data(self.train_dataset, "train_dataset")
        return {
            "train_dataset": fingerprint(data),
            "batch_sampler": _plain_name(self.args.batch_sampler),
            "multi_dataset_batch_sampler": _plain_name(self.args.multi_dataset_batch_sampler),
            "prompts": self.args.prompts,
            "router_mapping": self.args.router_mapping,
        }

    def check_text_names(self) -> None:
        """Check the columns and datasets that prompts and routes go by, or say that the data collator gets none.

        Raises:
            ValueError: If there is no column or dataset of a name; says which there are.
        """
        if not self._own_collator:
            warn_about_unused_names(self.args, self.data_collator)
            return
        given = {"train_dataset": self.train_dataset, "eval_dataset": self.eval_dataset}
        sets = [as_training_data(data, name) for name, data in given.items() if data is not None]
        check_text_names(self.args, sets)

    def _prepared(self, dataset: object, name: str) -> Any:  # noqa: ANN401  (as given, or a view of it)
        """Return a dataset with what its rows need added, checked before any work is done."""
        if dataset is None:
            return None
        prepared = self.preprocess_dataset(dataset)
        data = as_training_data(prepared, name)
        if isinstance(self.given_loss, dict) and not names.is_named(dataset):  # one of several has its name already
            check_losses(self.given_loss, data)
        return prepared

    def _eval_data(self, eval_dataset: object) -> TrainingData | None:
        """Return the data to evaluate on: those given, those of a name, or the trainer's own."""
        return data_to_evaluate(self.eval_dataset, eval_dataset, self._prepared)

    def _loader(self, data: TrainingData, batch_size: int, *, drop_last: bool, even_batches: bool) -> DataLoader[Batch]:
        """Return the batches of some data, on the device and shared out among the processes."""
        args = self.args
        order = MultiDatasetBatchSamplers.PROPORTIONAL
        if data.is_stream:
            order = stream_order(args.batch_sampler, args.multi_dataset_batch_sampler if len(data.parts) > 1 else order)
        settings = loader_settings(
            args,
            self.accelerator,
            batch_size=batch_size,
            drop_last=drop_last,
            even_batches=even_batches,
            stream_order=order,
        )
        return build_loader(
            data,
            settings,
            collate=self.data_collator,
            accelerator=self.accelerator,
            make_batch_sampler=self.get_batch_sampler,
            make_multi_dataset_batch_sampler=self.get_multi_dataset_batch_sampler,
        )


def _plain_name(sampler: object) -> str:
    """Return the name of a sampler, a class or a function, with the options that it was bound to."""
    if isinstance(sampler, partial):
        options = [*map(repr, sampler.args), *(f"{name}={value!r}" for name, value in sampler.keywords.items())]
        return f"{_plain_name(sampler.func)}({', '.join(options)})"[:_LONGEST_NAME]
    return str(getattr(sampler, "value", getattr(sampler, "__qualname__", type(sampler).__qualname__)))
