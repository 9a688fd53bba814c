"""A served model's way to the hub: its folder with the graphs that it runs. How uploads go is checkpoint.hub_push."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.publishing import Upload, upload
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
