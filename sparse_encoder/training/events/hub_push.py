"""A callback that uploads the model to the hub while it is trained, by a schedule of its own.

For trainers whose settings do not upload; it takes the writers of files from the trainer, and what is uploaded how from
hub_uploads.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sparse_encoder.checkpoint import CheckpointError, write_text
from sparse_encoder.checkpoint.hub_push import HubTarget
from sparse_encoder.checkpoint.writing import system_errors
from sparse_encoder.model_card import SparseEncoderModelCardData
from sparse_encoder.training.card.create import CardOptions
from sparse_encoder.training.card.generic import generic_card, write_generic_card
from sparse_encoder.training.checkpoints.folders import settle_folder, sweep
from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.hub import is_replaced, progress_message
from sparse_encoder.training.hub_uploads import Commit, UploadQueue, set_aside
from sparse_encoder.training.processes import said_by_first
from sparse_encoder.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

SAVE_STRATEGIES = ("epoch", "no", "steps")
CHECKPOINT = "checkpoint"
Writer = Callable[[Path], None]


class Tokenizer(Protocol):
    """What can be saved beside a model."""

    def save_pretrained(self, save_directory: str) -> object:
        """Write it into a folder."""
        ...


@dataclass
class _Run:
    """What a card asks of a trainer, as far as a callback knows it."""

    model: Any  # of any class
    args: Any  # settings of any trainer
    state: TrainerState
    processing_class: Any = None  # whatever turns texts into inputs
    train_dataset: Any = None
    eval_dataset: Any = None


class HubPushCallback(TrainerCallback):
    """Save the model into a folder and upload it: after every epoch, every so many updates, or only at the end.

    Uploads run in the background. While one runs the next is left out, and nothing is saved for it; a failure, of the
    disk too, is told in the log, and the run goes on. At the end the last one is waited for, and the trained model is
    uploaded, always; only if this fails an error is raised. What a killed run has left in the folder is removed at the
    start. With ``args.push_to_hub`` the trainer uploads by itself, and the callback does nothing.

    Args:
        output_dir: Where the model is saved; another folder than the trainer's.
        save_strategy: ``"no"`` (only at the end), ``"epoch"`` or ``"steps"``.
        save_steps: Updates between two uploads, for ``"steps"``.
        tokenizer: Saved beside the model; a SparseEncoder saves its own.
        hub_model_id: Repository; by default the name of ``output_dir``, of the token's owner.
        hub_token: Access token; by default the stored one.
        checkpoint: Upload with every epoch all that is needed to resume from it, as ``checkpoint``.
        **model_card_args: Told in the README, as by ``trainer.create_model_card``.

    Raises:
        ValueError: If an argument does not apply; names it.
        TypeError: If there is an unknown one.
    """

    def __init__(  # house: peer signature
        self,
        output_dir: str | Path,
        save_strategy: str = "epoch",
        save_steps: int | None = None,
        tokenizer: Tokenizer | None = None,
        hub_model_id: str | None = None,
        hub_token: str | None = None,
        checkpoint: bool = False,
        **model_card_args: Any,  # noqa: ANN401  (the fields of CardOptions, which checks them)
    ) -> None:
        strategy = str(getattr(save_strategy, "value", save_strategy)).lower()
        if strategy not in SAVE_STRATEGIES:
            raise ValueError(f"unknown save_strategy {save_strategy!r}; choose from {sorted(SAVE_STRATEGIES)}")
        if strategy == "steps" and (not isinstance(save_steps, int) or isinstance(save_steps, bool) or save_steps < 1):
            raise ValueError(f"save_strategy='steps' needs save_steps, a whole number above 0, got {save_steps!r}")
        if strategy != "steps" and save_steps is not None:
            raise ValueError(f"save_steps={save_steps!r} needs save_strategy='steps', got {strategy!r}")
        if checkpoint and strategy != "epoch":
            raise ValueError(f"checkpoint=True needs save_strategy='epoch', got {strategy!r}")
        self.output_dir = Path(output_dir).absolute()
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.save_strategy, self.save_steps = strategy, save_steps
        self.tokenizer, self.checkpoint = tokenizer, checkpoint
        self.card_options = CardOptions(**model_card_args)
        self.target = HubTarget(repo_id=hub_model_id or self.output_dir.name, token=hub_token)
        self.uploads = UploadQueue()

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Tidy the folder up, or say so if the callback has nothing to do.

        Raises:
            ValueError: If the folder is that of the trainer.
        """
        if args.push_to_hub:
            if state.is_world_process_zero:
                logger.warning("HubPushCallback does nothing: with push_to_hub=True the trainer uploads by itself")
            return
        if self.output_dir.resolve() == Path(str(args.output_dir)).resolve():
            raise ValueError(
                f"HubPushCallback needs another output_dir than the trainer's, whose checkpoints are there: "
                f"{self.output_dir}"
            )
        if state.is_world_process_zero:
            sweep(self.output_dir)
            settle_folder(self.output_dir / CHECKPOINT)

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Save and upload every ``save_steps`` updates."""
        if self.save_steps is not None and state.global_step % self.save_steps == 0 and not args.push_to_hub:
            self._push(args, state, context, by_epoch=False)

    def on_epoch_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Save and upload after every epoch, with a checkpoint if that is wanted."""
        if self.save_strategy == "epoch" and not args.push_to_hub:
            self._push(args, state, context, by_epoch=True)

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Save and upload the trained model, behind the upload that may still run.

        Raises:
            OSError: If the upload failed; also other errors of the hub's client.
        """
        if args.push_to_hub:
            return
        self._save(args, state, context, with_card=True)
        if state.is_world_process_zero:
            self.uploads.wait()
            commit = self._commit(self.output_dir, "End of training")
            self.uploads.submit(self.target, [commit], log_failure=False).result()

    def _push(self, args: Arguments, state: TrainerState, context: dict[str, Any], *, by_epoch: bool) -> None:
        """Save and upload in the middle of a run, unless an upload still runs; what fails is told."""
        message = progress_message(state.global_step, state.epoch, by_epoch=by_epoch)
        if said_by_first(self.uploads.is_busy):
            logger.info("%r is left out: the upload before it still runs", message)
            return
        fault = None
        try:
            with system_errors(self.output_dir):
                self._save(args, state, context, with_card=by_epoch)
        except (OSError, CheckpointError) as reason:
            fault = str(reason)
        fault = said_by_first(fault)  # the others have nothing to write, so no error
        if fault is None and self.checkpoint:
            try:
                _writer(context, "save_checkpoint")(self.output_dir / CHECKPOINT)
            except CheckpointError as reason:  # in all processes
                fault = str(reason)
        if fault is None:
            self._upload(state, message)
        elif state.is_world_process_zero:
            logger.warning("%r is left out and the run goes on, the files cannot be written: %s", message, fault)

    def _save(self, args: Arguments, state: TrainerState, context: dict[str, Any], *, with_card: bool) -> None:
        """Write the model, its tokenizer and its README; all processes come here, as the model may be shared out."""
        model = context["model"]
        card = getattr(model, "model_card_data", None)
        if isinstance(card, SparseEncoderModelCardData):
            self.card_options.apply(card)
        _writer(context, "save_model")(self.output_dir)
        if not state.is_world_process_zero:
            return
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(str(self.output_dir))
        if with_card and not isinstance(card, SparseEncoderModelCardData):
            self._write_card(model, _Run(model, args, state, context.get("processing_class")))

    def _write_card(self, model: nn.Module, run: _Run) -> None:
        """Write the README of a model that writes none itself, with the history up to now."""
        card = generic_card(run)
        self.card_options.apply(card)
        write_text(self.output_dir / "README.md", write_generic_card(model, card))

    def _upload(self, state: TrainerState, message: str) -> None:
        """Upload the folder in the background."""
        if not state.is_world_process_zero:
            return
        try:
            folder = set_aside(self.output_dir, self.output_dir, linked=is_replaced)
        except OSError as reason:
            logger.warning("%r is left out, the files cannot be copied: %s", message, reason)
            return
        self.uploads.submit(self.target, [self._commit(folder, message, set_aside=True)])

    def _commit(self, folder: Path, message: str, *, set_aside: bool = False) -> Commit:
        removed = (f"{CHECKPOINT}/*",) if self.checkpoint and (folder / CHECKPOINT).is_dir() else ()
        return Commit(folder=folder, message=message, removed=removed, set_aside=set_aside)


def _writer(context: dict[str, Any], name: str) -> Writer:
    """Return what a trainer offers to write files with.

    Raises:
        RuntimeError: If it does not.
    """
    writer: Writer | None = context.get(name)
    if writer is None:
        raise RuntimeError(f"HubPushCallback needs a trainer that offers {name} to its callbacks")
    return writer
