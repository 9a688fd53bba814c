"""``sparse_encoder.SparseEncoder``: the class of :mod:`sparse_encoder.model`, imported when it is first needed.

That module is made of torch, and ``backend="onnx"`` is to run where torch is not. So this name is a class of its own
that has no instances: calling it makes a model of one backend or the other, and all else is asked of the real class.
"""

from __future__ import annotations

import inspect
import logging
import sys
from abc import ABCMeta
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_encoder.model import SparseEncoder as RealEncoder

logger = logging.getLogger(__name__)

BACKENDS = ("onnx", "torch")
_HOME, _SERVED = "sparse_encoder.model", "sparse_encoder.serving.encoder"
_OWN = frozenset({"__class__", "__module__", "__name__", "__qualname__"})
"""What is answered without the real class."""


def _real() -> type[RealEncoder]:
    from sparse_encoder.model import SparseEncoder

    return SparseEncoder


def _loaded() -> tuple[type, ...]:
    """Return the classes of both backends as far as they are imported: nothing else has instances."""
    names = ((_HOME, "SparseEncoder"), (_SERVED, "OnnxSparseEncoder"))
    kinds = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(kind for kind in kinds if isinstance(kind, type))


class _Front(ABCMeta):
    """Answer for the real class; a class made of this one is a class made of the real one.

    It is an ``ABCMeta`` only so that a class may be made of this one and an abstract one.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:  # noqa: ANN401
        if not any(isinstance(base, _Front) for base in bases):
            return type.__new__(mcs, name, bases, body)  # without the set-up of abstract classes
        real = tuple(_real() if isinstance(base, _Front) else base for base in bases)
        kinds = {type(base) for base in real}
        kind = next((each for each in kinds if all(issubclass(each, other) for other in kinds)), type)
        return kind(name, real, body)

    def __call__(cls, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the real class, which checks them
        backend = options.get("backend", "torch")
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}; choose from {list(BACKENDS)}")
        return open_onnx(*arguments, **options) if backend == "onnx" else _real()(*arguments, **options)

    def __getattribute__(cls, name: str) -> Any:  # noqa: ANN401 - whatever the real class has
        if name in _OWN:
            return super().__getattribute__(name)
        if name == "__signature__":
            return inspect.signature(_real())
        return getattr(_real(), name)

    def __setattr__(cls, name: str, value: object) -> None:
        setattr(_real(), name, value)

    def __delattr__(cls, name: str) -> None:
        delattr(_real(), name)

    def __dir__(cls) -> list[str]:
        return dir(_real())

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _loaded())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return isinstance(subclass, _Front) or issubclass(subclass, _loaded())

    def __eq__(cls, other: object) -> bool:
        return isinstance(other, _Front) or (_HOME in sys.modules and other is _real())

    def __hash__(cls) -> int:
        return hash(_real())

    def __repr__(cls) -> str:
        return f"<class '{_HOME}.SparseEncoder'>"


def open_onnx(  # house: peer signature
    model_name_or_path: str | None = None,
    *,
    modules: object = None,
    device: object = None,
    prompts: Mapping[str, str | None] | None = None,
    default_prompt_name: str | None = None,
    cache_folder: str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    processor_kwargs: Mapping[str, Any] | None = None,
    tokenizer_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
    model_card_data: object = None,
    backend: str = "onnx",
    similarity_fn_name: Any = None,  # noqa: ANN401 - a name, or a member of SimilarityFunction
    max_active_dims: int | None = None,
) -> Any:  # noqa: ANN401 - an OnnxSparseEncoder, whose module imports what only servers need
    """Open a model on onnxruntime; arguments are those of ``SparseEncoder``.

    Raises:
        ValueError: If an argument is for modules of torch only; names it.
    """
    from sparse_encoder.serving.arguments import ModelArguments
    from sparse_encoder.serving.encoder import OnnxSparseEncoder

    refused = {"modules": modules, "config_kwargs": config_kwargs or None, "model_card_data": model_card_data}
    if wrong := sorted(name for name, value in refused.items() if value is not None):
        raise ValueError(f"{wrong[0]} is for backend='torch'; with backend='onnx' a graph holds the model")
    if model_name_or_path is None:
        raise ValueError("give the name or path of a model that has an ONNX graph, or may be exported to one")
    if processor_kwargs is not None and tokenizer_kwargs is not None:
        raise ValueError("give processor_kwargs or tokenizer_kwargs, its older name, not both")
    if trust_remote_code:
        logger.warning("trust_remote_code is ignored: code that comes with a model is never run")
    return OnnxSparseEncoder(
        ModelArguments(
            name=str(model_name_or_path),
            device=device,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs or tokenizer_kwargs or {},
            similarity_fn_name=similarity_fn_name,
            max_active_dims=max_active_dims,
        )
    )


class SparseEncoder(metaclass=_Front):
    """Stands for :class:`sparse_encoder.model.SparseEncoder`."""
