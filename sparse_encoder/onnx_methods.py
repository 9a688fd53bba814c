"""The method that writes an encoder as a graph. The work is done by :mod:`sparse_encoder.export`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint import staged_folder
from sparse_encoder.checkpoint.graph_names import DEFAULT_OPSET
from sparse_encoder.checkpoint.left_over import remove_left_over

if TYPE_CHECKING:
    from sparse_encoder.export import ExportReport


class OnnxMethods:
    """Write ONNX graphs; one base of a sparse encoder."""

    if TYPE_CHECKING:

        def save_pretrained(self, path: str) -> None:
            """Write the model to a folder."""

    def export_onnx(
        self,
        path: str | Path,
        *,
        save_model: bool = True,
        opset: int = DEFAULT_OPSET,
        top_k: int | None = None,
        dtype: str = "float32",
        external_data: bool | None = None,
        validate: bool = True,
    ) -> ExportReport:
        """Write the model with a graph of it, so that ``SparseEncoder(path, backend="onnx")`` encodes without torch.

        The graph takes token ids and gives pooled weights; it lies in ``onnx/model.onnx`` of the folder, as graphs of
        sentence-transformers do. Of a ``Router`` each route has its own, ``onnx/<route>/model.onnx``. The folder gets
        model and graph together or nothing, and older graphs go, those in 8 bits too: they held other weights.

        Args:
            path: The folder; with ``save_model=False`` also a file, ``*.onnx``.
            save_model: Whether to write also what :meth:`save_pretrained` writes; False writes the graph alone.
            opset: As :func:`sparse_encoder.export.export_onnx`.
            top_k: Likewise.
            dtype: Likewise.
            external_data: Likewise.
            validate: Likewise.

        Returns:
            What was written, and the largest difference from the model.

        Raises:
            ImportError: If a package is missing; says how to install it.
            ValueError: If an argument is out of range.
            ExportError: If torch cannot make the graph, or it computes something else; then nothing is written.
        """
        from sparse_encoder.export import export_onnx

        write = partial(
            export_onnx,
            self,  # type: ignore[arg-type]  # a module, as what has this base is
            opset=opset,
            top_k=top_k,
            dtype=dtype,
            external_data=external_data,
            validate=validate,
        )
        if not save_model:
            return write(path)
        if Path(path).suffix == ".onnx":
            raise ValueError(f"path must be a folder, got the file {path}; save_model=False writes the graph alone")
        folder = Path(path).expanduser()
        remove_left_over(folder.parent)
        with staged_folder(folder, replaces_adapters=True) as stage:
            self.save_pretrained(str(stage))
            report = write(stage)
        return report.moved(stage, folder)
