"""What happens around a run: which model, which checkpoint, which batch size, and what is held while it lasts."""

from __future__ import annotations

import inspect
import logging
import warnings
from contextlib import ExitStack
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import set_seed
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from sparse_encoder.training.checkpoints.opening import opened_folder
from sparse_encoder.training.checkpoints.signals import StopRequest, stop_on_signals
from sparse_encoder.training.checkpoints.snapshot import read_state
from sparse_encoder.training.devices import deterministic_algorithms, place_model
from sparse_encoder.training.loop import TrainingRun
from sparse_encoder.training.sharding import is_sharded, read_sharding
from sparse_encoder.training.state import TrainOutput
from sparse_encoder.training.trained_parts import check_trained_parts
from sparse_encoder.training.tuning.trials import applied_trial

if TYPE_CHECKING:
    from sparse_encoder.training.base import TrainerBase

logger = logging.getLogger(__name__)

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_REST = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_SMALLER = 0.9  # what is left of a batch that did not fit into memory


def new_model(trainer: TrainerBase, trial: object) -> nn.Module:
    """Make a model by the trainer's ``model_init``, with the numbers of ``args.seed``.

    Raises:
        RuntimeError: If there is none, it takes more than one argument, or returns nothing.
    """
    if trainer.model_init is None:
        raise RuntimeError("a trainer needs a model, or model_init to make one")
    parameters = inspect.signature(trainer.model_init).parameters.values()
    required = [each for each in parameters if each.default is each.empty and each.kind not in _REST]
    if len(required) > 1 or any(each.kind is each.KEYWORD_ONLY for each in required):
        names = [each.name for each in required]
        raise RuntimeError(f"model_init must take no argument, or the trial of a search, got a function of {names}")
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    takes_trial = len(required) == 1 or len(positional) == 1
    set_seed(trainer.args.seed)
    model = trainer.model_init(trial) if takes_trial else trainer.model_init()
    if not isinstance(model, nn.Module):
        raise RuntimeError(f"model_init must return a model, got {model!r}")
    return model


def first_model(trainer: TrainerBase, given: nn.Module | None) -> nn.Module:
    """Return the model that a trainer begins with: the given one, else one made by ``model_init``.

    Raises:
        RuntimeError: If there is neither, or ``model_init`` is at fault.
    """
    if given is None:
        return new_model(trainer, None)
    if trainer.model_init is not None:
        warnings.warn("model and model_init are both given; train() replaces the model by a new one", stacklevel=4)
    return given


def check_given_optimizers(trainer: TrainerBase, optimizers: tuple[object, object]) -> None:
    """Refuse optimizers that would not be of the parameters that are trained.

    Raises:
        RuntimeError: If something makes other parameters, or another optimizer.
    """
    if all(each is None for each in optimizers):
        return
    for other in ("model_init", "optimizer_cls_and_kwargs"):
        if getattr(trainer, other) is not None:
            raise RuntimeError(f"optimizers and {other} exclude each other; give {other} alone")
    if read_sharding(trainer.args.fsdp, trainer.args.mapping("fsdp_config")) is not None:
        raise RuntimeError("optimizers and fsdp exclude each other: sharding makes new parameters")


def launch(
    trainer: TrainerBase, resume_from: str | Path | bool | None, trial: object, ignore_keys: list[str] | None
) -> TrainOutput:
    """Run a trainer to the end; see :meth:`TrainerBase.train`."""
    with applied_trial(trainer, trial):
        return _launch(trainer, resume_from, trial, ignore_keys)


def _launch(
    trainer: TrainerBase, resume_from: str | Path | bool | None, trial: object, ignore_keys: list[str] | None
) -> TrainOutput:
    """Run a trainer with the settings that it has now."""
    args = trainer.args
    if trainer.model_init is not None:
        trainer.use_model(new_model(trainer, trial))
        trainer.optimizer = None
    was_sharded = is_sharded(trainer.model)
    place_model(trainer.model, args, trainer.accelerator)
    if is_sharded(trainer.model) and not was_sharded:
        trainer.optimizer = None  # one that was made before has parameters that are gone
    trainer.objective.to(trainer.accelerator.device)
    check_trained_parts(trainer)
    output_dir = Path(str(args.output_dir)).absolute()
    folder = opened_folder(
        Path(str(args.output_dir)),
        resume_from or None,
        overwrite=args.overwrite_output_dir or output_dir in trainer.trained_in,
        accelerator=trainer.accelerator,
    )
    trainer.is_in_train = True
    try:
        with ExitStack() as held:
            stop = held.enter_context(stop_on_signals()) if args.save_on_signal else None
            checkpoint = held.enter_context(folder)
            trainer.trained_in.add(output_dir)
            held.enter_context(deterministic_algorithms(args.full_determinism))
            run = _Run(trainer, checkpoint, ignore_keys, stop)
            output = run.with_a_fitting_batch() if args.auto_find_batch_size else run.once()
    finally:
        trainer.is_in_train = False
        trainer.unwrap()
        trainer.callback_handler.release()
    if trainer.publisher is not None:
        trainer.publisher.wait()
    return output


class _Run:
    """One call of ``train()``, perhaps in several attempts."""

    def __init__(
        self, trainer: TrainerBase, checkpoint: Path | None, ignore_keys: list[str] | None, stop: StopRequest | None
    ) -> None:
        self.trainer, self.checkpoint, self.ignore_keys, self.stop = trainer, checkpoint, ignore_keys, stop

    def once(self) -> TrainOutput:
        """Run with the batch size of the settings."""
        trainer = self.trainer
        if trainer.owns_scheduler:
            trainer.lr_scheduler = None
        return TrainingRun(trainer, self.checkpoint, ignore_keys=self.ignore_keys, stop=self.stop).run()

    def with_a_fitting_batch(self) -> TrainOutput:
        """Run with ever smaller batches until memory suffices; the settings keep the size that was found."""
        trainer, args = self.trainer, self.trainer.args
        if self.checkpoint is not None:
            args.per_device_train_batch_size = (
                read_state(self.checkpoint).train_batch_size or args.per_device_train_batch_size
            )
        before = _copy_of_state(trainer.objective)
        while True:
            try:
                return self.once()
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                args.per_device_train_batch_size = _smaller(args.per_device_train_batch_size, error)
            logger.warning("out of memory; the run starts again with batches of %d", args.per_device_train_batch_size)
            trainer.unwrap()
            trainer.objective.load_state_dict(before)
            trainer.objective.zero_grad(set_to_none=True)
            if trainer.owns_optimizer:
                trainer.optimizer = None
            if trainer.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()


def _smaller(size: int, error: RuntimeError) -> int:
    """Return the next batch size to try."""
    if size == 1:
        raise RuntimeError("not even a batch of one row fits into memory (auto_find_batch_size)") from error
    return max(1, int(size * _SMALLER))


def _copy_of_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module, in main memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}
