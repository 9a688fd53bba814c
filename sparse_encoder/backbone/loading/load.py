"""Loading from the name to the model in evaluation mode, in the order of the steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from sparse_encoder.backbone.adapters.bases import BaseSource, NamedBase, base_to_open, check_base
from sparse_encoder.backbone.adapters.files import has_adapter, read_adapter_config
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.dtypes import Dtypes, chosen_dtype
from sparse_encoder.backbone.families import family_of, read_config
from sparse_encoder.backbone.families.family import Family
from sparse_encoder.backbone.loading.devices import place
from sparse_encoder.backbone.loading.direction import as_asked, in_direction_of
from sparse_encoder.backbone.loading.matching import (
    Match,
    as_ours,
    check,
    match,
    report,
    settle_bias,
    settle_tie,
    settle_words,
    tell,
)
from sparse_encoder.backbone.loading.options import LoadOptions
from sparse_encoder.backbone.loading.origin import CAUSAL_KEY, Origin, find_config, judge_others, locate
from sparse_encoder.backbone.loading.placing import check_filled, fill, start_anew
from sparse_encoder.backbone.loading.sources import GivenTensors, PeekedSource, TensorSource
from sparse_encoder.backbone.weights import Names, Naming, names_of, to_our_names
from sparse_encoder.checkpoint import open_weights, read_settled

if TYPE_CHECKING:
    from sparse_encoder.backbone.pretrained import PretrainedModel

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound="PretrainedModel")


class Loaded(NamedTuple, Generic[Model]):
    """A model, and where it came from."""

    model: Model
    commit: str | None
    """The commit of its repository; None if it came from a folder."""


class _Start(NamedTuple):
    """What is known before any weights are opened."""

    names: Names
    config: TransformerConfig
    hf_config: dict[str, Any]  # Any: parsed JSON


class _Plan(NamedTuple):
    """What is known before the model is built."""

    family: Family
    names: Names
    naming: Naming
    config: TransformerConfig
    hf_config: dict[str, Any]  # Any: parsed JSON
    ties: Mapping[str, str]
    """Parameters that are others, by our names."""


def load_pretrained(kind: type[Model], name_or_path: str | Path | None, options: LoadOptions) -> Loaded[Model]:
    """Load a model.

    The model is built without memory; then each tensor is read, cast, moved and put in its place before the next one
    is read. The peak is the model and one tensor, or one file of those in pickles.

    Args:
        kind: The class of the model.
        name_or_path: A folder, a repository, or None if configuration and tensors are given. One that holds an adapter
            makes the model that the adapter names as its base, with the adapter on it.
        options: How.

    Raises:
        TypeError: If an argument is of the wrong type, or the model's constructor does not know it.
        ValueError: If arguments contradict each other or the configuration.
        FileNotFoundError: If there is no such folder, repository or configuration.
        ConfigError: If the configuration is not one of ours or has a value out of range.
        CheckpointError: If the weights are damaged or do not fit.
    """
    options = judge_others(kind, name_or_path, options)
    origin = locate(name_or_path, options)
    adapter = None if origin.folder is None or not has_adapter(origin.folder) else read_adapter_config(origin.folder)
    base, base_name, base_options = origin, name_or_path, options
    if adapter is not None and origin.folder is not None:
        found = base_to_open(origin.folder, adapter, options.base_model)
        if found is not None:
            base_name, base_options = found.name, _options_of_base(options, found)
            base = locate(base_name, base_options)
            _check_base(origin.folder, base, options)
            logger.info("%s is an adapter for %s", origin.folder, base_name)
    elif isinstance(options.base_model, (str, Path)):
        raise ValueError(f"base_model is for adapters, and {name_or_path!r} holds none; leave it out")
    if adapter is not None:
        adapter = as_asked(adapter, options)
        base_options = in_direction_of(adapter, base, base_options)
    if base.folder is None:
        model = _load(kind, base, base_options)
    else:
        model = read_settled(base.folder, lambda: _load(kind, base, base_options))
    assert model.load_report is not None  # it has just been loaded
    tell(model.load_report, what=model.architecture, path=base.folder)
    _warn_of_short(model, options)
    if base.folder is not None and (adapter is None or base is not origin):
        model.source = _source_of(base_name, base, base_options)
    if adapter is not None:
        assert origin.folder is not None  # it was found there
        model.load_adapter(origin.folder, peft_config=adapter)
    return Loaded(model.eval(), origin.commit)


def load_plainly(kind: type[Model], folder: Path, *, is_causal: bool | None = None) -> Model:
    """Load the model of a folder as a name alone says it: strictly, without options, and without an adapter beside it.

    Args:
        kind: The class of the model.
        folder: Where it is.
        is_causal: Direction of a decoder, as an adapter may say it; None for that of the folder.

    Raises:
        TypeError: If the model's constructor needs more.
        FileNotFoundError: If there is no configuration.
        ConfigError: If the configuration is not one of ours or has a value out of range.
        CheckpointError: If the weights are damaged or do not fit.
    """
    others = {} if is_causal is None else {CAUSAL_KEY: is_causal}
    options = LoadOptions(strict=True, others=others, any_config_value=True)
    return read_settled(folder, lambda: _load(kind, Origin(folder), options))


def _options_of_base(options: LoadOptions, base: NamedBase) -> LoadOptions:
    """Return how the base of an adapter is loaded: as the adapter, but by its own name."""
    hub = replace(options.hub, revision=base.revision, subfolder="", repository_only=base.is_repository)
    return replace(options, hub=hub)


def _check_base(folder: Path, base: Origin, options: LoadOptions) -> None:
    """Refuse an adapter on an adapter, unless the caller has that base and knows how it came about."""
    if base.folder is not None and not isinstance(options.base_model, Mapping):
        check_base(folder, base.folder)


def _source_of(name_or_path: str | Path | None, origin: Origin, options: LoadOptions) -> BaseSource:
    """Return where a model came from, by names that hold wherever this process goes."""
    assert origin.folder is not None  # there is nothing to name otherwise
    folder = origin.folder.absolute()
    if origin.commit is None:
        return BaseSource(str(folder), folder)
    return BaseSource(None if options.hub.subfolder else str(name_or_path), folder, origin.commit)


def _load(kind: type[Model], origin: Origin, options: LoadOptions) -> Model:
    found_config = find_config(origin, options)
    kind.judge_arguments(found_config.init_arguments)
    family = family_of(found_config.values, found_config.path)
    config = kind.own_config(read_config(found_config.values, found_config.path), family, found_config.path)
    start = _Start(names_of(family, config, kind.head_rows(family)), config, found_config.values)
    source = _source(start.names, origin, options)
    source = as_ours(source, start.names, key_mapping=options.key_mapping, path=origin.folder)
    peeked = PeekedSource(source)
    plan = _plan(kind, start, source, peeked, options, origin.folder)
    with torch.device("meta"):
        model = kind(
            plan.config,
            plan.hf_config,
            *options.model_args,
            attn_implementation=options.attn_implementation,
            **found_config.init_arguments,
        )
    wanted = model.state_dict()
    found = match(plan.naming, source, wanted, plan.ties, plan.family.zero_if_absent)
    head_is_new = _whole_head_is_new(kind, found, wanted, options)
    check(
        replace(found, missing=[]) if head_is_new else found,
        plan.naming,
        source,
        plan.names,
        options,
        what=model.architecture,
        path=origin.folder,
    )
    dtype = _dtype(options, plan, source, found_config.path)
    placement = place(model, options.devices, dtype, plan.ties)
    dtypes = Dtypes(dtype, model.config.guards_float16)
    fill(model, found, peeked, placement, dtypes, plan.ties)
    start_anew(model, found, placement, dtypes, plan.ties)
    model.tie_weights()
    model.mark_initialized()
    check_filled(model, placement)
    made = report(found, plan.naming, plan.names, plan.ties, prefix="" if kind.has_head else plan.family.base_prefix)
    model.load_report = made
    if origin.folder is not None:
        model.read_beside(origin.folder)
    placement.dispatch(model)
    return model.eval()


def _source(names: Names, origin: Origin, options: LoadOptions) -> TensorSource:
    """Open the weights, or take those that are given: by the family's names or by ours."""
    if origin.folder is not None:
        return open_weights(origin.folder, use_safetensors=options.use_safetensors, variant=options.variant)
    assert options.state_dict is not None  # or locate would have said so
    return GivenTensors(dict(_as_theirs(name, tensor, names) for name, tensor in options.state_dict.items()))


def _as_theirs(name: str, tensor: Tensor, names: Names) -> tuple[str, Tensor]:
    """Return a tensor that may have our name as the family's files have it."""
    if any(names.own.ours(each) for each in (name, names.family.base_prefix + name)):
        return name, tensor
    is_turned = names.is_transposed(name) and isinstance(tensor, Tensor) and tensor.ndim == 2
    return names.own.theirs_or_none(name) or name, tensor.t() if is_turned else tensor


def _plan(
    kind: type[Model],
    start: _Start,
    source: TensorSource,
    peeked: PeekedSource,
    options: LoadOptions,
    path: Path | None,
) -> _Plan:
    """Name the tensors, and settle what is stored twice."""
    names, config, hf_config = start
    naming = to_our_names(source.tensors, names, key_mapping=options.key_mapping, path=path)
    settle_bias(naming, peeked, tied=config.tie_word_embeddings, path=path)
    settle_words(naming, peeked, path)
    ties: Mapping[str, str] = kind.tied_targets if config.tie_word_embeddings else {}
    if settle_tie(naming, ties, peeked, path):
        return _Plan(names.family, names, naming, config, hf_config, ties)
    config, hf_config = replace(config, tie_word_embeddings=False), {**hf_config, "tie_word_embeddings": False}
    return _Plan(names.family, names, naming, config, hf_config, {})


def _whole_head_is_new(
    kind: type[PretrainedModel], found: Match, wanted: Mapping[str, Tensor], options: LoadOptions
) -> bool:
    """Return whether all that is missing are whole parts of a head that may be new."""
    missing = set(found.missing)
    if not kind.head_may_be_new or options.strict is True or any(name.startswith("backbone.") for name in missing):
        return False
    parts = {name.rpartition(".")[0] for name in missing}
    return missing == {name for name in wanted if name.rpartition(".")[0] in parts}


def _dtype(options: LoadOptions, plan: _Plan, source: TensorSource, path: Path | None) -> torch.dtype:
    stored = (info.dtype for info in source.tensors.values())
    return chosen_dtype(options.dtype, plan.hf_config, stored, in_index=source.stated_dtype, path=path)


def _warn_of_short(model: PretrainedModel, options: LoadOptions) -> None:
    """Say that a dtype nobody asked for is slow on the CPU."""
    if not options.warn_of_short_dtypes or options.dtype not in (None, "auto") or model.device.type != "cpu":
        return
    if model.dtype in (torch.float16, torch.bfloat16):
        logger.warning("%s weights on the CPU may be slow; dtype='float32' makes them 32-bit", str(model.dtype)[6:])
