"""Trainer: trains any module whose forward takes a batch by name and returns a loss, such as a token classifier.

It says what is read, computed and predicted; the loop is in :mod:`sparse_encoder.training.loop`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader

from sparse_encoder.samplers import DefaultBatchSampler, ProportionalBatchSampler
from sparse_encoder.samplers.length_grouped import LengthGroupedBatchSampler
from sparse_encoder.samplers.sequential import SequentialBatchSampler
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.base import Callbacks, TrainerBase, one_of
from sparse_encoder.training.checkpoints.optimizer_state import Schedule
from sparse_encoder.training.data.collator import Batch
from sparse_encoder.training.data.columns import keep_columns, lengths_of
from sparse_encoder.training.data.datasets import TrainingData, as_training_data, fingerprint
from sparse_encoder.training.data.loaders import build_loader
from sparse_encoder.training.data.padding import SINGLE_LABELS, DataCollatorWithPadding, default_data_collator
from sparse_encoder.training.data.trainer_loading import data_to_evaluate, loader_settings, sets_by_name
from sparse_encoder.training.evaluating import EVALUATION, PREDICTION, EvalLoopOutput
from sparse_encoder.training.outputs import (
    LossFunction,
    count_labels,
    ignored_outputs,
    is_causal,
    loss_in,
    smoothed_loss,
    without_cache,
    without_loss,
)
from sparse_encoder.training.prediction import predict_batches
from sparse_encoder.training.trainer_facts import OptimizerRecipe

Metrics = Callable[..., dict[str, float]]
Preprocess = Callable[[Any, Any], Any]  # of logits and labels, nested as the model's are
Outputs = Any  # of a model: a tensor, a tuple or a mapping

_SPANS = ("start_positions", "end_positions")


class Trainer(TrainerBase):
    """Train a module that computes its own loss: tagging, classification, language models.

    The model's forward takes the columns of a batch by name, labels among them, and returns a mapping with ``loss``, or
    a tuple that begins with the loss. What is drawn at random is a function of the seed and the number of updates, so
    a run that was stopped and resumed ends with the same bytes.

    Args:
        model: What is trained; may be None if there is ``model_init``.
        args: The settings; by default those of ``TrainingArguments("tmp_trainer")``.
        data_collator: Makes a batch of rows; by default it pads with ``processing_class`` if there is one, and else
            stacks columns of numbers.
        train_dataset: A ``datasets.Dataset``, a list of dicts, an object whose rows, dicts, are read by number, a
            stream (``IterableDataset``), or several of them by name.
        eval_dataset: The same.
        processing_class: The tokenizer; saved beside the model.
        model_init: Makes the model anew for each ``train()``; takes nothing, or the trial of a search.
        compute_loss_func: Computes the loss in the place of the model, as
            ``compute_loss_func(outputs, labels, num_items_in_batch=...)``: a sum over labels divided by their number.
        compute_metrics: Maps an :class:`EvalPrediction` to metrics by name.
        callbacks: Instances or classes, called after the default flow and before the progress bar.
        optimizers: An optimizer and a schedule in the place of those that the settings name; each may be None.
        optimizer_cls_and_kwargs: A class of optimizers and its options, in the place of ``args.optim``.
        preprocess_logits_for_metrics: Makes of logits and labels what is kept for ``compute_metrics``.
        tokenizer: Older name of ``processing_class``.

    Raises:
        RuntimeError: If there is no model, or things are given twice.
        ValueError: If the model has no loss, or something does not go together; names it.
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[Any], Batch] | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        processing_class: object = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: LossFunction | None = None,
        compute_metrics: Metrics | None = None,
        callbacks: Callbacks | None = None,
        optimizers: tuple[Optimizer | None, Schedule | None] = (None, None),
        optimizer_cls_and_kwargs: OptimizerRecipe | None = None,
        preprocess_logits_for_metrics: Preprocess | None = None,
        *,
        tokenizer: object = None,
    ) -> None:
        args = TrainingArguments(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, TrainingArguments):
            raise ValueError(f"args must be TrainingArguments, got {type(args).__name__}")
        super().__init__(
            model,
            args,
            processing_class=one_of(processing_class, tokenizer),
            model_init=model_init,
            callbacks=callbacks or (),
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.compute_loss_func, self.compute_metrics = compute_loss_func, compute_metrics
        self.preprocess_logits_for_metrics = preprocess_logits_for_metrics
        self._check_goes_together()
        self.label_names = self._label_names()
        self.data_collator: Callable[[Any], Batch] = (
            self._default_collator() if data_collator is None else data_collator
        )
        self.use_model(self.model)
        self.add_model_card_callback(type(self.args)("unused").to_dict())
        self.fire("on_init_end")

    @property
    def objective(self) -> nn.Module:
        """The module whose parameters are trained: the model."""
        model: nn.Module = self.model
        return model

    def use_model(self, model: nn.Module) -> None:
        """Take another model in the place of the present one."""
        super().use_model(model)
        part = getattr(model, "unsmoothed", None)
        if part is not None and self.args.label_smoothing_factor > 0 and self.compute_loss_func is None:
            raise ValueError(
                f"label_smoothing_factor does not go with {part} of the model, which a smoothed loss would leave out; "
                f"got {self.args.label_smoothing_factor}, set it to 0"
            )
        if self.args.gradient_checkpointing:
            options = self.args.mapping("gradient_checkpointing_kwargs")
            self.model.gradient_checkpointing_enable(*([options] if options else []))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Outputs]:
        """Return the loss of a batch: the model's own, a smoothed one, or that of ``compute_loss_func``.

        Args:
            model: The model, perhaps wrapped.
            inputs: A batch as the collator made it.
            return_outputs: Return a pair with the model's outputs.
            num_items_in_batch: Labels of the whole update, for losses that are a sum over labels divided by it.

        Raises:
            ValueError: If the outputs have no loss; lists what they have.
        """
        smoothing = self.args.label_smoothing_factor
        labels = inputs.get(self.label_names[0]) if self.label_names else None
        inputs = dict(inputs)
        if labels is not None and (self.compute_loss_func is not None or smoothing > 0):
            inputs.pop(self.label_names[0])
        if num_items_in_batch is not None and self._takes_num_items():
            inputs["num_items_in_batch"] = num_items_in_batch
        outputs = model(**inputs)
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
        elif labels is not None and smoothing > 0:
            loss = smoothed_loss(outputs, labels, smoothing, shift=is_causal(self.model), num_items=num_items_in_batch)
        else:
            loss = loss_in(outputs)
        return (loss, outputs) if return_outputs else loss

    def loss_and_terms(self, model: nn.Module, inputs: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch as ``loss``; in 16 bits if the settings say so."""
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, dict(inputs), num_items_in_batch=self.num_items)
        assert isinstance(loss, Tensor)
        return {"loss": loss.float()}

    def loss_shares(self, batches: Sequence[Batch]) -> list[float]:
        """Count the labels of an update, for a loss that is divided by them; return what losses are multiplied by."""
        self.num_items = None
        if not self._divides_by_labels() or not self.label_names:
            return super().loss_shares(batches)
        labels = [batch[self.label_names[0]] for batch in batches if self.label_names[0] in batch]
        if len(labels) < len(batches):
            return super().loss_shares(batches)
        count = count_labels(labels, shift=is_causal(self.model))
        processes = self.accelerator.num_processes
        if self.args.average_tokens_across_devices and processes > 1:
            count = self.accelerator.gather(count.reshape(1).to(self.accelerator.device)).sum()
            self.num_items = count
            return [float(processes)] * len(batches)  # processes average their gradients
        self.num_items = count
        return [1.0] * len(batches)

    @contextmanager
    def update_context(self, computations: Sequence[Callable[[], object]]) -> Iterator[None]:
        """Switch off the cache of keys and values."""
        with super().update_context(computations), without_cache(self.model):
            yield

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return loss, logits and labels of a batch, without gradients.

        Args:
            model: The model.
            inputs: A batch as the collator made it.
            prediction_loss_only: Leave out logits and labels.
            ignore_keys: Outputs that are no logits, beside the loss; None: those that the model's ``config`` names.

        Returns:
            The loss, None without labels; logits, a tensor or a tuple of them; labels likewise.
        """
        has_labels = bool(self.label_names) and all(name in inputs for name in self.label_names)
        labels = tuple(inputs[name] for name in self.label_names) if has_labels else None
        self.num_items = None
        with torch.no_grad(), self.args.autocast(self.accelerator.device):
            loss: Tensor | None = None
            if has_labels:
                computed = self.compute_loss(model, dict(inputs), return_outputs=True)
                loss, outputs = computed[0].detach().float(), computed[1]
            else:
                outputs = model(**inputs)
        if prediction_loss_only:
            return loss, None, None
        ignore_keys = ignored_outputs(self.model) if ignore_keys is None else ignore_keys
        logits = without_loss(outputs, has_loss=has_labels and self.compute_loss_func is None, ignore=ignore_keys)
        return loss, logits, labels[0] if labels is not None and len(labels) == 1 else labels

    def evaluation_loop(  # house: peer signature
        self,
        dataloader: DataLoader[Batch],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Go through a dataset: its mean loss, its predictions, and metrics of them if there is ``compute_metrics``.

        ``evaluate()`` leaves out predictions that no metric asks for.
        """
        for_outputs = description == PREDICTION
        if prediction_loss_only is None:
            unasked = description == EVALUATION and self.compute_metrics is None
            prediction_loss_only = self.args.prediction_loss_only or unasked
        return predict_batches(
            self, dataloader, ignore_keys, metric_key_prefix, only_loss=prediction_loss_only, for_outputs=for_outputs
        )

    def eval_sets(self, eval_dataset: object) -> dict[str | None, object]:
        """Return the datasets to evaluate by name; a single one has None as its name.

        Raises:
            ValueError: If there is none, or none of this name.
        """
        return sets_by_name(self._eval_data(eval_dataset), eval_dataset)

    def data_identity(self) -> dict[str, Any]:  # settings of several types
        """Return what decides which rows are in which batch."""
        data = as_training_data(self.train_dataset, "train_dataset")
        return {
            "train_dataset": fingerprint(data),
            "train_sampling_strategy": self.args.train_sampling_strategy,
            "remove_unused_columns": self.args.remove_unused_columns,
        }

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of an epoch, on the device.

        Raises:
            ValueError: If there is no train_dataset, or it is too small for a batch.
        """
        if self.train_dataset is None:
            raise ValueError("train() needs a train_dataset")
        data = as_training_data(self.train_dataset, "train_dataset")
        return self._loader(data, self.args.per_device_train_batch_size, is_training=True)

    def get_eval_dataloader(self, eval_dataset: object = None) -> DataLoader[Batch]:
        """Return the batches of a dataset, or of the trainer's own, in the order of its rows.

        Raises:
            ValueError: If there is no dataset.
        """
        return self._loader(self._eval_data(eval_dataset), self.args.per_device_eval_batch_size, is_training=False)

    def get_test_dataloader(self, test_dataset: object) -> DataLoader[Batch]:
        """Return the batches of a dataset to predict on, in the order of its rows."""
        return self.get_eval_dataloader(test_dataset)

    def _eval_data(self, eval_dataset: object) -> TrainingData:
        data = data_to_evaluate(self.eval_dataset, eval_dataset)
        if data is None:
            raise ValueError("evaluate() needs an eval_dataset")
        return data

    def _loader(self, data: TrainingData, batch_size: int, *, is_training: bool) -> DataLoader[Batch]:
        args = self.args
        if args.remove_unused_columns:
            data = keep_columns(data, self._forward_names() | set(SINGLE_LABELS) | set(self.label_names), self.model)
        settings = loader_settings(
            args,
            self.accelerator,
            batch_size=batch_size,
            drop_last=args.dataloader_drop_last,
            even_batches=not is_training or not args.dataloader_drop_last,
        )
        return build_loader(
            data,
            settings,
            collate=self.data_collator,
            accelerator=self.accelerator,
            make_batch_sampler=self.get_batch_sampler if is_training else SequentialBatchSampler,
            make_multi_dataset_batch_sampler=ProportionalBatchSampler,
        )

    def get_batch_sampler(  # house: peer signature
        self,
        dataset: Any,  # noqa: ANN401  (anything with a length)
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler:
        """Return the order of training rows, by ``args.train_sampling_strategy``; override it for another."""
        strategy = self.args.train_sampling_strategy
        if strategy == "sequential":
            return SequentialBatchSampler(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        if strategy == "group_by_length":
            lengths = lengths_of(dataset, self.args.length_column_name)
            return LengthGroupedBatchSampler(
                dataset, batch_size, drop_last, valid_label_columns, generator, seed, lengths=lengths
            )
        return DefaultBatchSampler(dataset, batch_size, drop_last, valid_label_columns, generator, seed)

    def _check_goes_together(self) -> None:
        args = self.args
        if args.eval_strategy != "no" and self.eval_dataset is None:
            raise ValueError(f"eval_strategy={args.eval_strategy!r} needs an eval_dataset")
        if args.batch_eval_metrics and self.compute_metrics is not None:
            _check_knows_the_last(self.compute_metrics)

    def _forward_names(self) -> set[str]:
        """Return what the model's forward takes by name."""
        return set(inspect.signature(type(self.model).forward).parameters) - {"self"}

    def _label_names(self) -> list[str]:
        """Return the columns that hold labels.

        Raises:
            ValueError: If there is something to train on, the model takes no labels, and nothing else computes a loss.
        """
        if self.args.label_names is not None:
            return list(self.args.label_names)
        names = list(inspect.signature(type(self.model).forward).parameters)
        found = [name for name in names if "label" in name or name in _SPANS]
        if found or self.compute_loss_func is not None:
            return found or ["labels"]
        has_own_loss = "return_loss" in names or type(self).compute_loss is not Trainer.compute_loss
        if has_own_loss or self.train_dataset is None:
            return []
        raise ValueError(
            f"the forward of {type(self.model).__name__} takes no labels, so it cannot return a loss; train a model "
            "with a head, or give compute_loss_func or args.label_names"
        )

    def _default_collator(self) -> Callable[[Any], Batch]:
        """Pad with the tokenizer if there is one, else stack."""
        if hasattr(self.processing_class, "pad_token_id"):
            return DataCollatorWithPadding(self.processing_class)
        return default_data_collator

    def _takes_num_items(self) -> bool:
        """Return whether the model divides a sum over labels by a number it is given."""
        return "num_items_in_batch" in self._forward_names()

    def _divides_by_labels(self) -> bool:
        """Return whether losses are sums over labels divided by their number in the whole update."""
        return self.compute_loss_func is not None or self._takes_num_items()


def _check_knows_the_last(compute_metrics: Metrics) -> None:
    if "compute_result" not in inspect.signature(compute_metrics).parameters:
        raise ValueError("batch_eval_metrics=True needs compute_metrics(prediction, compute_result=...)")
