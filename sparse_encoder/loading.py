"""From a folder to modules: which modules a saved model, a dense model or a plain checkpoint becomes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.backbone.adapters.bases import base_to_open, check_base
from sparse_encoder.backbone.adapters.files import has_adapter, read_adapter_config
from sparse_encoder.backbone.families import architecture_is_masked_language
from sparse_encoder.checkpoint import LoadError, fetch_model_folder, read_json_object, read_limited, resolve_inside
from sparse_encoder.modules import Module, Pooling, SparseAutoEncoder, SpladePooling, Transformer
from sparse_encoder.modules.pipeline import load_modules
from sparse_encoder.modules.transformer_files import HUB_OPTIONS, backbone_options, with_plain_dtype, without_idle
from sparse_encoder.settings import DENSE_TYPE, MODEL_TYPE, ModelSettings, read_settings

logger = logging.getLogger(__name__)

MAX_README_BYTES = 10_000_000
"""The largest README that is kept."""


class LoadedModel(NamedTuple):
    """What a folder holds."""

    modules: list[nn.Module]
    """The modules, the one that reads texts first."""
    settings: ModelSettings
    """What the model remembers; empty for a plain checkpoint."""
    readme: str | None = None
    """Its README.md, unless the modules are not those that it describes."""
    commit: str | None = None
    """The commit, if it came from the hub."""


class Download(NamedTuple):
    """How a model is downloaded."""

    cache_folder: str | None
    """Where downloads are kept."""
    revision: str | None
    """Branch, tag or commit."""
    token: bool | str | None
    """Access token."""
    local_files_only: bool
    """Whether to download nothing."""


class ModuleOptions(NamedTuple):
    """How the modules are opened."""

    model_kwargs: Mapping[str, Any]
    """``dtype`` or ``torch_dtype``, ``attn_implementation``, ``base_model``; of decoders ``bidirectional``."""
    processor_kwargs: Mapping[str, Any]
    """Options of the tokenizer."""
    config_kwargs: Mapping[str, Any]
    """Values that replace those of ``config.json``."""


def open_model(
    name_or_path: str | None, modules: Sequence[nn.Module] | None, hub: Download, options: ModuleOptions
) -> LoadedModel:
    """Open a model by its name or path, or take modules that are there.

    Args:
        name_or_path: A folder, or a repository on the hub.
        modules: The modules, when there is no name.
        hub: How a model is downloaded.
        options: How the backbone is opened.

    Returns:
        Modules, settings, README and commit.

    Raises:
        ValueError: If neither a name nor modules are given, or an option of the hub is among those of the backbone.
    """
    for name, values in options._asdict().items():
        if wrong := sorted(set(values) & set(HUB_OPTIONS)):
            arguments = [HUB_OPTIONS[each] for each in wrong]
            raise ValueError(f"{name} must not hold {wrong}: use the arguments {arguments} of SparseEncoder instead")
    if name_or_path is None:
        if modules is None:
            raise ValueError("give the name or path of a model, or its modules")
        return LoadedModel(list(modules), ModelSettings())
    if modules is not None:
        logger.warning("both the name of a model and modules were given: the modules are not used")
    judged = backbone_options(options.model_kwargs, options.config_kwargs)
    options = options._replace(model_kwargs=without_idle(options.model_kwargs))
    root = folder = fetch_model_folder(
        name_or_path,
        **hub._asdict(),
        force_download=judged.hub.force_download,
        subfolder=judged.hub.subfolder,
        variant=judged.variant,
        use_safetensors=judged.use_safetensors,
    )
    if judged.hub.subfolder:
        folder = resolve_inside(root, judged.hub.subfolder)
        options = options._replace(model_kwargs={**options.model_kwargs, "subfolder": ""})
    if has_adapter(folder):  # whose base may have to be fetched too
        again = {"cache_dir": hub.cache_folder, "token": hub.token, "local_files_only": hub.local_files_only}
        options = options._replace(model_kwargs={**again, **options.model_kwargs})
    loaded = load_model(folder, options)
    return loaded if Path(name_or_path).expanduser().is_dir() else loaded._replace(commit=root.name)


def load_model(folder: Path, options: ModuleOptions) -> LoadedModel:
    """Open a model's folder.

    A folder without ``modules.json``, or of another kind of model, becomes SPLADE if it holds a masked language model,
    or a decoder with its head, of which sentence-transformers does not use the head; else a dense encoder with a fresh
    sparse auto-encoder. A dense sentence-transformers model keeps its modules and
    settings and gets a fresh auto-encoder.

    Args:
        folder: The folder.
        options: How the backbone is opened.

    Returns:
        Modules, settings and README.

    Raises:
        LoadError: If the folder's files are not what they claim to be.
        ImportError: If the model requires something that is not installed.
    """
    if not (folder / "modules.json").exists():
        logger.info("%s has no modules.json: starting a new SparseEncoder from it", folder)
        return LoadedModel(_default_modules(folder, options), ModelSettings())
    settings = read_settings(folder)
    if settings.model_type not in (MODEL_TYPE, DENSE_TYPE):
        logger.warning("%s holds a %s: only its backbone is used", folder, settings.model_type)
        return LoadedModel(_default_modules(folder, options), ModelSettings())
    modules = load_modules(folder, **options._asdict())
    if settings.model_type == MODEL_TYPE:
        return LoadedModel(modules, settings, _read_readme(folder))
    logger.info("%s holds a dense model: a fresh SparseAutoEncoder is put on top of it", folder)
    return LoadedModel([*modules, _auto_encoder_for(modules)], settings)


def _default_modules(folder: Path, options: ModuleOptions) -> list[nn.Module]:
    """Make the modules of a plain checkpoint, or of an adapter for one."""
    base = _base_of(folder, options.model_kwargs)
    tokenizer = folder if (folder / "tokenizer_config.json").exists() else base
    made = partial(Transformer, str(folder), tokenizer_name_or_path=str(tokenizer), **options._asdict())
    if architecture_is_masked_language(read_json_object(resolve_inside(base, "config.json"))):
        return [made(transformer_task="fill-mask"), SpladePooling(pooling_strategy="max")]
    transformer = made(transformer_task="feature-extraction")
    dim = transformer.model.config.hidden_size
    auto_encoder = SparseAutoEncoder(input_dim=dim, hidden_dim=4 * dim, k=min(256, 4 * dim), k_aux=512)
    return [transformer, Pooling(dim, pooling_mode="mean"), auto_encoder]


def _base_of(folder: Path, hub_options: Mapping[str, Any]) -> Path:  # Any: options of the hub among others
    """Return the folder of the model that an adapter stands on; of any other folder itself."""
    named = (
        base_to_open(folder, read_adapter_config(folder), hub_options.get("base_model"))
        if has_adapter(folder)
        else None
    )
    if named is None:
        return folder
    options = {HUB_OPTIONS[name]: value for name, value in hub_options.items() if name in HUB_OPTIONS}
    options |= {name: hub_options[name] for name in ("variant", "use_safetensors") if name in hub_options}
    options |= {"revision": named.revision, "repository_only": named.is_repository}
    base = fetch_model_folder(named.name, **options)
    check_base(folder, base)
    return base


def _auto_encoder_for(modules: list[nn.Module]) -> SparseAutoEncoder:
    """Make an untrained auto-encoder that fits on top of dense modules."""
    dims = [module.get_embedding_dimension() for module in modules if isinstance(module, Module)]
    known = [dim for dim in dims if dim is not None]
    if not known:
        raise ValueError("none of the loaded modules knows its embedding dimension, so no auto-encoder fits on top")
    dim = known[-1]
    return SparseAutoEncoder(input_dim=dim, hidden_dim=4 * dim, k=dim // 4, k_aux=dim // 2)


def auto_encoder_k(modules: Iterable[nn.Module]) -> int | None:
    """Return the ``k`` of the first auto-encoder, which limits how many entries an embedding has."""
    return next((int(module.k) for module in modules if isinstance(module, SparseAutoEncoder)), None)


def _read_readme(folder: Path) -> str | None:
    """Return the README of a folder; one that leads elsewhere or is no file of a sane size is left alone."""
    try:
        data = read_limited(resolve_inside(folder, "README.md"), max_bytes=MAX_README_BYTES)
    except FileNotFoundError:
        return None
    except LoadError as reason:
        logger.warning("the README is not kept: %s", reason)
        return None
    return data.decode("utf-8", errors="replace")


def _chosen_device(
    modules: nn.Module, device: str | torch.device | None, model_kwargs: Mapping[str, Any]
) -> str | torch.device | None:
    """Return the device that ``device`` or ``device_map`` among the options of the backbone asks for.

    Args:
        modules: They have the backbone, which is where ``device_map`` has put it.
        device: What the caller of SparseEncoder asks for.
        model_kwargs: Options of the backbone.

    Raises:
        ValueError: If both are given and differ.
    """
    backbone = next((each for each in modules.modules() if isinstance(each, PretrainedModel)), None)
    if model_kwargs.get("device_map") is None or backbone is None:
        return device
    if device is None:
        return backbone.device
    asked, placed = torch.device(device), backbone.device
    if asked.type != placed.type or asked.index not in (None, placed.index):
        raise ValueError(f"device is {str(asked)!r}, and device_map has put the backbone on {str(placed)!r}; give one")
    return device


def place_modules(model: nn.Sequential, device: str | torch.device | None, model_kwargs: Mapping[str, Any]) -> None:
    """Give later modules the dtype of the first, and move all to a device.

    Args:
        model: The modules.
        device: Where to; ``None`` for where ``device_map`` has put the backbone, else an accelerator if there is one.
        model_kwargs: What the caller asked of the backbone; a 16-bit model on the CPU that nobody asked for is worth a
            warning.

    Raises:
        ValueError: If ``device`` and ``device_map`` differ.
    """
    device = _chosen_device(model, device, model_kwargs)
    first = next(model[0].parameters(), None)
    if first is not None:
        for module in list(model)[1:]:
            module.to(first.dtype)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    place = torch.device(device or accelerator or "cpu")
    model.to(place)
    is_short = first is not None and first.dtype in (torch.float16, torch.bfloat16)
    if is_short and place.type == "cpu" and "dtype" not in with_plain_dtype(model_kwargs):
        logger.warning('a 16-bit model on the CPU may be slow; model_kwargs={"dtype": "float32"} makes it 32-bit')
