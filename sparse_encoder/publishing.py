"""Upload a model's folder to the hub. It knows folders and repositories, not what is in a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sparse_encoder.checkpoint.hub_names import redacted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """Where to upload to, and how."""

    repo_id: str
    """``owner/name``; without an owner it is that of the token."""
    token: str | None = field(default=None, repr=False)
    """Access token; ``None`` for the stored one."""
    private: bool | None = None
    """Whether a new repository is private; ``None`` for the owner's default."""
    commit_message: str | None = None
    """First line of the commit."""
    exist_ok: bool = False
    """Whether the repository may exist already."""
    replace_model_card: bool = False
    """Whether a README.md that is there is replaced."""
    revision: str | None = None
    """Branch to upload to; it is made if it does not exist."""
    create_pr: bool = False
    """Whether to open a pull request instead of pushing."""
    architecture: str = ""
    """What the model consists of, for the body of a pull request."""


def upload(target: Upload, *, save: Callable[[Path, str, bool], None], folder: Path | None = None) -> str:
    """Upload a model, creating the repository if it is not there.

    Args:
        target: Where to, and how.
        save: Writes the model into a folder; it is given the folder, the full repository id, and whether to write a
            README.
        folder: A saved model to upload as it is, instead of calling ``save``.

    Returns:
        The address of the commit, or of the pull request.
    """
    api, repository = open_repository(target)

    def send(source: Path) -> str:
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=source,
            commit_message=target.commit_message or "Add new SparseEncoder model",
            commit_description=_pull_request_text(target.architecture, repository) if target.create_pr else None,
            create_pr=target.create_pr,
            revision=target.revision,
        )
        return str(commit.pr_url if target.create_pr else commit.commit_url)

    if folder is not None:
        return send(folder)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "model"
        has_card = api.file_exists(repository, "README.md", revision=target.revision)
        save(staged, repository, target.replace_model_card or not has_card)
        return send(staged)


def open_repository(target: Upload) -> tuple[HfApi, str]:
    """Return a client and the full id of a repository, which is made if it is not there, and so is its branch.

    Args:
        target: Which, and for whom.
    """
    from huggingface_hub import HfApi  # heavy, and of use only here

    api = HfApi(token=target.token)
    repository = api.create_repo(
        target.repo_id, private=target.private, exist_ok=target.exist_ok or target.create_pr
    ).repo_id
    if target.revision is not None and not target.revision.startswith("refs/"):  # those of pull requests are there
        api.create_branch(repository, branch=target.revision, exist_ok=True)
    return api, repository


def without_secrets(action: Callable[[], Result], token: str | None) -> Result:
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


def _pull_request_text(architecture: str, repo_id: str) -> str:
    """Write the body of a pull request: what is in it and how to try it."""
    return f"""This pull request adds a model that sparse-encoder wrote.

## Architecture
```
{architecture}
```

## Try it before merging
```python
from sparse_encoder import SparseEncoder

pr_number = 2  # the number of this pull request
model = SparseEncoder("{repo_id}", revision=f"refs/pr/{{pr_number}}")
embeddings = model.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
print(embeddings.shape)
print(model.similarity(embeddings, embeddings))
```
"""
