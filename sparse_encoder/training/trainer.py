"""SparseEncoderTrainer: trains a SparseEncoder on one or many datasets, with one or many losses.

It says what is read, computed, evaluated and saved; the loop is in :mod:`sparse_encoder.training.loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from sparse_encoder.evaluation import SentenceEvaluator, SequentialEvaluator
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.losses.global_batch import global_batch
from sparse_encoder.model import SparseEncoder
from sparse_encoder.model_card import SparseEncoderModelCardData
from sparse_encoder.modules import Router
from sparse_encoder.modules.pipeline import check_can_be_saved
from sparse_encoder.training.base import Callbacks, TrainerBase, one_of
from sparse_encoder.training.card.callback import ModelCardCallback
from sparse_encoder.training.checkpoints.optimizer_state import Schedule
from sparse_encoder.training.data.collator import DATASET_NAME, LABEL, Batch, SparseEncoderDataCollator, split_columns
from sparse_encoder.training.evaluating import EvalLoopOutput, call_evaluator, mean_losses
from sparse_encoder.training.events.sparsity import watch_sparsity
from sparse_encoder.training.events.splade_weights import schedule_splade_weights
from sparse_encoder.training.meters import on_one_device
from sparse_encoder.training.objectives import (
    GivenLoss,
    Losses,
    LossFactory,
    build_losses,
    checked_terms,
    loss_of,
    put_model_into_loss,
)
from sparse_encoder.training.sparse_arguments import SparseEncoderTrainingArguments
from sparse_encoder.training.trainer_data import TrainerData
from sparse_encoder.training.trainer_facts import OptimizerRecipe
from sparse_encoder.training.trainer_steps import NumItems

Collator = Callable[[list[dict[str, Any]]], Batch]


class SparseEncoderTrainer(TrainerData, TrainerBase):
    """Train a SparseEncoder.

    The rows of a dataset are texts, pairs or tuples of them, in the order of columns that the loss asks for, perhaps
    with labels (``label``, ``labels``, ``score`` or ``scores``). What is drawn at random (order of rows, dropout) is a
    function of the seed and the number of updates, so a run that was stopped and resumed ends with the same bytes.

    Args:
        model: What is trained; may be None if there is ``model_init``.
        args: The settings; by default those of ``SparseEncoderTrainingArguments("tmp_trainer")``.
        train_dataset: A ``datasets.Dataset``, a list of dicts, an object whose rows, dicts, are read by number, a
            stream (``IterableDataset``), or several of them by name.
        eval_dataset: The same, for the loss of evaluations.
        loss: A loss that holds the model, a function that makes one from it, or one of both by name of the dataset; by
            default a :class:`SpladeLoss` on in-batch negatives, with 3e-5 on documents and 5e-5 on queries.
        evaluator: One, or several that run one after the other.
        data_collator: Makes a batch of rows; by default a :class:`SparseEncoderDataCollator`.
        processing_class: Saved beside the model and handed to callbacks, in the place of the model's tokenizer.
        model_init: Makes the model anew for each ``train()``; takes nothing, or the trial of a search.
        compute_metrics: Refused: losses have no outputs to compute metrics from; an evaluator does that.
        callbacks: Instances or classes, called after the default flow and before the progress bar.
        optimizers: An optimizer and a schedule in the place of those that the settings name; each may be None.
        optimizer_cls_and_kwargs: A class of optimizers and its options, in the place of ``args.optim``.
        preprocess_logits_for_metrics: Refused like ``compute_metrics``.
        tokenizer: Older name of ``processing_class``.

    Raises:
        RuntimeError: If there is no model, or things are given twice.
        TypeError: If checkpoints are to be saved and a module of the model could not be loaded again.
        ValueError: If something is not supported or does not go together; names it.
    """

    args: SparseEncoderTrainingArguments
    model_class = SparseEncoder
    training_args_class = SparseEncoderTrainingArguments
    data_collator_class = SparseEncoderDataCollator
    model_card_data_class = SparseEncoderModelCardData
    model_card_callback_class = ModelCardCallback

    def __init__(  # house: peer signature
        self,
        model: SparseEncoder | None = None,
        args: SparseEncoderTrainingArguments | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        loss: GivenLoss | None = None,
        evaluator: SentenceEvaluator | Sequence[SentenceEvaluator] | None = None,
        data_collator: Collator | None = None,
        processing_class: object = None,
        model_init: Callable[..., SparseEncoder] | None = None,
        compute_metrics: None = None,
        callbacks: Callbacks | None = None,
        optimizers: tuple[Optimizer | None, Schedule | None] = (None, None),
        optimizer_cls_and_kwargs: OptimizerRecipe | None = None,
        preprocess_logits_for_metrics: None = None,
        *,
        tokenizer: object = None,
    ) -> None:
        args = _checked_arguments(args)
        for name, value in (
            ("compute_metrics", compute_metrics),
            ("preprocess_logits_for_metrics", preprocess_logits_for_metrics),
        ):
            if value is not None:
                raise ValueError(f"{name} has nothing to work on: losses have no outputs; give an evaluator")
        if model is not None and args.save_strategy != "no" and isinstance(model, nn.Sequential):
            check_can_be_saved(model)
        super().__init__(
            model,
            args,
            processing_class=one_of(processing_class, tokenizer),
            model_init=model_init,
            callbacks=callbacks or (),
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self.evaluator = SequentialEvaluator(list(evaluator)) if isinstance(evaluator, Sequence) else evaluator
        if args.eval_strategy != "no" and eval_dataset is None and self.evaluator is None:
            raise ValueError(f"eval_strategy={args.eval_strategy!r} needs an eval_dataset or an evaluator")
        self.given_loss: GivenLoss = self.get_default_loss if loss is None else loss
        self.train_dataset = self._prepared(train_dataset, "train_dataset")
        self.eval_dataset = self._prepared(eval_dataset, "eval_dataset")
        self._own_collator = data_collator is None
        self.data_collator: Any = (
            self.get_data_collator(self.model, args, self.processing_class) if data_collator is None else data_collator
        )
        self.check_text_names()
        self.loss_terms: dict[str, Tensor] = {}  # of the last batch, by name
        self.use_model(self.model)
        watch_sparsity(self.callback_handler.callbacks)
        self.add_model_card_callback(type(self.args)("unused").to_dict())
        self.fire("on_init_end")

    @property
    def objective(self) -> nn.Module:
        """The module whose parameters are trained: the loss, or the losses by dataset."""
        return self._objective

    def use_model(self, model: nn.Module) -> None:
        """Take another model in the place of the present one, in the losses too."""
        super().use_model(model)
        if self.args.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(self.args.mapping("gradient_checkpointing_kwargs"))
        if self._own_collator:
            self.data_collator = self.get_data_collator(self.model, self.args, self.processing_class)
        built = build_losses(self.given_loss, self.model)
        self.loss: nn.Module | dict[str, nn.Module] = (
            {name: self.prepare_loss(each, self.model) for name, each in built.items()}
            if isinstance(built, dict)
            else self.prepare_loss(built, self.model)
        )
        self._objective = Losses(self.loss) if isinstance(self.loss, dict) else self.loss
        schedule_splade_weights(self.callback_handler.callbacks, self.loss)

    def unwrap(self) -> None:
        """Run the model itself from now on, in the losses too."""
        super().unwrap()
        for loss in self.loss.values() if isinstance(self.loss, dict) else [self.loss]:
            self.override_model_in_loss(loss, self.model)

    def get_default_loss(self, model: SparseEncoder) -> nn.Module:
        """Return the loss of a trainer that is given none."""
        return SpladeLoss(
            model,
            loss=SparseMultipleNegativesRankingLoss(model),
            document_regularizer_weight=3e-5,
            query_regularizer_weight=5e-5,
        )

    def prepare_loss(self, loss: nn.Module | LossFactory, model: SparseEncoder) -> nn.Module:
        """Make the loss if need be, let it run this model, and put it on the device.

        Raises:
            ValueError: If it is neither a module nor a function that makes one.
        """
        made = build_losses(loss, model)
        assert isinstance(made, nn.Module)
        return self.override_model_in_loss(made, model).to(model.device)

    def override_model_in_loss(self, loss: nn.Module, model: nn.Module) -> nn.Module:
        """Make a loss, and the losses in it, run this model in the place of the one they hold."""
        put_model_into_loss(loss, model, [self.model, self.model_wrapped])
        return loss

    def get_data_collator(
        self, model: SparseEncoder, args: SparseEncoderTrainingArguments, processing_class: object = None
    ) -> SparseEncoderDataCollator:
        """Return what makes a batch of rows, with the settings' prompts and routes.

        Raises:
            ValueError: If the model has a Router, and no route is given.
        """
        routes = args.mapping("router_mapping")
        if not routes and any(isinstance(part, Router) for part in model.modules()):
            raise ValueError(
                "the model has a Router, so args.router_mapping must say which route each column takes, "
                "for example {'question': 'query', 'answer': 'document'}"
            )
        return SparseEncoderDataCollator(model.preprocess, router_mapping=routes, prompts=args.prompts)

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: NumItems = None
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Return the loss of a batch; terms by name are added up, and kept in ``loss_terms`` for the log.

        Args:
            model: The model, perhaps wrapped; the loss is made to run it.
            inputs: A batch as the collator made it.
            return_outputs: Return a pair with an empty dict of outputs.
            num_items_in_batch: Must be None: losses are means over the rows of their batch.

        Raises:
            ValueError: If there is a loss for each dataset, and the batch does not say which it is from.
        """
        if num_items_in_batch is not None:
            raise ValueError("num_items_in_batch must be None: losses are means over the rows of their batch")
        loss = loss_of(self.loss, inputs.get(DATASET_NAME))
        self.override_model_in_loss(loss, model)
        features, labels = self.collect_features(inputs)
        value = loss(features, labels)
        terms = checked_terms(value, loss)
        if isinstance(value, dict):
            self.track_loss_components(terms)
        total = torch.stack(on_one_device(list(terms.values()))).sum()
        return (total, {}) if return_outputs else total

    def track_loss_components(self, loss: dict[str, Tensor]) -> None:
        """Keep the terms of a loss for the log."""
        self.loss_terms = {name: term.detach() for name, term in loss.items()}

    def loss_and_terms(self, model: nn.Module, inputs: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch as ``loss``, and its terms by name; in 16 bits if the settings say so."""
        self.loss_terms = {}
        with self.args.autocast(self.accelerator.device):
            if self.num_items is None:
                loss = self.compute_loss(model, dict(inputs))
            else:  # which is refused
                loss = self.compute_loss(model, dict(inputs), num_items_in_batch=self.num_items)
        assert isinstance(loss, Tensor)
        return {"loss": loss, **self.loss_terms}

    @contextmanager
    def update_context(self, computations: Sequence[Callable[[], object]]) -> Iterator[None]:
        """Let regularizers judge the rows of all micro-batches and processes of an update together."""
        with global_batch(self.objective, computations, in_step=not isinstance(self.loss, dict)):
            yield

    def collect_features(self, inputs: Batch) -> tuple[list[dict[str, Any]], Tensor | None]:
        """Split a batch into the features of each column, in the order of the columns, and the labels."""
        rest = {key: value for key, value in inputs.items() if key not in (LABEL, DATASET_NAME)}
        return split_columns(rest), inputs.get(LABEL)

    def evaluation_loop(  # house: peer signature
        self,
        dataloader: DataLoader[Batch],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute the mean loss over a dataset.

        Raises:
            ValueError: If outputs are asked for, or to be ignored: losses have none.
        """
        if ignore_keys is not None or prediction_loss_only is False:
            raise ValueError("losses have no outputs: ignore_keys must be None and prediction_loss_only not False")
        return mean_losses(self, dataloader, metric_key_prefix)

    def evaluator_metrics(self, prefix: str) -> dict[str, float]:
        """Run the evaluator, if there is one; its metrics get the prefix unless they have it."""
        return {} if self.evaluator is None else call_evaluator(self, self.evaluator, prefix)


def _checked_arguments(args: SparseEncoderTrainingArguments | None) -> SparseEncoderTrainingArguments:
    """Return the settings, or the default ones."""
    if args is None:
        return SparseEncoderTrainingArguments(output_dir="tmp_trainer")
    if not isinstance(args, SparseEncoderTrainingArguments):
        raise ValueError(f"args must be SparseEncoderTrainingArguments, got {type(args).__name__}")
    return args
