"""``config_sentence_transformers.json``: what a model as a whole remembers, apart from its modules.

It also checks what the author of a model asks of the machine. It knows nothing of modules.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from sparse_encoder import __version__
from sparse_encoder.checkpoint import ConfigError, read_json_object, resolve_inside, write_json
from sparse_encoder.similarity_names import SimilarityFunction

logger = logging.getLogger(__name__)

SETTINGS_FILE = "config_sentence_transformers.json"
MODEL_TYPE = "SparseEncoder"
DENSE_TYPE = "SentenceTransformer"

NEWEST_KNOWN = {"sentence_transformers": "6.2", "sparse_encoder": __version__}
"""The newest writers whose folders are known here; those of a newer one are read with a warning."""

REPLACED = frozenset({"sentence-transformers", "transformers"})
"""Packages that a model may ask for and that this library stands in for: they need not be there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """What a saved model remembers."""

    model_type: str = MODEL_TYPE
    """The class that wrote it; ``SentenceTransformer`` when the file does not say."""
    prompts: Mapping[str, str | None] = field(default_factory=dict)
    """Prompts by name."""
    default_prompt_name: str | None = None
    """The prompt of calls that name none."""
    similarity_fn_name: str | None = None
    """How embeddings are compared; ``None`` as long as nobody asked."""
    max_active_dims: int | None = None
    """Most entries of an embedding, if the model limits them."""


def read_settings(folder: Path) -> ModelSettings:
    """Read the settings of a saved model, and check that the machine meets its requirements.

    Args:
        folder: The model's folder.

    Returns:
        The settings; those of a dense model when there is no file.

    Raises:
        ConfigError: If a value has the wrong type or is not known.
        ImportError: If a required package is missing or has the wrong version.
    """
    path = resolve_inside(folder, SETTINGS_FILE)
    if not path.exists():
        return ModelSettings(model_type=DENSE_TYPE)
    values = read_json_object(path)
    check_requirements(_value(values, "requirements", dict, path) or {})
    _warn_of_newer_writer(_value(values, "__version__", dict, path) or {}, path)
    prompts = _value(values, "prompts", dict, path) or {}
    if not all(prompt is None or isinstance(prompt, str) for prompt in prompts.values()):
        raise ConfigError(f"prompts must be strings, got {prompts}", path=path, field="prompts")
    default, names = _value(values, "default_prompt_name", str, path), sorted({"query", "document", *prompts})
    if default is not None and default not in names:
        raise ConfigError(f"must be one of {names}, got {default!r:.100}", path=path, field="default_prompt_name")
    similarity = _value(values, "similarity_fn_name", str, path)
    if similarity is not None and similarity not in SimilarityFunction.possible_values():
        hint = f"Choose from {SimilarityFunction.possible_values()}"
        raise ConfigError(f"unknown similarity {similarity!r}", path=path, field="similarity_fn_name", hint=hint)
    max_active_dims = _value(values, "max_active_dims", int, path)
    if max_active_dims is not None and max_active_dims <= 0:
        raise ConfigError(f"must be positive, got {max_active_dims}", path=path, field="max_active_dims")
    return ModelSettings(
        model_type=_value(values, "model_type", str, path) or DENSE_TYPE,
        prompts=prompts,
        default_prompt_name=default,
        similarity_fn_name=similarity,
        max_active_dims=max_active_dims,
    )


def write_settings(folder: Path, settings: ModelSettings) -> None:
    """Write the settings of a model."""
    import torch

    versions = {"pytorch": str(torch.__version__), "sparse_encoder": __version__}
    write_json(folder / SETTINGS_FILE, {"__version__": versions, **settings_values(settings)}, sort_keys=True)


def rewrite_settings(folder: Path, settings: ModelSettings) -> None:
    """Write settings in the place of those that a folder has; who wrote it, its type and what it requires stay."""
    values = read_json_object(folder / SETTINGS_FILE)
    kind = values.get("model_type") or DENSE_TYPE
    values.pop("max_active_dims", None)  # there is no entry where it is unset
    write_json(folder / SETTINGS_FILE, {**values, **settings_values(settings), "model_type": kind}, sort_keys=True)


def settings_values(settings: ModelSettings) -> dict[str, Any]:
    """Return the entries of the file, Any: each of its own type; ``max_active_dims`` has none where it is unset."""
    values: dict[str, Any] = {
        "default_prompt_name": settings.default_prompt_name,
        "model_type": settings.model_type,
        "prompts": dict(settings.prompts),
        "similarity_fn_name": settings.similarity_fn_name,
    }
    if settings.max_active_dims is not None:
        values["max_active_dims"] = settings.max_active_dims
    return values


def check_requirements(requirements: Mapping[str, object]) -> None:
    """Check the packages that the author of a model asks for.

    Args:
        requirements: Version specifiers by package, or ``{"specifier": ..., "reason": ...}``. ``pytorch`` means
            ``torch`` and ``python`` the interpreter. sentence-transformers and transformers are not looked for: this
            library stands in for them.

    Raises:
        ImportError: If a package is missing or its version does not fit; names the reason, if one is given.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    for package, wanted in requirements.items():
        reason = wanted.get("reason") if isinstance(wanted, Mapping) else None
        specifier = wanted.get("specifier") if isinstance(wanted, Mapping) else wanted
        name = "torch" if package == "pytorch" else package
        try:
            requirement = Requirement(f"{name} {specifier if isinstance(specifier, str) else '?'}")
        except InvalidRequirement:
            logger.warning("the model's requirement %r: %r cannot be read, so it is not checked", package, wanted)
            continue
        if package.replace("_", "-").lower() in REPLACED:
            continue
        found = _installed(name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            because = f" ({reason})" if reason else ""
            raise ImportError(
                f"this model requires {package}{specifier}{because}, and {found or 'none'} is installed. "
                f"Try `pip install '{name}{specifier}'`"
            )


def _installed(name: str) -> str | None:
    """Return the version of a package, ``None`` if it is not there."""
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _warn_of_newer_writer(versions: Mapping[str, object], path: Path) -> None:
    """Warn when a folder was written by something newer than what is known here."""
    from packaging.version import InvalidVersion, Version

    for writer, known in NEWEST_KNOWN.items():
        try:
            newer = writer in versions and Version(str(versions[writer])).release[:2] > Version(known).release[:2]
        except InvalidVersion:
            newer = True
        if newer:
            logger.warning("%s was written by %s %s; %s is known here", path, writer, versions[writer], known)


def _value(values: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:  # noqa: ANN401 - of `kind`, or None
    """Return a value of one type, or ``None`` when it is absent or null."""
    value = values.get(name)
    if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"must be {kind.__name__} or null, got {value!r}", path=path, field=name)
