"""Graphs that go to the hub alone. How uploads go is checkpoint.hub_push."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from sparse_encoder.checkpoint.hub_push import (
    FolderCommit,
    HubTarget,
    commit_folder,
    open_repository,
    without_secrets,
)
from sparse_encoder.serving.onnx_file import check_onnx_file

MESSAGE = "Add new SparseEncoder model with an onnx backend"
"""First line of the commit of a whole model, as in sentence-transformers."""


def push_graphs(folder: Path, graphs: Sequence[Path], target: HubTarget) -> str:
    """Upload graphs of a model's folder, with their data, and nothing else of it.

    Args:
        folder: The folder.
        graphs: At least one file in it.
        target: Where to.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        CheckpointError: If a graph is damaged.
        ConnectionError: In the place of an error of the hub's client whose text holds an access token.
    """
    files = [file for graph in graphs for file in (graph, *check_onnx_file(graph))]
    return without_secrets(lambda: _push_files(folder, graphs, files, target), target.token)


def _push_files(folder: Path, graphs: Sequence[Path], files: Sequence[Path], target: HubTarget) -> str:
    """Upload graphs and what belongs to them."""
    api, repository = open_repository(target)
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
