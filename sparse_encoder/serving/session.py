"""One graph on onnxruntime: opened after it was checked, and run on padded batches. Knows no texts.

Axes: B texts, T tokens, V vocabulary, k largest weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.serving.onnx_file import check_onnx_file, digest_of
from sparse_encoder.serving.pooling import LogitPooling

REQUIRED, OPTIONAL = ("input_ids", "attention_mask"), ("token_type_ids",)
EMBEDDING, INDICES, WEIGHTS = "sentence_embedding", "indices", "weights"
LOGITS = ("logits", "token_embeddings")
TASK, SPARSE = "sparse_encoder.task", "sparse-embedding"
_INTEGERS: dict[str, np.dtype[Any]] = {"tensor(int64)": np.dtype("int64"), "tensor(int32)": np.dtype("int32")}


def onnxruntime() -> ModuleType:
    """Import the package.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    try:
        return import_module("onnxruntime")
    except ImportError as reason:
        raise ImportError("backend='onnx' needs onnxruntime: pip install 'sparse-encoder[onnx]'") from reason


class GraphSession:
    """Run one graph.

    Args:
        path: The file.
        providers: What runs it, as :func:`choose_providers` gives it.
        session_options: An ``onnxruntime.SessionOptions``, or ``None``.
        pooling: How the logits of a graph that does not pool become weights; ``None`` refuses such a graph.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, names files outside its folder, or has other inputs or outputs than those
            of a sparse encoder.
        TypeError: If ``session_options`` is something else.
    """

    def __init__(
        self,
        path: Path,
        providers: list[Any],  # names, or pairs of a name and options
        *,
        session_options: Any = None,  # noqa: ANN401 - as above
        pooling: LogitPooling | None = None,
    ) -> None:
        package = onnxruntime()
        self.files = [path, *check_onnx_file(path)]
        if session_options is None:
            session_options = package.SessionOptions()
            session_options.log_severity_level = 3  # errors
        elif not isinstance(session_options, package.SessionOptions):
            kind = type(session_options).__name__
            raise TypeError(f"session_options must be an onnxruntime.SessionOptions, got a {kind}")
        self.path = path
        try:
            self._session = package.InferenceSession(str(path), session_options, providers=providers)
        except self._errors(package) as reason:
            raise CheckpointError(f"onnxruntime cannot open it: {_first_line(reason)}", path=path) from reason
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._pooling = pooling
        self._dtypes = self._check_inputs()
        self._outputs = self._check_outputs()

    @staticmethod
    def _errors(package: ModuleType) -> tuple[type[Exception], ...]:
        """Return what onnxruntime raises."""
        state = package.capi.onnxruntime_pybind11_state
        kinds = [getattr(state, name) for name in dir(state)]
        return (RuntimeError, *(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)))

    @cached_property
    def digest(self) -> str:
        """Hash of the files, in hex; they are read when this is first asked for."""
        return digest_of(self.files)

    @property
    def providers(self) -> list[str]:
        """What runs the graph, the first choice first."""
        return list(self._session.get_providers())

    @property
    def num_dimensions(self) -> int | None:
        """The number of terms V, if the graph says it."""
        told = self.metadata.get("sparse_encoder.num_dimensions", "")
        if told.isdecimal():
            return int(told)
        shape = self._session.get_outputs()[0].shape
        return shape[-1] if INDICES not in self._outputs and isinstance(shape[-1], int) else None

    @property
    def longest(self) -> int | None:
        """Most tokens that the model's positions allow, if the graph says it."""
        told = self.metadata.get("sparse_encoder.longest", "")
        return int(told) if told.isdecimal() and int(told) > 0 else None

    def _check_inputs(self) -> dict[str, np.dtype[Any]]:
        """Return the integer type of each input."""
        found = {each.name: each for each in self._session.get_inputs()}
        missing, odd = set(REQUIRED) - set(found), set(found) - {*REQUIRED, *OPTIONAL}
        if missing or odd:
            wanted = f"{list(REQUIRED)} and perhaps {list(OPTIONAL)}"
            raise CheckpointError(
                f"has the inputs {sorted(found)}; those of a sparse encoder are {wanted}", path=self.path
            )
        for name, value in found.items():
            if value.type not in _INTEGERS or len(value.shape) != 2:
                told = f"{value.type} of {len(value.shape)} axes"
                raise CheckpointError(f"must be integers (batch, sequence), it is {told}", path=self.path, field=name)
        return {name: _INTEGERS[value.type] for name, value in found.items()}

    def _check_outputs(self) -> list[str]:
        """Return the names of the outputs to ask for."""
        shapes = {each.name: each.shape for each in self._session.get_outputs()}
        if {INDICES, WEIGHTS} <= set(shapes) and "sparse_encoder.num_dimensions" in self.metadata:
            return [INDICES, WEIGHTS]
        if EMBEDDING in shapes and len(shapes[EMBEDDING]) == 2:
            return [EMBEDDING]
        logits = next((name for name in LOGITS if len(shapes.get(name, ())) == 3), None)
        if logits is not None and self._pooling is not None:
            return [logits]
        raise CheckpointError(
            f"has the outputs {shapes}; those of a sparse encoder are {EMBEDDING!r} (batch, terms), or {INDICES!r} and "
            f"{WEIGHTS!r} of the largest",
            path=self.path,
            hint="model.export_onnx(folder) writes such a graph",
        )

    def run(self, features: Mapping[str, NDArray[np.int64]], *, max_active_dims: int | None) -> ArrayEmbeddings:
        """Run the graph on one batch.

        Args:
            features: ``input_ids`` and ``attention_mask``, (B, T), and ``token_type_ids`` if the tokenizer has them.
            max_active_dims: Most entries of a row.

        Returns:
            Term weights, (B, V), float32.

        Raises:
            ValueError: If the graph asks for token types that the tokenizer does not give.
        """
        if missing := sorted(set(self._dtypes) - set(features)):
            raise ValueError(f"the graph asks for {missing}, which the tokenizer does not give: {sorted(features)}")
        inputs = {name: features[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        values = self._session.run(self._outputs, inputs)
        if len(values) == 2:
            rows = ArrayEmbeddings.from_pairs(values[0], values[1].astype(np.float32), self.num_dimensions or 0)
            return rows if max_active_dims is None else rows.top_k(max_active_dims)
        dense = values[0].astype(np.float32, copy=False)
        if dense.ndim == 3 and self._pooling is not None:
            dense = self._pooling(dense, features["attention_mask"])
        return ArrayEmbeddings.from_dense(dense, max_active_dims=max_active_dims)


def _first_line(reason: BaseException) -> str:
    return (str(reason).splitlines() or [type(reason).__name__])[0][:300]
