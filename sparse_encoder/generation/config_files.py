"""A generation config as a file, and as a part of the configuration of older models.

Knows names and files; what a value may be is said elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from sparse_encoder.backbone.loading.options import HubOptions
from sparse_encoder.checkpoint import fetch_model_folder, read_json_object, resolve_inside, write_json
from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.config_fields import (
    ARGUMENTS_OF_GENERATE,
    FIELDS,
    IDLE_CACHES,
    IDLE_IN_FILES,
    NO_TOKEN,
    NOT_OFFERED,
    FieldError,
    check_name,
    check_not_offered,
    checked,
)

GENERATION_CONFIG_NAME = "generation_config.json"
VERSION_KEY = "sparse_encoder_version"
_ABOUT_THE_FILE = (VERSION_KEY, "transformers_version", "_commit_hash", "_from_model_config")
_MAY_BE_NONE = ("eos_token_id", "pad_token_id")
_DECODERS = ("decoder", "generator", "text_config")
"""Parts of a model's configuration that are about its decoder."""

Values = Mapping[str, Any]  # Any: JSON


class SortedValues(NamedTuple):
    """What a file says."""

    fields: dict[str, Any]  # Any: FIELDS has the type of each
    others: dict[str, Any]  # Any: JSON
    """What nobody here reads, or does nothing; it is written again."""


def sort_values(values: Values) -> SortedValues:
    """Check every value of a file and tell fields from what is not known, with a warning if that looks like a slip.

    A padding of -1, which no text has, stands for none, and so does it among several ends of texts. Alone it stays
    the end of texts that takes a model's ends away.

    Raises:
        FieldError: If a field cannot hold its value, one that is not offered would do something, or a name is one of
            the arguments of `generate`.
    """
    fields: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in values.items():
        if name == "cache_implementation" and isinstance(value, str) and value in IDLE_CACHES:
            others[name] = value
        elif name in FIELDS:
            fields[name] = checked(name, _without_no_token(name, value) if name in _MAY_BE_NONE else value)
        elif name in IDLE_IN_FILES:
            others |= {} if value is None or value in NOT_OFFERED[name] else {name: value}
        elif name in NOT_OFFERED:
            check_not_offered(name, value)
        elif name in ARGUMENTS_OF_GENERATE:
            check_name(name)
        elif name not in _ABOUT_THE_FILE:
            others[name] = value
            _warn_of_slip(name)
    return SortedValues(fields, others)


def _without_no_token(name: str, value: object) -> object:
    """Return ends of texts, or the padding, without -1; of ends -1 if nothing else is left, of the padding None."""
    ids = value if isinstance(value, list | tuple) else [value]
    kept = [each for each in ids if type(each) is not int or each != NO_TOKEN]
    if len(kept) == len(ids):
        return value
    return kept or (NO_TOKEN if name == "eos_token_id" else None)


def _warn_of_slip(name: str) -> None:
    """Warn of a name that is nearly a field's; ids of tokens have many names, and are passed over."""
    near = [] if name.endswith(("_id", "_ids")) else get_close_matches(name, FIELDS, n=1, cutoff=0.8)
    if near:
        warn(f"{name!r} is no field of a generation config and does nothing: did you mean {near[0]!r}?")


def values_of_model(values: Values) -> dict[str, Any]:  # Any: JSON
    """Return what a model's ``config.json`` says about generation; None is left out, and an end of -1.

    Args:
        values: The file's content. What is not there is looked for in its part about the decoder.
    """
    parts = [values, *(part for part in map(values.get, _DECODERS) if isinstance(part, Mapping))][:2]
    names = (*FIELDS, *NOT_OFFERED)
    found = {name: part[name] for part in reversed(parts) for name in names if part.get(name) is not None}
    if found.get("eos_token_id") in (NO_TOKEN, [NO_TOKEN]):  # a model has no other ends that it could take away
        del found["eos_token_id"]
    if values.get("force_bos_token_to_be_generated") is True and found.get("bos_token_id") is not None:
        found["forced_bos_token_id"] = found["bos_token_id"]
    return found


def read_file(folder: Path, name: str) -> dict[str, Any]:  # Any: JSON
    """Read a file that lies in a folder; its values are not checked."""
    return read_json_object(resolve_inside(folder, name))


def fetch_folder(name_or_path: str | os.PathLike[str], name: str, hub: HubOptions) -> Path:
    """Return the folder that a file is in; of a repository on the hub nothing but this file is fetched."""
    root = fetch_model_folder(
        name_or_path,
        cache_folder=hub.cache_dir,
        revision=hub.revision,
        token=hub.token,
        local_files_only=hub.local_files_only,
        force_download=hub.force_download,
        subfolder=hub.subfolder,
        only_file=name,
    )
    return resolve_inside(root, hub.subfolder) if hub.subfolder else root


def write_file(folder: str | os.PathLike[str], name: str, values: Values) -> Path:
    """Write values as a file, whole or not at all.

    Args:
        folder: Made if it is not there.
        name: Of the file.
        values: As :func:`values_for_file` returns them.

    Returns:
        The file.

    Raises:
        NotADirectoryError: If the folder is a file.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"{place} is to be a folder and is a file")
    place.mkdir(parents=True, exist_ok=True)
    path = resolve_inside(place, name)
    write_json(path, values, sort_keys=True)
    return path


def values_for_file(values: Values) -> dict[str, Any]:  # Any: JSON
    """Return values as a file has them, with the version that writes them.

    Args:
        values: Fields that are set, and what the file had besides.

    Raises:
        FieldError: If JSON cannot hold a value.
    """
    from sparse_encoder import __version__

    return {**_plain(values), VERSION_KEY: __version__}


def json_text(values: Values) -> str:
    """Return values as the text of a file."""
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(values: Values) -> dict[str, Any]:  # Any: JSON
    """Turn what JSON does not have into what it has."""
    plain = dict(values)
    bias = plain.get("sequence_bias")
    if bias is not None:
        if not all(map(isfinite, bias.values())):
            raise FieldError("sequence_bias", "must be finite to be saved; use bad_words_ids for what is banned")
        plain["sequence_bias"] = [[list(tokens), value] for tokens, value in bias.items()]
    return plain
