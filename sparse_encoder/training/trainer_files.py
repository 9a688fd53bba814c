"""What a trainer writes: the model, its card, metrics and state; knows nothing of how they came about."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_encoder.checkpoint import read_json_object, write_json
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.card.callback import ModelCardCallback
from sparse_encoder.training.card.create import CardOptions, create_model_card
from sparse_encoder.training.checkpoints.snapshot import ARGUMENTS, write_state
from sparse_encoder.training.checkpoints.weights import write_module
from sparse_encoder.training.events.protocol import CallbackHandler
from sparse_encoder.training.hub import HubPublisher
from sparse_encoder.training.sharding import whole
from sparse_encoder.training.state import TrainerControl, TrainerState, spelled

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)


class TrainerFiles:
    """The methods of a trainer that write; only the first process does."""

    args: TrainingArguments
    model: Any  # subclasses say of which class
    processing_class: Any  # whatever turns texts into inputs
    state: TrainerState
    publisher: HubPublisher | None
    control: TrainerControl
    callback_handler: CallbackHandler
    train_dataset: Any  # of any kind that can be trained on
    eval_dataset: Any  # as above
    fire: Callable[..., None]
    add_callback: Callable[[ModelCardCallback], None]

    @property
    def hub_model_id(self) -> str | None:
        """The repository that pushes go to; None if there are none."""
        return None if self.publisher is None else self.publisher.repo_id

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Save the model and the settings; with ``args.push_to_hub`` also push them.

        With fsdp all processes must call this.

        Args:
            output_dir: By default ``args.output_dir``.
            _internal_call: Whether the trainer itself calls, which pushes by its own rules.

        """
        folder = Path(str(self.args.output_dir if output_dir is None else output_dir))
        with whole(self.model, keep=self.state.is_world_process_zero):
            if self.state.is_world_process_zero:
                self._write_model(folder)
                write_json(folder / ARGUMENTS, self.args.to_dict())
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub("Model save")

    def save_state(self) -> None:
        """Write ``trainer_state.json`` into ``args.output_dir``."""
        if self.state.is_world_process_zero:
            write_state(Path(str(self.args.output_dir)), self.state)

    def log_metrics(self, split: str, metrics: Mapping[str, float]) -> None:
        """Give metrics to the log of the process, sorted by name.

        Args:
            split: What they are of: ``train``, ``eval``, ``test``.
            metrics: Numbers by name.
        """
        if not self.state.is_world_process_zero:
            return
        width = max(map(len, metrics), default=0)
        rows = "\n".join(f"  {name:<{width}} = {_readable(metrics[name])}" for name in sorted(metrics))
        logger.info("***** %s metrics *****\n%s", split, rows)

    def save_metrics(self, split: str, metrics: Mapping[str, float], combined: bool = True) -> None:
        """Write metrics as ``<split>_results.json`` into ``args.output_dir``.

        Args:
            split: What they are of: ``train``, ``eval``, ``test``, ``all``.
            metrics: Numbers by name.
            combined: Also add them to ``all_results.json``.
        """
        if not self.state.is_world_process_zero:
            return
        folder = Path(str(self.args.output_dir))
        write_json(folder / f"{split}_results.json", spelled(dict(metrics)), indent=4, sort_keys=True)
        if combined:
            path = folder / "all_results.json"
            before = read_json_object(path) if path.exists() else {}
            write_json(path, {**before, **spelled(dict(metrics))}, indent=4, sort_keys=True)

    def push_to_hub(  # house: peer signature
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,  # noqa: ANN401  (the arguments of create_model_card, checked there)
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the model with its card and upload both.

        Args:
            commit_message: First line of the commit.
            blocking: Wait for the upload and return its commit; otherwise return its future.
            token: In the place of ``args.hub_token``.
            revision: Branch, in the place of ``args.hub_revision``.
            private: In the place of ``args.hub_private_repo``.
            **card: Arguments of :meth:`create_model_card`.

        Returns:
            The commit, or its future; None on all processes but the first.
        """
        self.save_model(_internal_call=True)
        tags = card.pop("tags", None)
        tags = [tags] if isinstance(tags, str) else list(tags or ())
        self.create_model_card(tags=[*tags, *(getattr(self.model, "model_tags", None) or ())] or None, **card)
        if self.publisher is None:
            self.publisher = self.build_publisher()
        return self.publisher.push(
            commit_message or "End of training", blocking, token=token, revision=revision, private=private
        )

    def build_publisher(self) -> HubPublisher:
        """Return what uploads for this trainer."""
        return HubPublisher(
            self.args,
            is_world_process_zero=self.state.is_world_process_zero,
            announce=lambda: self.fire("on_push_begin"),
        )

    def create_model_card(  # house: peer signature
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the README.md of the model into ``args.output_dir``; see :mod:`sparse_encoder.training.card`."""
        if self.state.is_world_process_zero:
            options = CardOptions(
                language=language,
                license=license,
                tags=tags,
                model_name=model_name,
                finetuned_from=finetuned_from,
                tasks=tasks,
                dataset_tags=dataset_tags,
                dataset=dataset,
                dataset_args=dataset_args,
            )
            create_model_card(self, options)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:  # settings of several types
        """Append the callback that collects what the model card tells of the run.

        Args:
            default_args_dict: The settings that need no mention.
        """
        callback = ModelCardCallback(default_args_dict)
        self.add_callback(callback)
        callback.on_init_end(self.args, self.state, self.control, **self.callback_handler.context, trainer=self)

    def _write_model(self, folder: Path) -> None:
        """Write the model, in its own way if it has one, and what turns texts into inputs unless that is its own."""
        if hasattr(self.model, "save_pretrained"):
            self.model.save_pretrained(str(folder))
        else:
            write_module(folder, self.model)
        processor = self.processing_class
        if processor is None:  # a collator that makes tokens has it
            processor = getattr(getattr(self, "data_collator", None), "tokenizer", None)
        if processor is not getattr(self.model, "tokenizer", None) and hasattr(processor, "save_pretrained"):
            processor.save_pretrained(str(folder))
        if not hasattr(self.model, "model_card_data"):
            create_model_card(self, CardOptions(), folder=folder)


def _readable(value: object) -> str:
    """Return a number with four digits, and anything else as JSON."""
    return f"{value:.4f}" if isinstance(value, float) else json.dumps(spelled(value), default=str)
