"""Uploads in the background, one after the other; knows folders and repositories, not what a run is.

What is to be uploaded is set aside first, so that a run may write, replace and remove its files in the meantime.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint.atomic import temporary_name
from sparse_encoder.checkpoint.hub_names import redacted
from sparse_encoder.checkpoint.hub_push import (
    FolderCommit,
    HubTarget,
    commit_folder,
    open_repository,
    without_secrets,
)

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

IGNORED = (
    *("_*", "checkpoint-*", "checkpoint.[0-9]*", ".tmp-*", "*/.tmp-*", ".trash-*", "*/.trash-*"),
    *("*.lock", ".lock*", ".git/*", ".cache/*"),
)
"""Files of an output folder that are never uploaded, as the client's patterns, in which ``*`` crosses folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit(FolderCommit):
    """One folder for one commit of a run."""

    set_aside: bool = False
    """Whether the folder was made for this commit alone and goes with it."""


class UploadQueue:
    """Upload folders in the order they come, in one thread, which lives only while there is something to do.

    The repository is made by the first upload to it; until then nothing touches the network.
    """

    def __init__(self) -> None:
        self._jobs: list[Future[CommitInfo]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._opened: dict[HubTarget, str] = {}

    @property
    def is_busy(self) -> bool:
        """Whether an upload runs or waits for its turn."""
        return any(not job.done() for job in self._jobs)

    def submit(self, target: HubTarget, commits: Sequence[Commit], *, log_failure: bool = True) -> Future[CommitInfo]:
        """Upload some folders as soon as all earlier uploads are through.

        Args:
            target: Which repository and branch, with which token.
            commits: One or several, in this order; after one that fails the rest is left out.
            log_failure: Write a failure to the log, besides into the future.

        Returns:
            What will hold the first commit, or the error, without tokens in its text.
        """
        self._jobs = [job for job in self._jobs if not job.done()]
        if not self._jobs:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub-upload")
        assert self._pool is not None
        job = self._pool.submit(self._upload, target, tuple(commits))
        self._jobs.append(job)
        if log_failure:
            job.add_done_callback(lambda done: _log_failure(done, target))
        return job

    def wait(self) -> None:
        """Return when all uploads are through; those that failed have said so in the log."""
        if self.is_busy:
            logger.info("waiting for an upload to the hub that is not finished")
        if self._pool is not None:
            self._pool.submit(int).result()  # the thread comes to it when all before is through, and in the log
        self._jobs = []

    def _upload(self, target: HubTarget, commits: tuple[Commit, ...]) -> CommitInfo:
        try:
            done = [without_secrets(partial(self._send, target, commit), target.token) for commit in commits]
        finally:
            for commit in commits:
                if commit.set_aside:
                    shutil.rmtree(commit.folder, ignore_errors=True)
        return done[0]

    def _send(self, target: HubTarget, commit: Commit) -> CommitInfo:
        from huggingface_hub import HfApi  # heavy, and of use only here

        if target not in self._opened:
            self._opened[target] = open_repository(target)[1]
        if not commit.path_in_repo:
            commit = replace(commit, ignored=IGNORED)
        return commit_folder(HfApi(token=target.token), self._opened[target], target, commit)


def set_aside(source: Path, output_dir: Path, *, linked: Callable[[str], bool]) -> Path:
    """Copy what is to be uploaded of a folder out of the way.

    Args:
        source: The folder.
        output_dir: Where a run keeps its files; the copy is in it under a temporary name, which is swept away when the
            process dies.
        linked: Says by relative path which files nobody writes into, only replaces; they are linked where the file
            system can, so that weights are not on the disk twice.

    Returns:
        The copy.

    Raises:
        OSError: If a file cannot be copied; nothing of the copy stays.
    """
    target = output_dir / temporary_name()
    names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
    try:
        target.mkdir(parents=True)
        for name in names:
            if not any(fnmatchcase(name, pattern) for pattern in IGNORED):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (_link if linked(name) else shutil.copyfile)(source / name, target / name)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no links
        shutil.copyfile(source, target)


def _log_failure(job: Future[CommitInfo], target: HubTarget) -> None:
    fault = None if job.cancelled() else job.exception()
    if fault is not None:
        text = redacted(str(fault), target.token)
        logger.warning("an upload to %r failed, the run goes on: %s: %s", target.repo_id, type(fault).__name__, text)
