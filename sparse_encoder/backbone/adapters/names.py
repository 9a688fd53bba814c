"""Which layers and parameters an adapter stands on, by their names in a model and in the family's files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from sparse_encoder.backbone.adapters.config import ALL_LINEAR, LoraConfig
from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.families.family import HEAD_WEIGHT, WORD_EMBEDDINGS
from sparse_encoder.backbone.heads import LinearHead
from sparse_encoder.checkpoint import KeyTable

if TYPE_CHECKING:
    from sparse_encoder.backbone.pretrained import PretrainedModel

Number = TypeVar("Number", int, float)
_MOST_NAMES = 20
_PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+\$?")
HEAD = HEAD_WEIGHT.rpartition(".")[0]
"""Our name of the head; one without a layer of its own is a linear layer itself."""
VOCABULARY_TABLES = frozenset({HEAD_WEIGHT, WORD_EMBEDDINGS})
COPIES = "adapter_copies"
"""Module of a model with the parameters that adapters have copies of, and the base's own."""
_OWN = frozenset({COPIES, "lora_A", "lora_B", "lora_dropout"})


def file_names(model: PretrainedModel) -> dict[str, str]:
    """Return what the family's files call each parameter of a model, by our name; adapters' own are left out.

    Args:
        model: Without a head the names have no prefix, as transformers' base models have none.
    """
    family = model.family
    table, prefix = KeyTable(family.backbone_rows(model.config) + model.head_rows(family)), family.base_prefix
    known = {}
    for ours, _ in model.named_parameters(remove_duplicate=False):
        if not is_adapters_own(ours):
            theirs = table.theirs(ours)
            known[ours] = theirs if model.has_head else theirs.removeprefix(prefix)
    return known


def is_transposed(model: PretrainedModel, ours: str) -> bool:
    """Say whether the family's files hold a parameter with rows and columns changed about; by our name."""
    rows = [row for row in model.family.backbone_rows(model.config) if row[1] in model.family.transposed]
    return KeyTable(rows).theirs_or_none(ours) is not None


def is_adapters_own(name: str) -> bool:
    """Say whether a tensor or a module is part of an adapter and not of the model below it."""
    return not _OWN.isdisjoint(name.split("."))


def linear_names(model: PretrainedModel) -> dict[str, str]:
    """Return what the family's files call each linear layer of a model, a decoder's head among them, by our name."""
    known = file_names(model)
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, LinearHead))]
    return {name: known[f"{name}.weight"].removesuffix(".weight") for name in layers if f"{name}.weight" in known}


def resolve(config: LoraConfig, model: PretrainedModel) -> tuple[LoraConfig, dict[str, str]]:
    """Find the layers that a config names.

    Args:
        config: As a caller gives it.
        model: The model.

    Returns:
        The config with names of the family's files alone, and these layers: our names to theirs.

    Raises:
        ValueError: If a name or a pattern finds no layer.
    """
    names = linear_names(model)
    config = _resolved_copies(config, file_names(model))
    config, found = _resolved_targets(config, model, names)
    if config.exclude_modules is not None:
        out = _matching(config.exclude_modules, names, "exclude_modules")
        found = {ours: theirs for ours, theirs in found.items() if ours not in out}
        config = replace(config, exclude_modules=sorted(out.values()))
    kept = copied_modules(config, names.values())
    found = {ours: theirs for ours, theirs in found.items() if theirs not in kept}
    found = {ours: theirs for ours, theirs in found.items() if in_layers(config, theirs)}
    if not found:
        raise ValueError("the adapter finds no linear layer: target_modules, less what is left out, must name some")
    config = _resolved_layers(config, found)
    ranks = _resolved_pattern(config.rank_pattern, found, "rank_pattern")
    alphas = _resolved_pattern(config.alpha_pattern, found, "alpha_pattern")
    return replace(config, rank_pattern=ranks, alpha_pattern=alphas), found


def _resolved_targets(
    config: LoraConfig, model: PretrainedModel, names: Mapping[str, str]
) -> tuple[LoraConfig, dict[str, str]]:
    """Find the layers of ``target_modules`` alone."""
    targets = config.target_modules
    if targets is None:
        targets = default_targets(model)
    if targets == ALL_LINEAR:
        inner = {ours: theirs for ours, theirs in names.items() if ours != HEAD}
        return replace(config, target_modules=shortened(inner, names)), inner
    _refuse_table(targets, model)
    found = _matching(targets, names, "target_modules")
    by_file = isinstance(targets, str) or all(
        any(ends_in(each, target) for each in names.values()) for target in targets
    )
    by_file = by_file and (not isinstance(targets, str) or any(re.fullmatch(targets, each) for each in names.values()))
    if by_file:
        return replace(config, target_modules=targets if isinstance(targets, str) else list(targets)), found
    return replace(config, target_modules=shortened(found, names)), found


def _refuse_table(targets: str | Sequence[str], model: PretrainedModel) -> None:
    """Say what to do instead where the table of an encoder's head is to have low-rank changes."""
    table = file_names(model).get(HEAD_WEIGHT, "").removesuffix(".weight")
    if not table or HEAD in linear_names(model):
        return
    for target in (targets,) if isinstance(targets, str) else targets:
        found = re.fullmatch(target, table) is not None if isinstance(targets, str) else ends_in(table, target)
        if found:
            raise ValueError(
                f"target_modules {target!r} names {table}, the table that scores the vocabulary, which has low-rank "
                f"changes in decoders only; name layers without it: modules_to_save=[{table!r}] trains all of it"
            )


def _resolved_layers(config: LoraConfig, found: Mapping[str, str]) -> LoraConfig:
    """Name the layers themselves where ``layers_pattern`` is an expression: none of a file is run."""
    patterns = config.layers_pattern or ()
    if all(is_plain(each) for each in ((patterns,) if isinstance(patterns, str) else patterns)):
        return config
    return replace(config, target_modules=sorted(found.values()), layers_to_transform=None, layers_pattern=None)


def shortened(found: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    """Return the shortest ends of names that find some layers and no others.

    Args:
        found: The layers, our names to those in files.
        names: All linear layers likewise.
    """
    for start in (r".*\.", r".*\.\d+\."):
        ends = sorted({re.sub(rf"^{start}", "", theirs) for theirs in found.values()})
        if {ours for ours, theirs in names.items() if any(ends_in(theirs, end) for end in ends)} == found.keys():
            return ends
    return sorted(found.values())


def _resolved_copies(config: LoraConfig, known: Mapping[str, str]) -> LoraConfig:
    """Spell ``modules_to_save`` as the files do."""
    modules: dict[str, None] = {}
    for module in config.modules_to_save or ():
        if any(_lies_in(_module(theirs), module) for theirs in known.values()):
            modules[module] = None
            continue
        hits = [_module(theirs) for ours, theirs in known.items() if _lies_in(_module(ours), module)]
        if not hits:
            raise ValueError(f"modules_to_save names {module!r}, and no module with parameters is called so")
        modules.update(dict.fromkeys(hits))
    return config if config.modules_to_save is None else replace(config, modules_to_save=list(modules))


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def default_targets(model: PretrainedModel) -> list[str]:
    """Name the projections to queries and values, or those that make them together with the keys."""
    attentions = {name: part for name, part in model.named_modules() if isinstance(part, Attention)}
    parts = ("qkv",) if any(part.qkv is not None for part in attentions.values()) else ("q", "v")
    known = linear_names(model)
    return shortened({ours: known[ours] for ours in (f"{name}.{part}" for name in attentions for part in parts)}, known)


def _matching(targets: str | Sequence[str], names: Mapping[str, str], field: str) -> dict[str, str]:
    """Return the layers that names or an expression find, each in the files' spelling first and then in ours."""
    found: dict[str, str] = {}
    for target in (targets,) if isinstance(targets, str) else targets:
        is_expression = isinstance(targets, str)
        for spelling in (names.values(), names.keys()):
            hits = [
                ours
                for (ours, theirs), spelt in zip(names.items(), spelling, strict=True)
                if (re.fullmatch(target, spelt) if is_expression else ends_in(spelt, target))
            ]
            if hits:
                break
        if not hits:
            known = sorted({each.rpartition(".")[2] for each in names.values()})
            raise ValueError(f"{field} {target!r} finds no linear layer; choose from {known[:_MOST_NAMES]}")
        found.update({ours: names[ours] for ours in hits})
    return {ours: names[ours] for ours in names if ours in found}


def is_named(name: str, ends: Collection[str]) -> bool:
    """Say whether a dotted name ends in one of many; as quick for many as for few if they are a set."""
    parts = name.split(".")
    return any(".".join(parts[start:]) in ends for start in range(len(parts)))


def ends_in(name: str, end: str) -> bool:
    """Say whether a dotted name is another one, or ends in it."""
    return name == end or name.endswith(f".{end}")


def in_layers(config: LoraConfig, theirs: str) -> bool:
    """Say whether a layer's number is one of ``layers_to_transform``."""
    if config.layers_to_transform is None:
        return True
    layers = config.layers_to_transform
    wanted = (layers,) if isinstance(layers, int) else tuple(layers)
    if not wanted:
        return True
    patterns = config.layers_pattern or (r"[^.]*",)
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        start = r".*?\." if not config.layers_pattern else r"(?:^|.*?\.)"
        match = re.match(rf"{start}(?:{pattern})\.(?P<number_of_the_layer>\d+)\.", theirs)
        if match:
            return int(match.group("number_of_the_layer")) in wanted
    return False


def copied_modules(config: LoraConfig, names: Iterable[str]) -> set[str]:
    """Return those of some modules that ``modules_to_save`` names, or that lie in one that it names."""
    wanted = config.modules_to_save or ()
    return {name for name in names if any(_lies_in(name, module) for module in wanted)}


def _lies_in(name: str, module: str) -> bool:
    return f".{module}." in f".{name}."


def copied_parameters(config: LoraConfig, model: PretrainedModel, layers: Iterable[str]) -> list[str]:
    """Find the parameters that an adapter has copies of.

    Args:
        config: Says which, in the files' spelling.
        model: The model.
        layers: Our names of the adapter's linear layers.

    Raises:
        ValueError: If a parameter is tied to another, but for words and head: of those one may be copied alone.
    """
    known = file_names(model)
    copied: dict[str, None] = {}
    for module in config.modules_to_save or ():
        copied.update(dict.fromkeys(ours for ours, theirs in known.items() if _lies_in(_module(theirs), module)))
    of_layers = {f"{layer}.bias" for layer in layers}
    for ours in known:
        wanted = config.bias == "all" or (config.bias == "lora_only" and ours in of_layers)
        if wanted and ours.rpartition(".")[2] == "bias":
            copied[ours] = None
    if both := sorted(tied_parameters(model) & copied.keys() - VOCABULARY_TABLES):
        raise ValueError(f"an adapter cannot have copies of {both}, which are tied; name modules without them")
    return list(copied)


def tied_parameters(model: nn.Module) -> set[str]:
    """Return the names of parameters that have several."""
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not is_adapters_own(name):
            places.setdefault(id(parameter), []).append(name)
    return {name for names in places.values() if len(names) > 1 for name in names}


def pattern_value(patterns: Mapping[str, Number], theirs: str, default: Number) -> Number:
    """Return the value of the first expression that a layer's name ends in.

    Args:
        patterns: Values by regular expressions.
        theirs: The layer's name in the family's files.
        default: The value if none does.
    """
    return next((value for key, value in patterns.items() if _end(key).match(theirs)), default)


@lru_cache(maxsize=4096)
def _end(expression: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({expression})$")


def _resolved_pattern(patterns: Mapping[str, Number], found: Mapping[str, str], field: str) -> dict[str, Number]:
    """Spell patterns as the files do, and expressions as the names they find: no expression of a file is run."""
    resolved: dict[str, Number] = {}
    for key, value in patterns.items():
        hits = [theirs for theirs in found.values() if _end(key).match(theirs)]
        if hits and is_plain(key):
            resolved.setdefault(key, value)
            continue
        hits = hits or [theirs for ours, theirs in found.items() if _end(key).match(ours)]
        if not hits:
            raise ValueError(f"{field} {key!r} finds none of the adapter's layers: {sorted(found.values())[:5]}, ...")
        for theirs in hits:
            resolved.setdefault(theirs, value)  # the first that finds a layer holds
    return resolved


def is_plain(pattern: str) -> bool:
    """Say whether an expression is but a name, or the end of one."""
    return _PLAIN.fullmatch(pattern) is not None
