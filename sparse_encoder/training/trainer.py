"""SparseEncoderTrainer: trains a SparseEncoder on one dataset with one loss.

It says what is read, computed, evaluated and saved; the loop is in :mod:`sparse_encoder.training.loop`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader

from sparse_encoder.checkpoint import write_json
from sparse_encoder.evaluation import SentenceEvaluator, SequentialEvaluator
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.modules import Router
from sparse_encoder.modules.pipeline import check_can_be_saved
from sparse_encoder.samplers import DefaultBatchSampler
from sparse_encoder.training.base import TrainerBase
from sparse_encoder.training.checkpoints.folders import find_checkpoint
from sparse_encoder.training.checkpoints.optimizer_state import Schedule
from sparse_encoder.training.checkpoints.snapshot import ARGUMENTS
from sparse_encoder.training.data.collator import LABEL, LABEL_COLUMNS, Batch, SparseEncoderDataCollator, split_columns
from sparse_encoder.training.data.rows import Rows
from sparse_encoder.training.evaluating import evaluation_loss, evaluator_metrics
from sparse_encoder.training.events.protocol import TrainerCallback
from sparse_encoder.training.events.splade_weights import SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.loop import TrainingRun
from sparse_encoder.training.sparse_arguments import SparseEncoderTrainingArguments
from sparse_encoder.training.state import TrainOutput

if TYPE_CHECKING:
    from sparse_encoder.model import SparseEncoder

logger = logging.getLogger(__name__)

LossFactory = Callable[["SparseEncoder"], nn.Module]
Collator = Callable[[list[dict[str, Any]]], Batch]


class SparseEncoderTrainer(TrainerBase):
    """Train a SparseEncoder.

    The rows of a dataset are texts, pairs or tuples of them, in the order of columns that the loss asks for, perhaps
    with labels (``label``, ``labels``, ``score`` or ``scores``). What is drawn at random (order of rows, dropout) is a
    function of the seed and the number of updates, so a run that was stopped and resumed ends with the same bytes.

    Several datasets, losses by dataset and hyper-parameter search are not supported yet.

    Args:
        model: What is trained.
        args: The settings; by default those of ``SparseEncoderTrainingArguments("tmp_trainer")``.
        train_dataset: A ``datasets.Dataset``, a list of dicts, or an object whose rows, dicts, are read by number.
        eval_dataset: The same, for the loss of evaluations.
        loss: A loss that holds the model, or a function that makes one from it; by default a :class:`SpladeLoss` on
            in-batch negatives, with 3e-5 on documents and 5e-5 on queries.
        evaluator: One, or several that run one after the other.
        data_collator: Makes a batch of rows; by default a :class:`SparseEncoderDataCollator`.
        callbacks: Instances or classes, called after the default flow and before the progress bar.
        optimizers: An optimizer and a schedule in the place of those that the settings name; each may be None.

    Raises:
        RuntimeError: If there is no model.
        TypeError: If checkpoints are to be saved and a module of the model could not be loaded again.
        ValueError: If something is not supported or does not go together; names it.
    """

    def __init__(  # house: peer signature
        self,
        model: SparseEncoder | None = None,
        args: SparseEncoderTrainingArguments | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        loss: nn.Module | LossFactory | None = None,
        evaluator: SentenceEvaluator | Sequence[SentenceEvaluator] | None = None,
        data_collator: Collator | None = None,
        *,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
        optimizers: tuple[Optimizer | None, Schedule | None] = (None, None),
    ) -> None:
        if model is None:
            raise RuntimeError("SparseEncoderTrainer needs a model")
        if args is None:
            args = SparseEncoderTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, SparseEncoderTrainingArguments):
            raise ValueError(f"args must be SparseEncoderTrainingArguments, got {type(args).__name__}")
        if args.save_strategy != "no" and isinstance(model, nn.Sequential):
            check_can_be_saved(model)
        super().__init__(model, args, callbacks=callbacks or (), optimizers=optimizers)
        self._rebuilds_scheduler = self.lr_scheduler is None
        self.model: SparseEncoder = model
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.train_rows = None if train_dataset is None else Rows(train_dataset, seed=args.seed, name="train_dataset")
        self.eval_rows = None if eval_dataset is None else Rows(eval_dataset, seed=args.seed, name="eval_dataset")
        self.evaluator = SequentialEvaluator(list(evaluator)) if isinstance(evaluator, Sequence) else evaluator
        if args.eval_strategy != "no" and self.eval_rows is None and self.evaluator is None:
            raise ValueError(f"eval_strategy={args.eval_strategy!r} needs an eval_dataset or an evaluator")
        self.data_collator = self._default_collator() if data_collator is None else data_collator
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable(args.mapping("gradient_checkpointing_kwargs"))
        self.loss_terms: dict[str, Tensor] = {}  # of the last batch, by name
        self.loss = self.prepare_loss(self.get_default_loss(model) if loss is None else loss, model)
        self.fire("on_init_end")

    def get_default_loss(self, model: SparseEncoder) -> nn.Module:
        """Return the loss of a trainer that is given none."""
        return SpladeLoss(
            model,
            loss=SparseMultipleNegativesRankingLoss(model),
            document_regularizer_weight=3e-5,
            query_regularizer_weight=5e-5,
        )

    def prepare_loss(self, loss: nn.Module | LossFactory, model: SparseEncoder) -> nn.Module:
        """Make the loss if need be, put it on the device, and see to the schedule of a SpladeLoss's weights.

        Raises:
            ValueError: If it is neither a module nor a function that makes one.
        """
        if not isinstance(loss, nn.Module):
            if not callable(loss):
                raise ValueError(
                    f"loss must be a module or a function that makes one from the model, got {type(loss).__name__}; "
                    "losses by dataset are not supported yet"
                )
            loss = loss(model)
            if not isinstance(loss, nn.Module):
                raise ValueError(f"the loss function must return a module, got {type(loss).__name__}")
        loss = loss.to(self.accelerator.device)
        if isinstance(loss, SpladeLoss):
            self._schedule_weights(loss)
        return loss

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainOutput:
        """Train the model.

        Args:
            resume_from_checkpoint: A checkpoint of an earlier run, which goes on as if it had never stopped, or True
                for the last one in ``args.output_dir`` that is whole.

        Returns:
            Updates done, mean loss and speed of this call.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            CheckpointError: If the checkpoint is damaged, incomplete or of another kind of run.
            ValueError: If there is nothing to train on, or nothing to resume from.
            FloatingPointError: If the gradient was not finite in many updates in a row.
        """
        checkpoint = None
        if resume_from_checkpoint is True:
            checkpoint = find_checkpoint(Path(str(self.args.output_dir)))
        elif resume_from_checkpoint:
            checkpoint = Path(resume_from_checkpoint)
            if not checkpoint.is_dir():
                raise FileNotFoundError(f"there is no checkpoint {checkpoint}")
        if self._rebuilds_scheduler:
            self.lr_scheduler = None
        self.is_in_train = True
        try:
            return TrainingRun(self, checkpoint).run()
        finally:
            self.is_in_train = False
            self.model_wrapped = self.model

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute the loss of a dataset, run the evaluator, and log both.

        The terms of the loss are in the log, not in the result.

        Args:
            eval_dataset: Used in the place of the trainer's own.
            ignore_keys: Must be None: losses have no outputs beside their value.
            metric_key_prefix: In front of every key.

        Returns:
            ``eval_loss``, the evaluator's metrics, ``eval_runtime`` in seconds, samples and batches per second, epoch.

        Raises:
            ValueError: If there is nothing to evaluate with.
        """
        if ignore_keys is not None:
            raise ValueError(f"ignore_keys must be None, got {ignore_keys!r}: losses have no outputs to ignore")
        if eval_dataset is None and self.eval_rows is None and self.evaluator is None:
            raise ValueError("evaluate() needs an eval_dataset or an evaluator")
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        terms: dict[str, float] = {}
        num_samples = num_batches = 0
        if eval_dataset is not None or self.eval_rows is not None:
            loader = self.get_eval_dataloader(eval_dataset)
            self.callback_handler.context["eval_dataloader"] = loader
            means, num_samples, num_batches = evaluation_loss(self, loader)
            terms = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
            metrics[f"{metric_key_prefix}_loss"] = terms.pop(f"{metric_key_prefix}_loss")
        metrics |= evaluator_metrics(self, metric_key_prefix)
        seconds = time.perf_counter() - started
        metrics[f"{metric_key_prefix}_runtime"] = round(seconds, 4)
        metrics[f"{metric_key_prefix}_samples_per_second"] = round(num_samples / seconds, 3)
        metrics[f"{metric_key_prefix}_steps_per_second"] = round(num_batches / seconds, 3)
        self.log({**metrics, **terms})
        metrics["epoch"] = self.state.epoch
        self.fire("on_evaluate", {"metrics": metrics})
        return metrics

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: None = None
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Return the loss of a batch; terms by name are added up, and kept in ``loss_terms`` for the log.

        Args:
            model: The model, perhaps wrapped; the loss is made to run it.
            inputs: A batch as the collator made it.
            return_outputs: Return a pair with an empty dict of outputs.
            num_items_in_batch: Must be None: losses are means over the rows of their batch.
        """
        if num_items_in_batch is not None:
            raise ValueError("num_items_in_batch must be None: losses are means over the rows of their batch")
        put_model_into_loss(self.loss, model)
        features, labels = self.collect_features(inputs)
        value = self.loss(features, labels)
        if isinstance(value, dict):
            self.loss_terms = {name: term.detach() for name, term in value.items()}
            value = torch.stack(list(value.values())).sum()
        return (value, {}) if return_outputs else value

    def loss_and_terms(self, model: nn.Module, inputs: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch as ``loss``, and its terms by name; in bfloat16 if the settings say so."""
        self.loss_terms = {}
        with self.args.autocast(self.accelerator.device):
            loss = self.compute_loss(model, inputs)
        assert isinstance(loss, Tensor)
        return {"loss": loss, **self.loss_terms}

    def collect_features(self, inputs: Batch) -> tuple[list[dict[str, Any]], Tensor | None]:
        """Split a batch into the features of each column, in the order of the columns, and the labels."""
        labels = inputs.get(LABEL)
        return split_columns({key: value for key, value in inputs.items() if key != LABEL}), labels

    def get_batch_sampler(
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
        build = chosen if callable(chosen) else DefaultBatchSampler
        return build(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            valid_label_columns=valid_label_columns,
            generator=generator,
            seed=seed,
        )

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches of an epoch, on the device.

        Raises:
            ValueError: If there is no train_dataset, or it is too small for a batch.
        """
        if self.train_rows is None:
            raise ValueError("train() needs a train_dataset")
        batch_size = self.args.per_device_train_batch_size
        drop_last = self.args.dataloader_drop_last or self.accelerator.num_processes > 1  # all have the same steps
        loader = self._loader(self.train_rows, batch_size, drop_last=drop_last, even_batches=False)
        if not len(loader):
            raise ValueError(
                f"train_dataset has {len(self.train_rows)} rows, not enough for one batch of {batch_size} per process "
                "when incomplete batches are dropped (dataloader_drop_last, several processes)"
            )
        return loader

    def get_eval_dataloader(self, eval_dataset: object = None) -> DataLoader[Batch]:
        """Return the batches of a dataset, or of the trainer's own, in the same random order every time.

        Raises:
            ValueError: If there is no dataset.
        """
        rows = self.eval_rows
        if eval_dataset is not None:
            rows = Rows(eval_dataset, seed=self.args.seed, name="eval_dataset")
        if rows is None:
            raise ValueError("there is no eval_dataset")
        return self._loader(rows, self.args.per_device_eval_batch_size, drop_last=False, even_batches=True)

    def save_model(self, output_dir: str | None = None) -> None:
        """Save the model and the settings, by default in ``args.output_dir``."""
        if self.is_world_process_zero():
            folder = str(self.args.output_dir if output_dir is None else output_dir)
            self.model.save_pretrained(folder)
            write_json(Path(folder) / ARGUMENTS, self.args.to_dict())

    def _loader(self, rows: Rows, batch_size: int, *, drop_last: bool, even_batches: bool) -> DataLoader[Batch]:
        """Return the batches of a dataset, on the device and shared out among the processes."""
        args, device = self.args, self.accelerator.device
        seed = args.seed if args.data_seed is None else args.data_seed
        sampler = self.get_batch_sampler(
            rows.dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            valid_label_columns=list(getattr(self.data_collator, "valid_label_columns", LABEL_COLUMNS)),
            generator=torch.Generator().manual_seed(seed),
            seed=seed,
        )
        loader = DataLoader(
            rows,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and device.type == "cuda",
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        prepared: DataLoader[Batch] = prepare_data_loader(
            loader,
            device=device,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
            put_on_device=True,
            even_batches=even_batches,
            non_blocking=args.dataloader_pin_memory,
        )
        return prepared

    def _default_collator(self) -> SparseEncoderDataCollator:
        """Return a collator with the settings' prompts and routes."""
        prompts, routes = self.args.prompts, self.args.mapping("router_mapping")
        if not routes and any(isinstance(part, Router) for part in self.model.modules()):
            raise ValueError(
                "the model has a Router, so args.router_mapping must say which route each column takes, "
                "for example {'question': 'query', 'answer': 'document'}"
            )
        return SparseEncoderDataCollator(self.model.preprocess, router_mapping=routes, prompts=prompts)

    def _schedule_weights(self, loss: SpladeLoss) -> None:
        """Put the callback that schedules a loss's weights behind the default flow; make one if there is none."""
        callbacks = self.callback_handler.callbacks
        for callback in callbacks:
            if isinstance(callback, SpladeRegularizerWeightSchedulerCallback) and callback.loss is loss:
                callbacks.remove(callback)
                break
        else:
            logger.warning(
                "SpladeLoss without a SpladeRegularizerWeightSchedulerCallback: one is added, which raises the weights "
                "of the regularizers from 0 over the first third of the run"
            )
            callback = SpladeRegularizerWeightSchedulerCallback(loss)
        callbacks.insert(1, callback)


def put_model_into_loss(loss: nn.Module, model: nn.Module) -> None:
    """Make a loss, and the losses it is made of, run this model, perhaps wrapped, in the place of the one they hold."""
    if getattr(loss, "model", model) is model:
        return
    for name, child in list(loss.named_children()):
        if name == "model":
            loss.model = model
        else:
            put_model_into_loss(child, model)
