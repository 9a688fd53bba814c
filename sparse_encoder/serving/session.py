"""One graph on onnxruntime: opened after it was checked, and run on padded batches. Knows no texts.

Axes: B texts, T tokens, V vocabulary, k largest weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.checkpoint.graph_names import (
    EMBEDDING,
    INDICES,
    LONGEST,
    NUM_DIMENSIONS,
    SCORES_TASK,
    SPARSE_TASK,
    TASK,
    WEIGHTS,
)
from sparse_encoder.checkpoint.onnx_packages import CPU, first_line, open_graph, require, runtime_errors
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.serving.machine import check_machine
from sparse_encoder.serving.onnx_file import check_onnx_file, digest_of
from sparse_encoder.serving.pooling import LogitPooling

REQUIRED, OPTIONAL = ("input_ids", "attention_mask"), ("token_type_ids",)
LOGITS = ("logits", "token_embeddings")
_LARGEST_NUMBER = 2**31 - 1
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_INTEGERS: dict[str, np.dtype[Any]] = {"tensor(int64)": np.dtype("int64"), "tensor(int32)": np.dtype("int32")}


def onnxruntime() -> ModuleType:
    """Import the package.

    Raises:
        ImportError: If it is not installed; says how to install it.
    """
    return require("onnxruntime", "backend='onnx'")


def try_graph(path: Path, *, options: Any = None) -> None:  # noqa: ANN401 - SessionOptions
    """Open a graph on the CPU, and drop it; options may have it written as it was read.

    Args:
        path: The graph.
        options: An ``onnxruntime.SessionOptions``, or ``None``.

    Raises:
        CheckpointError: If onnxruntime cannot open it.
    """
    package = onnxruntime()
    try:
        open_graph(package, path, options=options)
    except runtime_errors(package) as reason:
        raise CheckpointError(f"onnxruntime cannot open it: {first_line(reason)}", path=path) from reason


class GraphSession:
    """Run one graph.

    Args:
        path: The file.
        providers: What runs it, as :func:`choose_providers` gives it.
        session_options: An ``onnxruntime.SessionOptions``, or ``None``.
        pooling: How the logits of a graph that does not pool become weights; ``None`` refuses such a graph.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, names files outside its folder, has other inputs or outputs than those of a
            sparse encoder, or is for another processor than this one.
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
        if not isinstance(session_options, package.SessionOptions | None):
            kind = type(session_options).__name__
            raise TypeError(f"session_options must be an onnxruntime.SessionOptions, got a {kind}")
        self.path = path
        self._failures = runtime_errors(package)
        try:
            self._session = open_graph(package, path, options=session_options, providers=providers)
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
            self._inputs, self._found = self._session.get_inputs(), self._session.get_outputs()
        except self._failures as reason:
            raise CheckpointError(f"onnxruntime cannot open it: {first_line(reason)}", path=path) from reason
        if CPU in self.providers:  # it takes what the others do not offer, products of integers among them
            check_machine(self.metadata, path)
        self._pooling = pooling
        self._dtypes = self._check_inputs()
        self._outputs = self._check_outputs()
        self.num_dimensions = self._check_width()
        self.longest = self._number(LONGEST)

    @cached_property
    def digest(self) -> str:
        """Hash of the files, in hex; they are read when this is first asked for."""
        return digest_of(self.files)

    @property
    def providers(self) -> list[str]:
        """What runs the graph, the first choice first."""
        return list(self._session.get_providers())

    def _number(self, name: str) -> int | None:
        """Return what the graph says of itself under a name, if it does."""
        told = self.metadata.get(name)
        if told is None:
            return None
        number = int(told) if told.isascii() and told.isdecimal() and len(told) <= len(str(_LARGEST_NUMBER)) else 0
        if not 0 < number <= _LARGEST_NUMBER:
            rule = f"must be a number between 1 and {_LARGEST_NUMBER}"
            raise CheckpointError(f"{rule}, got {told!r:.80}", path=self.path, field=name)
        return number

    def _check_width(self) -> int | None:
        """Return the number of terms V, if the graph says it."""
        told = self._number(NUM_DIMENSIONS)
        axis = next(each.shape[-1] for each in self._found if each.name == self._outputs[0])
        if self._outputs[0] == INDICES or not isinstance(axis, int):
            return told
        if told not in (None, axis):
            rule = f"says {told} terms, and {self._outputs[0]!r} has {axis}"
            raise CheckpointError(rule, path=self.path, field=NUM_DIMENSIONS)
        return axis

    def _check_inputs(self) -> dict[str, np.dtype[Any]]:
        """Return the integer type of each input."""
        found = {each.name: each for each in self._inputs}
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
        shapes = {each.name: each.shape for each in self._found}
        logits = next((name for name in LOGITS if len(shapes.get(name, ())) == 3), None)
        if {INDICES, WEIGHTS} <= set(shapes) and NUM_DIMENSIONS in self.metadata:
            return self._checked([INDICES, WEIGHTS], SPARSE_TASK)
        if EMBEDDING in shapes and len(shapes[EMBEDDING]) == 2:
            return self._checked([EMBEDDING], SPARSE_TASK)
        if logits is not None and self._pooling is not None:
            return self._checked([logits], SCORES_TASK)
        raise CheckpointError(
            f"has the outputs {shapes}; those of a sparse encoder are {EMBEDDING!r} (batch, terms), or {INDICES!r} and "
            f"{WEIGHTS!r} of the largest",
            path=self.path,
            hint="model.export_onnx(folder) writes such a graph",
        )

    def _checked(self, names: list[str], task: str) -> list[str]:
        """Check the types of outputs, and that the graph does not say that it is for something else."""
        if (told := self.metadata.get(TASK, task)) != task:
            raise CheckpointError(f"a graph that gives {names} is for {task!r}, got {told!r:.80}", path=self.path)
        kinds = {each.name: each.type for each in self._found}
        for name in names:
            allowed = tuple(_INTEGERS) if name == INDICES else _FLOATS
            if kinds[name] not in allowed:
                raise CheckpointError(
                    f"must be one of {list(allowed)}, it is {kinds[name]}", path=self.path, field=name
                )
        return names

    def run(self, features: Mapping[str, NDArray[np.int64]], *, max_active_dims: int | None) -> ArrayEmbeddings:
        """Run the graph on one batch.

        Args:
            features: ``input_ids`` and ``attention_mask``, (B, T), and ``token_type_ids`` if the tokenizer has them.
            max_active_dims: Most entries of a row.

        Returns:
            Term weights, (B, V), float32.

        Raises:
            CheckpointError: If the graph fails, or gives other shapes than a sparse encoder's or terms that there are
                not.
            ValueError: If the graph asks for token types that the tokenizer does not give.
        """
        if missing := sorted(set(self._dtypes) - set(features)):
            raise ValueError(f"the graph asks for {missing}, which the tokenizer does not give: {sorted(features)}")
        inputs = {name: features[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        try:
            values = self._session.run(self._outputs, inputs)
        except self._failures as reason:
            shape = inputs["input_ids"].shape
            told = f"onnxruntime fails on a batch of the shape {shape}: {first_line(reason)}"
            raise CheckpointError(told, path=self.path) from reason
        self._check_shapes(values, inputs["input_ids"].shape)
        if len(values) == 2:
            rows = self._from_pairs(*values)
            return rows if max_active_dims is None else rows.top_k(max_active_dims)
        dense = values[0].astype(np.float32, copy=False)
        if dense.ndim == 3 and self._pooling is not None:
            dense = self._pooling(dense, features["attention_mask"])
        return ArrayEmbeddings.from_dense(dense, max_active_dims=max_active_dims)

    def _from_pairs(self, columns: NDArray[Any], weights: NDArray[Any]) -> ArrayEmbeddings:
        try:
            return ArrayEmbeddings.from_pairs(columns, weights.astype(np.float32), self.num_dimensions or 0)
        except ValueError as reason:
            raise CheckpointError(str(reason), path=self.path, field=INDICES) from reason

    def _check_shapes(self, values: list[NDArray[Any]], shape: tuple[int, ...]) -> None:
        """Check what came of a batch of B texts of T tokens: (B, V), or (B, k) twice, or (B, T, V)."""
        width = self.num_dimensions
        for name, value in zip(self._outputs, values, strict=True):
            rows = shape if name in LOGITS else shape[:1]
            wrong = value.shape[:-1] != rows or (len(values) == 1 and width not in (None, value.shape[-1]))
            if wrong or value.shape != values[0].shape:
                wanted = (*rows, "terms" if width is None or len(values) == 2 else width)
                told = f"must have the shape {wanted} for a batch of {shape}, it has {value.shape}"
                raise CheckpointError(told, path=self.path, field=name)
