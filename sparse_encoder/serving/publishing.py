"""What goes to the hub of served models: whole folders, or a graph alone. How uploads go is checkpoint.hub_push."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint.hub_push import FolderCommit, HubTarget, commit_folder, open_repository
from sparse_encoder.publishing import Upload, upload
from sparse_encoder.serving.onnx_file import check_onnx_file
from sparse_encoder.serving.saving import save_served

if TYPE_CHECKING:
    from sparse_encoder.serving.encoder import OnnxSparseEncoder

MESSAGE = "Add new SparseEncoder model with an onnx backend"
"""First line of a commit, as in sentence-transformers."""


def push_served(model: OnnxSparseEncoder, target: Upload, folder: str | None = None) -> str:
    """Upload a served model.

    Args:
        model: The model.
        target: Where to, and how.
        folder: A saved model to upload instead, as it is.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ValueError: If the file of a graph is gone.
    """

    def save(place: Path, repository: str, with_card: bool) -> None:
        save_served(model, place, with_card=with_card)

    return upload(target, save=save, folder=None if folder is None else Path(folder).expanduser())


def push_graphs(folder: Path, graphs: Sequence[Path], target: HubTarget) -> str:
    """Upload graphs of a model's folder, with their data, and nothing else of it.

    Args:
        folder: The folder.
        graphs: At least one file in it.
        target: Where to.

    Returns:
        The address of the commit, or of the pull request.
    """
    api, repository = open_repository(target)
    files = [file for graph in graphs for file in (graph, *check_onnx_file(graph))]
    first = graphs[0].relative_to(folder).as_posix()
    commit = FolderCommit(
        folder=folder,
        message=f"Add exported onnx model {graphs[0].name!r}",
        description=_how_to_try(repository, first) if target.create_pr else None,
        only=tuple(glob.escape(file.relative_to(folder).as_posix()) for file in files),
    )
    done = commit_folder(api, repository, target, commit)
    return str(done.pr_url if target.create_pr else done.commit_url)


def _how_to_try(repo_id: str, name: str) -> str:
    """Write the body of a pull request with a graph."""
    return f"""This pull request adds the ONNX graph `{name}`, which sparse-encoder wrote.

## Try it before merging
```python
from sparse_encoder import SparseEncoder

pr_number = 2  # the number of this pull request
model = SparseEncoder(
    "{repo_id}",
    revision=f"refs/pr/{{pr_number}}",
    backend="onnx",
    model_kwargs={{"file_name": "{name}"}},
)
print(model.encode(["The weather is lovely today."]).shape)
```
"""
