"""``SparseEncoder``: a class that is empty until it is needed, and is then filled by :mod:`sparse_encoder.model`.

That module is made of torch, and ``backend="onnx"`` is to run where torch is not, so the class exists without it. It is
one and the same class before and after, and after it nothing is left of the arrangement: ``isinstance``,
``issubclass``, ``super(SparseEncoder, self)``, ``match``, mocks, pickles and ``inspect`` work because they see an
ordinary class whose bases are torch's. (A second class that stood for the real one would have to answer for it in each
of these, and in some a class cannot: ``super`` and ``issubclass`` go by true bases.)

Filled it is by whatever needs torch: making a model or a subclass, or asking for a member or for the bases. Asking for
its name, docstring, hash, signature or instances does not, nor does ``backend="onnx"``. Where torch is imported before
``from sparse_encoder import SparseEncoder`` it is filled at once; elsewhere ``issubclass(SparseEncoder,
torch.nn.Module)`` is false until then, as Python does not ask the class.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABCMeta
from collections.abc import Mapping
from importlib import import_module
from typing import Any

logger = logging.getLogger(__name__)

BACKENDS = ("onnx", "torch")
_HOME = "sparse_encoder.model"
_OWN = frozenset(
    {
        *("__abstractmethods__", "__class__", "__doc__", "__hash__", "__module__", "__name__", "__new__"),
        *("__qualname__", "__subclasscheck__", "__subclasses__", "__subclasshook__", "_abc_impl", "register"),
        *("__args__", "__isabstractmethod__", "__metadata__", "__mro_entries__", "__orig_bases__", "__origin__"),
        *("__parameters__", "__set_name__", "__text_signature__", "__typing_subst__", "__wrapped__"),
        "__typing_unpacked_tuple_args__",
    }
)
"""What the empty class answers itself: what it has, and what ``typing`` and ``inspect`` look for and no class has."""


class _Empty(ABCMeta):
    """The class of the class while it is empty; it is an ``ABCMeta`` then, so that abstract classes may be mixed in."""

    def __new__(  # house: peer signature
        mcs,
        name: str,
        bases: tuple[type, ...],
        body: dict[str, Any],
        **options: Any,  # noqa: ANN401 - the keywords of a class statement
    ) -> Any:  # noqa: ANN401 - a class
        import_module(_HOME)
        return super().__new__(ABCMeta, name, bases, body, **options)

    def __getattribute__(cls, name: str) -> Any:  # noqa: ANN401 - whatever the full class has
        if name == "__signature__":
            return _signature()
        if name not in _OWN:
            try:
                import_module(_HOME)
            except ImportError:
                if not name.startswith("__"):  # those are asked for by Python, which takes no for an answer
                    raise
        return type.__getattribute__(cls, name)

    def __setattr__(cls, name: str, value: object) -> None:
        import_module(_HOME)
        type.__setattr__(cls, name, value)

    def __delattr__(cls, name: str) -> None:
        import_module(_HOME)
        type.__delattr__(cls, name)

    def __dir__(cls) -> list[str]:
        try:
            import_module(_HOME)
        except ImportError:  # without torch it can make models of the other backend
            return dir(import_module("sparse_encoder.serving").OnnxSparseEncoder)
        return list(type.__dir__(cls))


class Filling(ABCMeta):
    """Make a class statement fill ``SparseEncoder`` instead of making a class; for the one in ``model.py``."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:  # noqa: ANN401, D102 - a class
        cell = body.pop("__classcell__", None)
        if cell is not None:
            cell.cell_contents = SparseEncoder  # what super() without arguments means
        type.__setattr__(SparseEncoder, "__bases__", (_ByBackend, *bases))
        for member, value in body.items():
            if member != "__doc__":
                type.__setattr__(SparseEncoder, member, value)
        type.__setattr__(SparseEncoder, "__class__", ABCMeta)  # last: until then others wait for the import
        return SparseEncoder


class _ByBackend:
    """Make a model of one backend or the other."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the constructor, which checks them
        if cls is SparseEncoder:
            backend = options.get("backend", "torch")
            if backend not in BACKENDS:
                raise ValueError(f"unknown backend {backend!r}; choose from {list(BACKENDS)}")
            if backend == "onnx":
                return open_onnx(*arguments, **options)
            import_module(_HOME)
        return super().__new__(cls)


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


open_onnx.__qualname__ = "SparseEncoder.__init__"  # what an error about its arguments names


def _signature() -> inspect.Signature:
    """Return that of the full class's constructor, which a test compares."""
    signature = inspect.signature(open_onnx)
    parameters = [each for name, each in signature.parameters.items() if name != "tokenizer_kwargs"]
    torch = [each.replace(default="torch") if each.name == "backend" else each for each in parameters]
    return signature.replace(parameters=torch, return_annotation=inspect.Signature.empty)


class SparseEncoder(_ByBackend, metaclass=ABCMeta):
    """Turn texts into sparse vectors, one dimension per term of a vocabulary.

    It is used as that of sentence-transformers is. Errors are of the same types with texts of their own, and parameters
    have one name in all families of models: ``0.model.backbone.layers.0.attention.q.weight``.

    Args:
        model_name_or_path: A folder, or a repository on the hub, ``owner/name``.
        modules: The modules, when there is no name: one that reads texts first.
        device: Where to compute; by default an accelerator if there is one.
        prompts: Texts to put before inputs, by name; ``{"query": "", "document": ""}`` switches saved ones off.
        default_prompt_name: The prompt of calls that name none.
        cache_folder: Where downloads are kept.
        trust_remote_code: Ignored, with a warning if it is true: code of a repository is never run.
        revision: Branch, tag or commit on the hub.
        local_files_only: Download nothing.
        token: Access token for the hub.
        model_kwargs: Options of the backbone's ``from_pretrained``, as ``dtype``, ``attn_implementation``, ``variant``,
            a ``device_map`` of one device, and ``base_model`` for an adapter whose file names a folder outside its own.
        processor_kwargs: Options of the tokenizer; ``tokenizer_kwargs`` is its older name.
        config_kwargs: Values that replace those of the backbone's ``config.json``.
        model_card_data: What the author says in the README.
        backend: ``"torch"``; with ``"onnx"`` an :class:`OnnxSparseEncoder` is made, which needs no torch. Classes made
            of this one have the first only.
        similarity_fn_name: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"manhattan"``; by default as saved, else dot.
        max_active_dims: Most entries of an embedding; by default as saved, else the ``k`` of a ``SparseAutoEncoder``.

    Raises:
        ValueError: If an argument is not one of those above.
        LoadError: If the folder's files are not what they claim to be.
    """


type.__setattr__(SparseEncoder, "__class__", _Empty)  # from here on it asks for what it lacks
