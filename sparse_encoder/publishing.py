"""Upload a SparseEncoder's folder to the hub, with its README. How uploads go is checkpoint.hub_push."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparse_encoder.checkpoint.hub_push import (
    FolderCommit,
    HubTarget,
    commit_folder,
    open_repository,
    without_secrets,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload(HubTarget):
    """Where to upload to, and how."""

    exist_ok: bool = False
    """Whether the repository may exist already; with ``create_pr`` it always may."""
    commit_message: str | None = None
    """First line of the commit."""
    replace_model_card: bool = False
    """Whether a README.md that is there is replaced."""
    architecture: str = ""
    """What the model consists of, for the body of a pull request."""
    backend: str = "torch"
    """What is to run the model, for the same."""


def upload(target: Upload, *, save: Callable[[Path, str, bool], None], folder: Path | None = None) -> str:
    """Upload a model, creating the repository if it is not there.

    Args:
        target: Where to, and how.
        save: Writes the model into a folder; it is given the folder, the full repository id, and whether to write a
            README.
        folder: A saved model to upload as it is, instead of calling ``save``; a leading ``~`` is the home folder.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ValueError: If ``folder`` is no folder with a model; nothing is made then.
        ConnectionError: In the place of an error of the hub's client whose text holds an access token.
    """
    place = None if folder is None else _model_folder(folder.expanduser())
    return without_secrets(lambda: _upload(target, save, place), target.token)


def _model_folder(folder: Path) -> Path:
    """Return a folder with a model, which has one of two files."""
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        told = "which is no folder" if not folder.is_dir() else "which has neither modules.json nor config.json"
        raise ValueError(
            f"local_model_path must be a folder with a saved model, got {str(folder)!r}, {told}; "
            "model.save_pretrained(folder) writes one"
        )
    return folder


def _upload(target: Upload, save: Callable[[Path, str, bool], None], folder: Path | None) -> str:
    api, repository = open_repository(target)

    def send(source: Path) -> str:
        commit = FolderCommit(
            folder=source,
            message=target.commit_message or "Add new SparseEncoder model",
            description=_pull_request_text(target, repository) if target.create_pr else None,
        )
        done = commit_folder(api, repository, target, commit)
        return str(done.pr_url if target.create_pr else done.commit_url)

    if folder is not None:
        return send(folder)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "model"
        has_card = api.file_exists(repository, "README.md", revision=target.revision)
        save(staged, repository, target.replace_model_card or not has_card)
        return send(staged)


def _pull_request_text(target: Upload, repo_id: str) -> str:
    """Write the body of a pull request: what is in it and how to try it."""
    backend = "" if target.backend == "torch" else f', backend="{target.backend}"'
    return f"""This pull request adds a model that sparse-encoder wrote.

## Architecture
```
{target.architecture}
```

## Try it before merging
```python
from sparse_encoder import SparseEncoder

pr_number = 2  # the number of this pull request
model = SparseEncoder("{repo_id}", revision=f"refs/pr/{{pr_number}}"{backend})
embeddings = model.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
print(embeddings.shape)
print(model.similarity(embeddings, embeddings))
```
"""
