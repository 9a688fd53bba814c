"""Tensors of an adapter's file, put where they belong in a model. Knows no folders."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparse_encoder.backbone.adapters.config import ALL_LINEAR, LoraConfig
from sparse_encoder.backbone.adapters.expressions import BoundedExpression, bounded
from sparse_encoder.backbone.adapters.names import (
    HEAD,
    VOCABULARY_TABLES,
    copied_modules,
    file_names,
    in_layers,
    is_named,
    is_plain,
    is_transposed,
    linear_names,
    pattern_value,
)
from sparse_encoder.backbone.families.family import HEAD_BIAS
from sparse_encoder.checkpoint import CheckpointError

if TYPE_CHECKING:
    from sparse_encoder.backbone.pretrained import PretrainedModel

logger = logging.getLogger(__name__)

LORA_NAME = re.compile(r"(.+)\.(lora_[AB])\.weight")
_BASE = ".base_layer."
BASE_BIAS = f"{_BASE}bias"
NAMED_OTHERWISE = frozenset({"gte", "new", "nomic_bert"})
"""Kinds of models whose modules have other names in transformers than their weights have in files."""
_OTHERWISE = re.compile(r"(?:\w+\.)?layers\.\d+\.")
_HEAD = "head."
_MOST_NAMES = 10
_NUMBER = re.compile(r"\.\d+\.")


def shown(names: Iterable[str]) -> str:
    """Return the first names of many, for a message."""
    names = list(names)
    return ", ".join(names[:_MOST_NAMES]) + (" and others" if len(names) > _MOST_NAMES else "")


@dataclass(slots=True)
class Sorting:
    """Tensors of a file, put where they belong."""

    model: PretrainedModel
    linear: dict[str, str] = field(init=False)
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    of_no_head: list[str] = field(default_factory=list)
    _modules: dict[str, str] = field(init=False)
    _parameters: dict[str, str] = field(init=False)
    _ignored: re.Pattern[str] = field(init=False)
    _elsewhere: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Learn the model's names."""
        self.linear = linear_names(self.model)
        self._modules = {theirs: ours for ours, theirs in self.linear.items()}
        self._parameters = {theirs: ours for ours, theirs in file_names(self.model).items()}
        self._ignored = re.compile("|".join(self.model.family.ignored) or r"(?!)")
        family = self.model.family
        rows = () if self.model.has_head else (*(theirs for theirs, _ in family.head_rows), family.decoder_bias_copy)
        self._elsewhere = frozenset(each for each in rows if each is not None)

    def put(self, name: str, tensor: Tensor) -> None:
        """Find the place of one tensor."""
        lora = LORA_NAME.fullmatch(name)
        if lora is not None:
            ours = self._find(self._modules, lora.group(1))
            if ours is not None:
                self.parts.setdefault(ours, {})[lora.group(2)] = tensor
            else:
                self._lay_aside(name, f"{lora.group(1)}.weight")
            return
        is_base = name.endswith((BASE_BIAS, f"{_BASE}weight"))
        plain = name.replace(_BASE, ".") if is_base else name
        copy_of_bias = self.model.family.decoder_bias_copy
        if plain == copy_of_bias and copy_of_bias not in self._parameters:
            plain = self._parameters_name_of_bias() or plain
        ours = self._find(self._parameters, plain)
        if ours is not None and is_transposed(self.model, ours) and tensor.ndim == 2:
            tensor = tensor.t().contiguous()
        same = ours is None or ours not in self.copies or self.copies[ours].equal(tensor)
        if ours is not None and same:
            self.copies[ours] = tensor
        elif ours is not None:
            self.unexpected.append(name)
        else:
            self._lay_aside(name, plain)

    def _lay_aside(self, name: str, parameter: str) -> None:
        """Sort what has no place: a head's, what models of this family do not use, and what is wrong."""
        if parameter in self._elsewhere:
            self.of_no_head.append(name)
        elif not self._is_ignored(parameter):
            self.unexpected.append(name)

    def leave_head_out(self) -> None:
        """Tell in the log what belongs to a head that is not here."""
        if self.of_no_head:
            logger.warning(
                "%s has no head: %d tensors of the adapter are left aside, %s",
                self.model.architecture,
                len(self.of_no_head),
                shown(self.of_no_head),
            )

    def may_have(self, ours: str) -> bool:
        """Say whether an adapter may have been made for a layer or parameter; one that changes no head, for no head."""
        return not ours.startswith(_HEAD) or any(each.startswith(_HEAD) for each in (*self.parts, *self.copies))

    def leave_tables_out(self, copied: Collection[str]) -> list[str]:
        """Forget the base's own tables of the vocabulary, which PEFT writes beside changes of them.

        Args:
            copied: What the adapter has copies of.

        Returns:
            Those that are not the base's, which would be lost.
        """
        others = []
        for ours in VOCABULARY_TABLES & self.copies.keys() - set(copied):
            tensor, own = self.copies.pop(ours), self.model.get_parameter(ours).detach()
            if own.shape != tensor.shape or not torch.equal(own.to(tensor.device, tensor.dtype), tensor):
                others.append(ours)
        return sorted(others)

    def _parameters_name_of_bias(self) -> str:
        return next((theirs for theirs, ours in self._parameters.items() if ours == HEAD_BIAS), "")

    def _find(self, places: Mapping[str, str], theirs: str) -> str | None:
        """Return our name of one of theirs, with or without the prefix of the backbone."""
        return next((places[each] for each in self.spellings(theirs) if each in places), None)

    def spellings(self, theirs: str) -> tuple[str, ...]:
        """Return a name as it is, with and without the prefix of the backbone."""
        prefix = self.model.family.base_prefix
        return theirs, prefix + theirs, theirs.removeprefix(prefix)

    def _is_ignored(self, theirs: str) -> bool:
        prefix = self.model.family.base_prefix
        return any(self._ignored.fullmatch(each) for each in (theirs, prefix + theirs))


def misplaced_layers(config: LoraConfig, sorting: Sorting) -> tuple[list[str], list[str]]:
    """Hold the layers of a file to those that its config names.

    What an expression finds is known if it can be matched in bounded time. Of any other it is asked that what it finds
    in one layer of a stack it finds in all, so that half a file is no whole adapter.

    Args:
        config: Of the adapter.
        sorting: Its tensors.

    Returns:
        What is missing, and the layers that should not be there, by the files' names.
    """
    linear, stored = sorting.linear, sorting.parts.keys()
    targets, excluded = _Choice(config.target_modules), _Choice(config.exclude_modules)
    spellings = {ours: sorting.spellings(theirs) for ours, theirs in linear.items()}
    kept = copied_modules(config, linear.values())
    candidates = {
        ours
        for ours in linear
        if linear[ours] not in kept
        and not (config.target_modules == ALL_LINEAR and ours == HEAD)
        and in_layers(config, linear[ours])
        and sorting.may_have(ours)
    }
    wanted = {ours for ours in candidates if targets.has(spellings[ours]) and not excluded.may_have(spellings[ours])}
    allowed = {ours for ours in candidates if targets.may_have(spellings[ours]) and not excluded.has(spellings[ours])}
    if targets.is_unknown or excluded.is_unknown:
        stacks = {_NUMBER.sub(".*.", linear[ours]) for ours in stored}
        wanted |= {ours for ours in allowed if _NUMBER.sub(".*.", linear[ours]) in stacks}
    missing = sorted(linear[ours] for ours in wanted - stored)
    for ours, parts in sorting.parts.items():
        missing += [f"{linear[ours]}.{part}" for part in ("lora_A", "lora_B") if part not in parts]
    return missing, sorted(linear[ours] for ours in stored - allowed)


class _Choice:
    """Layers that a field of a config names: by a list, by an expression of bounded time, or by any other one."""

    def __init__(self, value: str | Iterable[str] | None) -> None:
        self._all = value == ALL_LINEAR
        self._expression: BoundedExpression | None = bounded(value) if isinstance(value, str) else None
        self._ends = frozenset(() if isinstance(value, str) else value or ())
        self.is_unknown = isinstance(value, str) and not self._all and self._expression is None

    def has(self, spellings: Iterable[str]) -> bool:
        """Say whether a layer is surely one."""
        if self._all:
            return True
        found = is_named if self._expression is None else lambda name, _: self._matches(name)
        return any(found(each, self._ends) for each in spellings)

    def may_have(self, spellings: Iterable[str]) -> bool:
        """Say whether a layer is perhaps one."""
        return self.is_unknown or self.has(spellings)

    def _matches(self, name: str) -> bool:
        return self._expression is not None and self._expression.matches(name)


def with_plain_patterns(
    config: LoraConfig, sorting: Sorting, layers: Mapping[str, str], *, path: Path | None
) -> LoraConfig:
    """Write expressions for ranks and alphas out: ranks as the tensors have them, alphas by whole names.

    Args:
        config: Of the adapter.
        sorting: Its tensors.
        layers: Our names to the files'.
        path: Of the file, for errors.

    Raises:
        CheckpointError: If an expression for alphas cannot be matched in bounded time, or a tensor has a rank that the
            config does not know.
    """
    if not all(is_plain(each) for each in config.rank_pattern):
        ranks = {theirs: sorting.parts[ours]["lora_A"].shape[0] for ours, theirs in layers.items()}
        if unknown := set(ranks.values()) - {config.r, *config.rank_pattern.values()}:
            raise CheckpointError(f"tensors have ranks {sorted(unknown)}, which r and rank_pattern do not", path=path)
        config = replace(config, rank_pattern={theirs: rank for theirs, rank in ranks.items() if rank != config.r})
    if all(is_plain(each) for each in config.alpha_pattern):
        return config
    alphas: dict[str, float] = {}
    for expression, alpha in config.alpha_pattern.items():
        known = bounded(expression)
        if known is None:
            raise CheckpointError(f"alpha_pattern {expression!r:.80} is no expression of bounded time", path=path)
        for theirs in layers.values():
            if known.matches_end(theirs):
                alphas.setdefault(theirs, alpha)
    return replace(config, alpha_pattern=alphas)


def wrong_shapes(
    config: LoraConfig, sorting: Sorting, layers: Mapping[str, str], *, model: PretrainedModel
) -> list[str]:
    """Say which tensors do not have the shape that the config and the model want."""
    wrong = []
    shapes: dict[str, tuple[tuple[int, ...], Tensor]] = {}
    for ours, theirs in layers.items():
        out_features, in_features = model.get_submodule(ours).weight.shape  # type: ignore[misc]
        rank = pattern_value(config.rank_pattern, theirs, config.r)
        shapes[f"{theirs}.lora_A"] = ((rank, in_features), sorting.parts[ours]["lora_A"])
        shapes[f"{theirs}.lora_B"] = ((out_features, rank), sorting.parts[ours]["lora_B"])
    for ours, tensor in sorting.copies.items():
        shapes[ours] = (tuple(model.get_parameter(ours).shape), tensor)
    for name, (wanted, tensor) in shapes.items():
        if tuple(tensor.shape) != wanted or not tensor.is_floating_point():
            wrong.append(f"{name} is {tensor.dtype} {tuple(tensor.shape)} and must be floating {wanted}")
    return wrong


def unlike_files(model: PretrainedModel, names: Iterable[str]) -> str:
    """Return a sentence for names that transformers has for modules, and no file of the family for weights."""
    if model.family.model_type not in NAMED_OTHERWISE or not any(_OTHERWISE.match(each) for each in names):
        return ""
    return (
        f"; transformers gives the modules of {model.family.model_type} models other names and shapes than their files "
        "have, so that adapters made with it cannot be read here: merge them there and save the model"
    )
