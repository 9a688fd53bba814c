"""Options of the backend: which graph of a folder, run by what. They are named as in sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from sparse_encoder.checkpoint.graph_names import GRAPH_FOLDER, SUFFIX

FIRST_CHOICES = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""What runs a graph if the caller does not say: the first that there is."""
_DEVICES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendOptions:
    """What ``model_kwargs`` may hold for ``backend="onnx"``."""

    provider: str | None = None
    """What runs the graph, as ``"CPUExecutionProvider"``; whatever it cannot run is run on the CPU."""
    providers: Sequence[Any] | None = None
    """Several, the first choice first: names, or pairs of a name and options (Any)."""
    provider_options: Mapping[str, Any] | None = None
    """Options of ``provider``; Any: onnxruntime judges them."""
    session_options: Any = None
    """An ``onnxruntime.SessionOptions``, whose package may be missing; for threads, profiles, optimisation."""
    file_name: str | None = None
    """The graph, ``"onnx/model_qint8_avx2.onnx"`` or only the name of the file; one that is exported is called so."""
    subfolder: str = GRAPH_FOLDER
    """Where graphs are that are named by the file only."""
    export: bool | None = None
    """``None`` exports a folder that has no graph, true exports always, false never."""

    def __post_init__(self) -> None:
        """Check the types; a name without its ending gets it."""
        for name in ("provider", "file_name"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} in model_kwargs must be a string, got {value!r:.80}")
        if self.provider_options is not None and not isinstance(self.provider_options, Mapping):
            raise TypeError(f"provider_options in model_kwargs must be a dict, got {self.provider_options!r:.80}")
        if self.providers is not None and not (isinstance(self.providers, (list, tuple)) and self.providers):
            raise ValueError(f"providers in model_kwargs must be a list of names, got {self.providers!r:.80}")
        if self.provider is not None and self.providers is not None:
            raise ValueError("give provider or providers in model_kwargs, not both")
        if self.provider_options is not None and self.provider is None:
            raise ValueError("provider_options in model_kwargs are those of provider, which is missing")
        if self.export is not None and not isinstance(self.export, bool):
            raise TypeError(f"export in model_kwargs must be True, False or None, got {self.export!r:.80}")
        if not isinstance(self.subfolder, str):
            raise TypeError(f"subfolder in model_kwargs must be a string, got {self.subfolder!r:.80}")
        if self.file_name is not None and not self.file_name.endswith(SUFFIX):
            object.__setattr__(self, "file_name", f"{self.file_name}{SUFFIX}")


def read_options(model_kwargs: Mapping[str, Any] | None) -> BackendOptions:
    """Read ``model_kwargs``.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a name is unknown, or two do not go together.
    """
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        raise TypeError(f"model_kwargs must be a dict, got {model_kwargs!r:.80}")
    known = [field.name for field in fields(BackendOptions)]
    if unknown := sorted(set(model_kwargs or {}) - set(known)):
        raise ValueError(f"unknown model_kwargs {unknown} for backend='onnx'; choose from {known}")
    return BackendOptions(**dict(model_kwargs or {}))


def choose_providers(onnxruntime: ModuleType, options: BackendOptions, device: object) -> list[Any]:
    """Decide what runs the graph.

    Args:
        onnxruntime: The package.
        options: What the caller says.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; ``None`` for the options, else the first of
            :data:`FIRST_CHOICES` that there is.

    Returns:
        Names, or pairs of a name and options (Any), the CPU last.

    Raises:
        ValueError: If one is not there; lists those that are.
    """
    available = onnxruntime.get_available_providers()
    chosen: list[Any]
    if options.provider is not None:
        chosen = [(options.provider, dict(options.provider_options or {}))]
    elif options.providers is not None:
        chosen = list(options.providers)
    elif device is not None:
        chosen = [_provider_of(str(device))]
    else:
        chosen = [next(name for name in FIRST_CHOICES if name in available)]
    names = [each[0] if isinstance(each, (tuple, list)) and each else each for each in chosen]
    if device is not None and (options.provider or options.providers) and names[0] != _provider_name(str(device)):
        raise ValueError(f"device is {str(device)!r} and model_kwargs ask for {names[0]!r}; give one of them")
    if unknown := [name for name in names if name not in available]:
        raise ValueError(f"unknown provider {unknown[0]!r}; this onnxruntime has {available}")
    return chosen if "CPUExecutionProvider" in names else [*chosen, "CPUExecutionProvider"]


def _provider_name(device: str) -> str:
    kind = device.partition(":")[0]
    if kind not in _DEVICES:
        raise ValueError(f"device must be one of {sorted(_DEVICES)} for backend='onnx', got {device!r}")
    return _DEVICES[kind]


def _provider_of(device: str) -> Any:  # noqa: ANN401 - a name, or a pair of a name and options
    name, number = _provider_name(device), device.partition(":")[2]
    return (name, {"device_id": number}) if number else name
