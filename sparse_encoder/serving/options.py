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

    @property
    def names_providers(self) -> bool:
        """Whether they say what runs the graph."""
        return bool(self.provider or self.providers)

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
        ValueError: If one is not there, listing those that are, or the device and the options do not go together.
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
    if device is not None and options.names_providers:
        if names[0] != _provider_name(str(device)):
            raise ValueError(f"device is {str(device)!r} and model_kwargs ask for {names[0]!r}; give one of them")
        chosen[0] = _numbered(chosen[0], str(device))
    if unknown := [name for name in names if name not in available]:
        raise ValueError(f"unknown provider {unknown[0]!r}; this onnxruntime has {available}")
    return chosen if "CPUExecutionProvider" in names else [*chosen, "CPUExecutionProvider"]


def _provider_name(device: str) -> str:
    kind, colon, number = device.partition(":")
    if kind not in _DEVICES or (colon and not (number.isascii() and number.isdecimal())):
        raise ValueError(
            f"device must be one of {sorted(_DEVICES)} for backend='onnx', with a number or without as 'cuda:1', "
            f"got {device!r}"
        )
    return _DEVICES[kind]


def _provider_of(device: str) -> Any:  # noqa: ANN401 - a name, or a pair of a name and options
    name, number = _provider_name(device), device.partition(":")[2]
    return (name, {"device_id": number}) if number and name != "CPUExecutionProvider" else name


def _numbered(provider: Any, device: str) -> Any:  # noqa: ANN401 - a name, or a pair of a name and options
    """Give a provider the number of a device.

    Raises:
        ValueError: If its options have another number.
    """
    asked = _provider_of(device)
    if isinstance(asked, str):
        return provider
    told, number = device_number([provider]), int(asked[1]["device_id"])
    if told not in (None, number):
        raise ValueError(f"device is {device!r} and model_kwargs ask for the device_id {told}; give one of them")
    return (
        asked[0],
        {**(provider[1] if isinstance(provider, (tuple, list)) and len(provider) > 1 else {}), **asked[1]},
    )


def device_number(providers: Sequence[Any]) -> int | None:
    """Return the number of the device that the first of several providers is to use; ``None`` if nothing is said.

    Args:
        providers: Names, or pairs of a name and options (Any), as :func:`choose_providers` gives them.

    Raises:
        ValueError: If it is no number.
    """
    first = providers[0]
    told = first[1].get("device_id") if isinstance(first, (tuple, list)) and len(first) > 1 else None
    if told is None:
        return None
    if not (str(told).isascii() and str(told).isdecimal()):
        raise ValueError(f"device_id in the options of {first[0]!r} must be a number from 0, got {told!r:.80}")
    return int(told)


def same_device(one: object, other: object) -> bool:
    """Say whether two names mean one device: ``"cuda"`` is ``"cuda:0"``, and there is one CPU."""

    def whole(device: object) -> str:
        kind, _, number = str(device).partition(":")
        return kind if kind == "cpu" else f"{kind}:{number or 0}"

    return whole(one) == whole(other)
