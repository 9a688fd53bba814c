"""Folders that go to the hub: a repository, its branch, one commit. Knows no model; weight files by name only."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from sparse_encoder.checkpoint.atomic import write_text
from sparse_encoder.checkpoint.hub_card import README, tagged_card
from sparse_encoder.checkpoint.hub_names import redacted
from sparse_encoder.checkpoint.weight_names import ADAPTER_FILES, is_plain, set_of

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

Result = TypeVar("Result")

_NEVER = (".git/*", "*/.git/*", ".cache/huggingface/*", "*/.cache/huggingface/*")
"""What belongs to git or to the hub's client, as patterns in which ``*`` crosses folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubTarget:
    """Where an upload goes."""

    repo_id: str
    """``owner/name``; without an owner it is that of the token."""
    token: str | bool | None = field(default=None, repr=False)
    """Access token; ``None`` and true for the stored one."""
    private: bool | None = None
    """Whether a new repository is private; ``None`` for the owner's default."""
    exist_ok: bool = True
    """Whether the repository may exist already; with ``create_pr`` it always may."""
    revision: str | None = None
    """Branch to upload to; it is made if it does not exist."""
    create_pr: bool = False
    """Whether to open a pull request instead of pushing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushOptions(HubTarget):
    """An upload of something that can save itself."""

    commit_message: str | None = None
    """First line of the commit; ``None`` says what is uploaded."""
    commit_description: str | None = None
    """The rest of the commit's message, or the text of the pull request."""
    tags: str | Sequence[str] | None = None
    """Further tags for the README."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderCommit:
    """One folder for one commit."""

    folder: Path
    message: str
    description: str | None = None
    path_in_repo: str = ""
    """Where the files go; ``""`` is the top."""
    only: tuple[str, ...] | None = None
    """Patterns of the files that are uploaded; ``None`` for all."""
    ignored: tuple[str, ...] = ()
    """Patterns of files that are not."""
    removed: tuple[str, ...] = ()
    """Patterns of files at ``path_in_repo`` that are removed unless they are uploaded, besides outdated weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """What is saved for an upload, and how it is told of."""

    kind: str
    """``"model"``, ``"tokenizer"`` and so on, for the commit's message."""
    save: Callable[[Path], None]
    """Writes it into a folder."""
    tags: tuple[str, ...] = ()
    card: Callable[[str], str] = str
    """Text of a README for a repository that has none, by the repository's id; without front matter."""


def open_repository(target: HubTarget) -> tuple[HfApi, str]:
    """Return a client and the full id of a repository, which is made if it is not there, and so is its branch.

    Args:
        target: Which, and for whom.
    """
    from huggingface_hub import HfApi, errors  # heavy, and of use only here

    api = HfApi(token=target.token)
    repository = api.create_repo(
        target.repo_id, private=target.private, exist_ok=target.exist_ok or target.create_pr
    ).repo_id
    if target.revision is not None and not target.revision.startswith("refs/"):  # those of pull requests are there
        try:
            api.create_branch(repository, branch=target.revision, exist_ok=True)
        except errors.HfHubHTTPError as reason:
            if not (target.create_pr and reason.response is not None and reason.response.status_code == 403):
                raise  # who may only propose changes cannot make branches, and the branch may be there
    return api, repository


def commit_folder(api: HfApi, repository: str, target: HubTarget, commit: FolderCommit) -> CommitInfo:
    """Upload a folder in one commit, however large it is; the client's own way makes several of a large one.

    Weight files and adapters of an earlier upload that would be read in the place of the new ones, or together with
    them, are removed by the same commit.

    Args:
        api: The client.
        repository: Full id of the repository.
        target: Which branch, or whether to open a pull request.
        commit: What to upload.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files = sorted(path.relative_to(commit.folder).as_posix() for path in commit.folder.rglob("*") if path.is_file())
    ignored = (*commit.ignored, *_NEVER)
    beginning = f"{commit.path_in_repo}/" if commit.path_in_repo else ""
    new = {
        beginning + name: commit.folder / name
        for name in files
        if (commit.only is None or _matches(name, commit.only)) and not _matches(name, ignored)
    }
    outdated: list[str] = []
    patterns = [*(glob.escape(beginning) + each for each in commit.removed), *_outdated(new)]
    if patterns:
        there = set(api.list_repo_files(repository, revision=target.revision)).difference(new)
        outdated = sorted(name for name in there if _matches(name, patterns))
    return api.create_commit(
        repository,
        [
            *(CommitOperationDelete(path_in_repo=name) for name in outdated),
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in new.items()),
        ],
        commit_message=commit.message,
        commit_description=commit.description,
        create_pr=target.create_pr,
        revision=target.revision,
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def working_folder(repo_id: str, use_temp_dir: bool | None) -> Path | None:
    """Return the folder of a repository's name in this process's folder, or None for a temporary one.

    Args:
        repo_id: The repository; the folder has its last part for a name.
        use_temp_dir: Which of both; None takes the folder if it is there.
    """
    folder = Path(repo_id.rpartition("/")[2])
    return folder if use_temp_dir is False or (use_temp_dir is None and folder.is_dir()) else None


def push(parcel: Parcel, options: PushOptions, *, folder: Path | None = None) -> CommitInfo:
    """Save something and upload what saving has written, with a README that has its tags, in one commit.

    A README that is in the folder or the repository keeps its text and gets the tags that it lacks. Weight files of an
    earlier upload that would be read in the place of the new ones are removed by the same commit.

    Args:
        parcel: What to save.
        options: Where to upload it.
        folder: Where to save it; of other files there nothing is uploaded. ``None`` for a temporary folder.

    Raises:
        OSError: If it cannot be saved, or the hub refuses it; also other errors of the hub's client, all without tokens
            in their texts.
    """
    return without_secrets(lambda: _push(parcel, options, folder), options.token)


def _push(parcel: Parcel, options: PushOptions, folder: Path | None) -> CommitInfo:
    api, repository = open_repository(options)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "new" if folder is None else folder
        before = _states(place)
        parcel.save(place)
        known = _known_readme(api, repository, options.revision, place, Path(temporary) / "old")
        tags = [*parcel.tags, *([options.tags] if isinstance(options.tags, str) else options.tags or ())]
        card = tagged_card(known, tags, body=parcel.card(repository))
        if card != known:
            write_text(place / README, card)
        new = sorted(name for name, state in _states(place).items() if before.get(name) != state)
        commit = FolderCommit(
            folder=place,
            message=options.commit_message or f"Upload {parcel.kind}",
            description=options.commit_description,
            only=tuple(map(glob.escape, new)),
        )
        return commit_folder(api, repository, options, commit)


def _states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells a file from an earlier one of the same name."""
    states = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): (state.st_mtime_ns, state.st_size, state.st_ino)
        for path, state in states.items()
    }


def _known_readme(api: HfApi, repository: str, revision: str | None, folder: Path, temporary: Path) -> str | None:
    """Return the README of a folder, else that of a repository, or None."""
    path = folder / README
    if not path.exists():
        if not api.file_exists(repository, README, revision=revision):
            return None
        path = Path(api.hf_hub_download(repository, README, revision=revision, local_dir=temporary))
    return path.read_text(encoding="utf-8")


def _outdated(new: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of files that may be read together with, or in the place of, new weights or adapters."""
    patterns = set()
    for name in new:
        last = PurePosixPath(name).name
        names = set_of(last)
        folder = f"{os.path.dirname(name)}/" if "/" in name else ""
        if is_plain(last) or last == ADAPTER_FILES[0]:
            patterns |= {glob.escape(folder) + each for each in ADAPTER_FILES}
        for outdated in () if names is None else names.outdated:
            shards = outdated.pattern.format(suffix="-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]")
            patterns |= {glob.escape(folder) + each for each in (outdated.single, outdated.index, shards)}
    return tuple(sorted(patterns))


def without_secrets(action: Callable[[], Result], token: str | bool | None) -> Result:
    """Talk to the hub; an error whose text holds an access token is replaced by one without it.

    Args:
        action: What to do.
        token: The token that is used, to be found in texts whatever it looks like.

    Raises:
        ConnectionError: In the place of an error that holds a token; all others come as they are.
    """
    from huggingface_hub import errors

    transport: type[Exception] = errors.HfHubHTTPError.__mro__[1]  # of httpx, which the client has under two names
    try:
        return action()
    except (transport, OSError, ValueError, RuntimeError) as reason:
        text = redacted(str(reason), token)
        if text == str(reason):
            raise
        message = f"{type(reason).__name__}: {text}"
    raise ConnectionError(message)
