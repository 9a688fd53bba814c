"""When and what a trainer uploads to the hub, by its settings; the uploads themselves are in hub_uploads.py."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint import staged_folder
from sparse_encoder.checkpoint.hub_push import HubTarget
from sparse_encoder.training.arguments import TrainingArguments
from sparse_encoder.training.hub_uploads import Commit, UploadQueue, set_aside

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

HUB_STRATEGIES = ("all_checkpoints", "checkpoint", "end", "every_save")
LAST_CHECKPOINT = "last-checkpoint"
_RUN_FILES = re.compile(r"(optimizer|scheduler|scaler|rng_state|callback|trainer_state)[^/]*|(run|loss|MANIFEST)\.\w+")
"""Files of a checkpoint that are of the run and not of the model; they lie at its top."""


class HubPublisher:
    """Upload what a run saves, as ``hub_strategy`` says.

    ``end`` uploads nothing by itself; ``every_save`` the model; ``checkpoint`` also the checkpoint as
    ``last-checkpoint``; ``all_checkpoints`` also every checkpoint under its own name. Uploads run in the background; a
    failure is told in the log, and the run goes on. The repository is made by the first upload (the peer's is made by
    the constructor). In processes other than the first nothing is uploaded.

    Args:
        args: The settings: ``output_dir``, ``save_strategy`` and those that begin with ``hub_``.
        is_world_process_zero: Whether this is the first process of all.
        announce: Called before each upload, in the first process; tells the callbacks of ``on_push_begin``.

    Raises:
        ValueError: If the strategy is unknown.
    """

    def __init__(self, args: TrainingArguments, *, is_world_process_zero: bool, announce: Callable[[], None]) -> None:
        strategy = str(getattr(args.hub_strategy, "value", args.hub_strategy))
        if strategy not in HUB_STRATEGIES:
            raise ValueError(f"unknown hub_strategy {strategy!r}; choose from {sorted(HUB_STRATEGIES)}")
        self.args, self.strategy, self.announce = args, strategy, announce
        self.is_world_process_zero = is_world_process_zero
        self.output_dir = Path(str(args.output_dir)).absolute()
        self.uploads = UploadQueue()

    @property
    def repo_id(self) -> str:
        """The repository as the settings name it; without an owner it is that of the token."""
        return self.args.hub_model_id or self.output_dir.name

    def on_save(self, step: int, epoch: float, checkpoint_folder: Path) -> None:
        """Upload a checkpoint that is on the disk, unless the upload before it still runs.

        Its model is copied into ``output_dir``, whose other files are uploaded too.

        Args:
            step: Updates done.
            epoch: Passes over the data done.
            checkpoint_folder: The checkpoint; it may be removed while the upload runs.
        """
        if not self.is_world_process_zero or self.strategy == "end":
            return
        if self.uploads.is_busy and not self.args.hub_always_push:
            logger.info("%s is not uploaded: the upload before it still runs", checkpoint_folder.name)
            return
        self.announce()
        message = progress_message(step, epoch, by_epoch=self.args.save_strategy == "epoch")
        try:
            commits = self._commits(checkpoint_folder, message)
        except OSError as reason:
            logger.warning("%s is not uploaded, it cannot be copied: %s", checkpoint_folder, reason)
            return
        self.uploads.submit(self._target(), commits)

    def push(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        *,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Upload ``output_dir``, behind the uploads that are not finished.

        Args:
            commit_message: First line of the commit.
            blocking: Wait for it.
            token: In the place of ``hub_token``.
            revision: In the place of ``hub_revision``.
            private: In the place of ``hub_private_repo``.

        Returns:
            The commit, or what will hold it unless ``blocking``; None in processes other than the first.

        Raises:
            FileNotFoundError: If there is no ``output_dir`` yet.
            OSError: If the upload failed, and ``blocking``; also other errors of the hub's client.
        """
        if not self.is_world_process_zero:
            return None
        self.announce()
        if not self.output_dir.is_dir():
            raise FileNotFoundError(f"there is no folder {self.output_dir} to upload; save the model first")
        folder = self.output_dir
        if not blocking:
            folder = set_aside(folder, folder, linked=is_replaced)
        commit = Commit(folder=folder, message=commit_message, set_aside=not blocking)
        target = self._target(token=token, revision=revision, private=private)
        job = self.uploads.submit(target, [commit], log_failure=not blocking)
        return job.result() if blocking else job

    def wait(self) -> None:
        """Return when all uploads are through."""
        self.uploads.wait()

    def _commits(self, checkpoint: Path, message: str) -> list[Commit]:
        """Copy a checkpoint's model into ``output_dir``, and set aside what is to be uploaded."""
        names = model_files(checkpoint)
        copy_files(checkpoint, self.output_dir, names)
        model = set_aside(self.output_dir, self.output_dir, linked=set(names).__contains__)
        commits = [Commit(folder=model, message=message, set_aside=True)]
        if self.strategy in ("checkpoint", "all_checkpoints"):
            commits.append(
                Commit(
                    folder=set_aside(checkpoint, self.output_dir, linked=lambda name: True),
                    message=f"{message}, checkpoint",
                    path_in_repo=LAST_CHECKPOINT if self.strategy == "checkpoint" else checkpoint.name,
                    removed=("*",),
                    set_aside=True,
                )
            )
        return commits

    def _target(
        self, *, token: str | None = None, revision: str | None = None, private: bool | None = None
    ) -> HubTarget:
        return HubTarget(
            repo_id=self.repo_id,
            token=self.args.hub_token if token is None else token,
            private=self.args.hub_private_repo if private is None else private,
            revision=self.args.hub_revision if revision is None else revision,
        )


def model_files(checkpoint: Path) -> list[str]:
    """Return the files of a checkpoint that make up the model and its settings, by relative path."""
    names = [path.relative_to(checkpoint).as_posix() for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    return [name for name in names if not _RUN_FILES.fullmatch(name)]


def copy_files(source: Path, target: Path, names: list[str]) -> None:
    """Copy files into a folder; each appears whole, and weights of an earlier save go."""
    with staged_folder(target, replaces_adapters=True) as stage:
        for name in names:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, stage / name)


def is_replaced(name: str) -> bool:
    """Return whether a file is one that the library only replaces, and never writes into."""
    return name.endswith(".safetensors")


def progress_message(step: int, epoch: float, *, by_epoch: bool) -> str:
    """Return the message of an upload in the middle of a run."""
    return f"Training in progress, {f'epoch {int(epoch)}' if by_epoch else f'step {step}'}"
