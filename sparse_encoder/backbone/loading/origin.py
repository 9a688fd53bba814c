"""Which folder a model is read from, and which configuration it has. Reads no weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sparse_encoder.backbone.families import family_of, read_config
from sparse_encoder.backbone.families.reader import DANGEROUS
from sparse_encoder.backbone.label_maps import label_maps
from sparse_encoder.backbone.loading.options import LoadOptions
from sparse_encoder.checkpoint import fetch_model_folder, read_json_object, resolve_inside

CONFIG_NAME = "config.json"
_OF_EVERY_FAMILY = (
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "pruned_heads",
    "tie_word_embeddings",
    "torch_dtype",
)
"""Keys that configurations of transformers have whatever their family."""
_OF_SOME_FAMILY = (
    "attention_head_size",
    "conv_act",
    "conv_groups",
    "conv_kernel_size",
    "embedding_size",
    "global_attn_every_n_layers",
    "global_rope_theta",
    "head_dim",
    "is_causal",
    "layer_types",
    "local_attention",
    "local_rope_theta",
    "max_relative_positions",
    "max_window_layers",
    "n_inner",
    "pos_att_type",
    "position_biased_input",
    "position_buckets",
    "position_embedding_type",
    "relative_attention",
    "relative_attention_num_buckets",
    "rope_parameters",
    "rope_scaling",
    "scale_attn_weights",
    "share_att_key",
    "sliding_window",
    "use_cache",
    "use_sliding_window",
)
"""Keys that a family may read though its table of one key for one field does not have them."""
CAUSAL_KEY = "is_causal"
"""Key of decoders; false makes an encoder of one."""
_OF_CALLS = ("output_attentions", "output_hidden_states", "return_dict", "use_return_dict", "torchscript")
"""Keys that files may have and that change nothing here, as the outputs of a model are what its forward returns."""


class Origin(NamedTuple):
    """Where a model comes from."""

    folder: Path | None
    """None for a model whose tensors are given."""
    commit: str | None = None
    """The one commit all files are of; None for a folder that was there."""


def locate(name_or_path: str | Path | None, options: LoadOptions) -> Origin:
    """Find the model's folder; it is downloaded first if it is on the hub.

    Args:
        name_or_path: A folder, a repository, or None if configuration and tensors are given.
        options: Where to look and what is given.

    Raises:
        TypeError: If it is no name.
        ValueError: If tensors are given besides a name, or neither.
        FileNotFoundError: If there is no such folder or repository.
        NotADirectoryError: If it is a file.
        LoadError: If the files cannot be had.
    """
    if name_or_path is None:
        if options.config is None or options.state_dict is None:
            raise ValueError("without a name, from_pretrained needs both config and state_dict")
        return Origin(None)
    if options.state_dict is not None:
        raise ValueError("state_dict takes the place of files: give None for the name, and the config")
    if not isinstance(name_or_path, (str, Path)):
        raise TypeError(f"the name of a model must be a text or a path, got {type(name_or_path).__name__}")
    root = _fetch(name_or_path, options)
    is_folder = not options.hub.repository_only and Path(name_or_path).expanduser().is_dir()
    commit = None if is_folder else root.name
    if not options.hub.subfolder:
        return Origin(root, commit)
    folder = resolve_inside(root, options.hub.subfolder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{str(name_or_path)!r} has no folder {options.hub.subfolder!r}")
    return Origin(folder, commit)


def judge_others(kind: type[nn.Module], name_or_path: str | Path | None, options: LoadOptions) -> LoadOptions:
    """Check the arguments that mean something only to a configuration or a constructor before weights are fetched.

    Args:
        kind: The class of the model.
        name_or_path: Of the model; nothing is done for a folder, whose weights are there already.
        options: With the arguments.

    Returns:
        The options, with the commit whose configuration has been read for the revision.

    Raises:
        TypeError: If neither knows one.
        LoadError: If the configuration cannot be had or used.
    """
    if not options.others or not isinstance(name_or_path, (str, Path)) or Path(name_or_path).expanduser().is_dir():
        return options
    root = _fetch(name_or_path, options, descriptions_only=True)
    pinned = replace(options, hub=replace(options.hub, revision=root.name))
    folder = resolve_inside(root, options.hub.subfolder) if options.hub.subfolder else root
    if options.config is None and not (folder / CONFIG_NAME).exists():
        return pinned  # an adapter's, whose base has it
    found = find_config(Origin(folder, root.name), options)
    read_config(found.values, found.path)
    parameters = inspect.signature(kind).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    if unknown := [] if takes_all else sorted(set(found.init_arguments) - set(parameters)):
        raise TypeError(f"{kind.__name__} has no arguments {unknown}, and they are no keys of its configuration")
    return pinned


def _fetch(name_or_path: str | Path, options: LoadOptions, *, descriptions_only: bool = False) -> Path:
    hub = options.hub
    return fetch_model_folder(
        name_or_path,
        cache_folder=hub.cache_dir,
        revision=hub.revision,
        token=hub.token,
        local_files_only=hub.local_files_only,
        force_download=hub.force_download,
        subfolder=hub.subfolder,
        variant=options.variant,
        use_safetensors=options.use_safetensors,
        descriptions_only=descriptions_only,
        repository_only=hub.repository_only,
    )


class FoundConfig(NamedTuple):
    """A configuration, and what is not of it."""

    values: dict[str, Any]  # Any: parsed JSON
    path: Path | None
    """Where it was read, for errors."""
    init_arguments: dict[str, Any]  # Any: of a subclass's constructor
    """Arguments of the model's constructor."""


def find_config(origin: Origin, options: LoadOptions) -> FoundConfig:
    """Read the configuration, or take the one that is given.

    With a given mapping, all other arguments belong to the model's constructor. Otherwise those that are keys of the
    family's configurations replace its values.

    Args:
        origin: Where the model comes from.
        options: The given configuration and the other arguments.

    Raises:
        TypeError: If the configuration is neither a mapping nor a path.
        FileNotFoundError: If there is none.
        ValueError: If an argument is no key of the configuration and can be nothing else.
        ConfigError: If it is no strict JSON object, or of no family of ours.
    """
    given = options.config
    if isinstance(given, Mapping):
        return FoundConfig(deepcopy(dict(given)), None, dict(options.others))
    if given is None:
        assert origin.folder is not None  # or it would have been asked for
        path = resolve_inside(origin.folder, CONFIG_NAME)
    elif isinstance(given, (str, Path)):
        path = Path(given).expanduser()
        path = resolve_inside(path, CONFIG_NAME) if path.is_dir() else path
        if not path.exists():
            raise FileNotFoundError(
                f"config must be a file or folder on this machine, and there is no {str(given)!r}; the config of a "
                "repository is that of EncoderModel.from_pretrained(repository).hf_config"
            )
    else:
        raise TypeError(
            f"config must be the content of a config.json, as model.hf_config, or its path, got {type(given).__name__}"
        )
    values = read_json_object(path)
    family = family_of(values, path)
    known = {*_OF_EVERY_FAMILY, *_OF_SOME_FAMILY, *family.config_keys.values(), *values}
    known -= set() if family.is_decoder else {CAUSAL_KEY}
    known -= {*DANGEROUS, *_OF_CALLS, "model_type"}
    _check_keys(options, known, family.model_type)
    replaced = {name: value for name, value in options.others.items() if options.any_config_value or name in known}
    rest = {name: value for name, value in options.others.items() if name not in replaced}
    return FoundConfig({**values, **_labels(replaced)}, path, rest)


def _check_keys(options: LoadOptions, known: set[str], family: str) -> None:
    """Refuse values that no reader of configurations would look at."""
    if useless := sorted(set(_OF_CALLS) & set(options.others)):
        raise ValueError(f"{useless[0]} has no effect on models of this library, whose outputs are fixed; leave it out")
    unknown = sorted(set(options.others) - known) if options.any_config_value else []
    if CAUSAL_KEY in unknown:
        raise ValueError(
            f"{CAUSAL_KEY} and bidirectional are for decoders: in a {family!r} each token sees all others anyway"
        )
    if unknown:
        near = get_close_matches(unknown[0], sorted(known), n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; it takes {sorted(known)}"
        raise ValueError(f"a configuration of {family!r} has no key {unknown[0]!r}{hint}")


def _labels(replaced: Mapping[str, Any]) -> dict[str, Any]:  # Any: parsed JSON
    """Bring what is said of labels into the form of files: names by numbers, and the reverse."""
    values = dict(replaced)
    number, names, numbers = values.pop("num_labels", None), values.pop("id2label", None), values.pop("label2id", None)
    if number is None and names is None and numbers is None:
        return values
    id2label, label2id = label_maps(names, numbers, num_labels=number)
    return {"id2label": {str(key): name for key, name in id2label.items()}, "label2id": label2id, **values}
