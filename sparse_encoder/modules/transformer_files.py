"""What the ``Transformer`` module reads: its configuration of every generation, options, backbone and tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, PretrainedModel, TransformerConfig
from sparse_encoder.backbone.dtypes import DTYPE_KEYS
from sparse_encoder.backbone.loading.load import load_pretrained
from sparse_encoder.backbone.loading.options import (
    DISK,
    NAMES,
    WITHOUT_EFFECT,
    LoadOptions,
    load_options,
)
from sparse_encoder.checkpoint import ConfigError, fetch_model_folder, read_json_object, resolve_inside
from sparse_encoder.modules.base import checked_flag, checked_integer
from sparse_encoder.modules.decoders import BIDIRECTIONAL, with_direction
from sparse_encoder.modules.features import TOKEN_EMBEDDINGS
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.tokenizer_check import check_token_count
from sparse_encoder.tokenizer_options import (
    CONFIG_FILES,
    REMOTE_CODE,
    TOKENIZER_OPTIONS,
    apply_options,
    known_options,
    lower_casing,
    read_from_peer,
    text_options,
)

logger = logging.getLogger(__name__)

TASKS: dict[str, type[PretrainedModel]] = {"feature-extraction": EncoderModel, "fill-mask": MaskedLanguageModel}
OUTPUT_NAMES = {"feature-extraction": "last_hidden_state", "fill-mask": "logits"}
"""What sentence-transformers calls the output of the backbone."""

_RENAMED = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}
_LEGACY = ("max_seq_length", "do_lower_case", *_RENAMED.values())
HUB_OPTIONS = {
    "cache_dir": "cache_folder",
    "revision": "revision",
    "token": "token",
    "local_files_only": "local_files_only",
}
"""Options of the hub among ``model_kwargs``, and what the library calls them."""

_NOT_OF_MODULES = ("config", "state_dict", "output_loading_info", "model_args")
"""Arguments of ``from_pretrained`` that have other ways here, or none."""
BACKBONE_OPTIONS = NAMES.difference(_NOT_OF_MODULES)
_SPREAD = (
    "device_map spreads the backbone over several devices or the disk, and modules move as one: give one device, or use"
    " the backbone alone, MaskedLanguageModel.from_pretrained(..., device_map=...)"
)

_CHATS = "message"
"""What sentence-transformers writes beside texts for a tokenizer that knows chats."""


def modality_config(task: str) -> dict[str, Any]:
    """Return what sentence-transformers writes about the outputs of a task."""
    return {"text": {"method": "forward", "method_output_name": OUTPUT_NAMES[task]}}


def check_outputs(task: str, given: Mapping[str, Any] | None, name: str | None) -> None:
    """Check what a caller or a file says of the outputs of a task.

    Raises:
        ValueError: If the task is unknown, or it is not what that task makes of texts.
    """
    if task not in TASKS:
        raise ValueError(f"unknown transformer_task {task!r}; choose from {sorted(TASKS)}")
    if given is not None and {key: given[key] for key in given if key != _CHATS} != modality_config(task):
        raise ValueError(f"modality_config must be {modality_config(task)} for {task!r}, got {dict(given)}")
    if name not in (None, TOKEN_EMBEDDINGS):
        raise ValueError(f"module_output_name must be {TOKEN_EMBEDDINGS!r}, got {name!r}")


def read_transformer_config(folder: Path, known: Sequence[str], *, default_task: str) -> dict[str, Any]:
    """Read the configuration of a ``Transformer``, with today's names of its keys.

    Args:
        folder: The module's folder; it may have no configuration.
        known: Today's keys.
        default_task: The task of a configuration that names none.

    Returns:
        Arguments of the constructor. Of the backbone's options in a file only the dtype and a decoder's
        direction are taken; others, and remote code, are left out with a warning.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type.
    """
    path = next((folder / name for name in CONFIG_FILES if (folder / name).exists()), None)
    if path is None:
        return {}
    config = read_json_object(resolve_inside(folder, path.name))
    for old, new in _RENAMED.items():
        if old in config:
            config.setdefault(new, config.pop(old))
    if unknown := sorted(set(config) - set(known) - set(_LEGACY)):
        raise ConfigError(f"unknown keys {unknown}; choose from {sorted([*known, *_LEGACY])}", path=path)
    for name in ("model_kwargs", "processor_kwargs", "config_kwargs", "processing_kwargs"):
        if config.get(name) is None:
            config.pop(name, None)
        elif not isinstance(config[name], dict):
            raise ConfigError(f"must be an object, got {config[name]!r:.80}", path=path, field=name)
    allowed = {
        "model_kwargs": (*DTYPE_KEYS, BIDIRECTIONAL),
        "processor_kwargs": TOKENIZER_OPTIONS,
        "config_kwargs": (),
    }
    for name, options in allowed.items():
        if name in config:
            left_out = sorted(set(config[name]) - set(options))
            if left_out:
                logger.warning("%s: %s in %s are not used", path, left_out, name)
            config[name] = {key: value for key, value in config[name].items() if key in options}
    _check_values(config, path, default_task)
    return config


def _check_values(config: dict[str, Any], path: Path, default_task: str) -> None:
    """Check the plain values of a configuration, and drop those that are null."""
    for key in [key for key, value in config.items() if value is None]:
        del config[key]
    try:
        for name in ("max_seq_length", "query_length", "document_length"):
            if name in config:
                checked_integer(name, config[name])
        for name in ("do_lower_case", "unpad_inputs"):
            if name in config:
                checked_flag(name, config[name])
        if BIDIRECTIONAL in config.get("model_kwargs", {}):
            checked_flag(BIDIRECTIONAL, config["model_kwargs"][BIDIRECTIONAL])
        named = config.get("transformer_task", default_task)
        task, processing = read_from_peer(named, config.get("processing_kwargs"))
        check_outputs(task, config.get("modality_config"), config.get("module_output_name"))
        text_options(processing)
    except (TypeError, ValueError) as reason:
        raise ConfigError(str(reason), path=path) from reason


class OpenedBackbone(NamedTuple):
    """A backbone, and where it came from."""

    model: PretrainedModel
    commit: str | None
    """The commit of its repository; None if it came from a folder."""


def open_backbone(
    name_or_path: str | Path, task: str, *, model_kwargs: Mapping[str, Any], config_kwargs: Mapping[str, Any]
) -> OpenedBackbone:
    """Load the backbone, with the head that the task needs.

    Args:
        name_or_path: Folder or repository.
        task: A key of :data:`TASKS`.
        model_kwargs: Options of the backbone and of the hub.
        config_kwargs: Values that replace those of ``config.json``; options of the hub have no place there.

    Raises:
        ValueError: If an option is unknown or in the wrong place, or the model would be spread over several devices.
    """
    opened = load_pretrained(TASKS[task], name_or_path, backbone_options(model_kwargs, config_kwargs))
    if hasattr(opened.model, "hf_device_map"):
        raise ValueError(_SPREAD)
    return OpenedBackbone(opened.model, opened.commit)


def backbone_options(model_kwargs: Mapping[str, Any], config_kwargs: Mapping[str, Any]) -> LoadOptions:
    """Judge and sort the options of a backbone, for which no file is needed.

    Args:
        model_kwargs: As for :func:`open_backbone`.
        config_kwargs: As for :func:`open_backbone`.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If an option is unknown, in the wrong place, not supported or contradicts another.
    """
    turned, config_kwargs = with_direction(model_kwargs, config_kwargs)
    given = {name: value for name, value in turned.items() if name not in (REMOTE_CODE, *_NOT_OF_MODULES)}
    options = load_options((), {}, given)
    if unknown := sorted({*options.others, *(name for name in _NOT_OF_MODULES if name in model_kwargs)}):
        raise ValueError(f"unknown model_kwargs {unknown}; choose from {sorted([*BACKBONE_OPTIONS, BIDIRECTIONAL])}")
    if wrong := sorted(set(config_kwargs) & set(HUB_OPTIONS)):
        raise ValueError(f"config_kwargs must not hold {wrong}: give them in model_kwargs")
    places = options.devices.device_map
    if isinstance(places, Mapping) and (len(set(places.values())) > 1 or DISK in places.values()) or places == DISK:
        raise ValueError(_SPREAD)
    overrides = {name: value for name, value in config_kwargs.items() if name != REMOTE_CODE}
    return replace(options, others=overrides, any_config_value=True, warn_of_short_dtypes=False)


def with_plain_dtype(model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the dtype, if any is asked for, under one name, so that those of two places can be merged."""
    options = {name: value for name, value in model_kwargs.items() if name not in DTYPE_KEYS}
    asked = next((model_kwargs[name] for name in DTYPE_KEYS if model_kwargs.get(name) is not None), None)
    return options if asked is None else {"dtype": asked, **options}


def without_idle(model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that have no effect, once they were told of."""
    return {name: value for name, value in model_kwargs.items() if name == REMOTE_CODE or name not in WITHOUT_EFFECT}


def cache_dir_of_hub(arguments: dict[str, Any]) -> None:  # of any type
    """Move ``cache_dir``, which older scripts give to a ``Transformer`` itself, to the options of the hub."""
    folder = arguments.pop("cache_dir", None)
    if folder is not None:
        arguments["model_kwargs"] = {"cache_dir": folder, **(arguments.get("model_kwargs") or {})}


def _fetch(name_or_path: str | Path, options: Mapping[str, Any]) -> Path:
    """Return the folder of a tokenizer; of its repository no weights are fetched that the backbone does not want."""
    names = {**HUB_OPTIONS, **{name: name for name in ("subfolder", "variant", "use_safetensors")}}
    given = {names[name]: value for name, value in options.items() if name in names}
    subfolder = given["subfolder"] = given.get("subfolder") or ""
    root = fetch_model_folder(name_or_path, **given)
    return resolve_inside(root, subfolder) if subfolder else root


def open_tokenizer(
    name_or_path: str | Path,
    config: TransformerConfig,
    *,
    processor_kwargs: Mapping[str, Any],
    hub_kwargs: Mapping[str, Any],
    max_seq_length: int | None,
    do_lower_case: bool,
) -> Tokenizer:
    """Load the tokenizer and set it up.

    Args:
        name_or_path: Folder or repository.
        config: Of the backbone, which limits the length of texts.
        processor_kwargs: Options of the tokenizer.
        hub_kwargs: Options of the hub among others.
        max_seq_length: Most tokens of a text; ``model_max_length`` among the options wins.
        do_lower_case: Lower-case texts, whether or not the tokenizer does.

    Raises:
        ValueError: If an option is unknown.
        TokenizerError: If its files cannot be used, or it has more tokens than the backbone has embeddings.
    """
    of_hub = {*HUB_OPTIONS, "subfolder"}
    options = known_options({name: value for name, value in processor_kwargs.items() if name not in of_hub})
    folder = _fetch(name_or_path, {**hub_kwargs, **processor_kwargs})
    tokenizer = Tokenizer.from_pretrained(folder)
    check_token_count(tokenizer.vocab_size, config.vocab_size, folder)
    apply_options(tokenizer, options, max_seq_length)
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_tokens)
    return lower_casing(tokenizer) if do_lower_case else tokenizer
