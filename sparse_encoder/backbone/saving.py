"""How a model is written to a folder. Knows names and formats of the files, and nothing of layers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sparse_encoder.backbone.adapters.book import adapter_tensors, base_tensors
from sparse_encoder.backbone.adapters.files import write_adapter
from sparse_encoder.backbone.adapters.holder import AdapterHolder
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.dtypes import DTYPE_KEYS
from sparse_encoder.backbone.families.family import HEAD_BIAS, WORD_EMBEDDINGS, Family, Rows
from sparse_encoder.backbone.families.reader import DANGEROUS
from sparse_encoder.backbone.loading.origin import CONFIG_NAME
from sparse_encoder.backbone.loading.unchanged import is_as_stored
from sparse_encoder.backbone.weights import names_of
from sparse_encoder.checkpoint import (
    MAX_SHARD_SIZE,
    size_in_bytes,
    staged_folder,
    write_json,
    write_tensors,
    write_torch_tensors,
)
from sparse_encoder.checkpoint.hub_push import Parcel, PushOptions, push
from sparse_encoder.checkpoint.key_table import WRAPPER_PREFIXES
from sparse_encoder.checkpoint.overlaps import refuse_overlaps
from sparse_encoder.checkpoint.weight_names import WeightNames

SaveFunction = Callable[[object, str], object]
_WRAPPERS = tuple(prefix.removesuffix(".") for prefix in WRAPPER_PREFIXES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How weights are written.

    Raises:
        ValueError: If the size or the variant is malformed.
        TypeError: If the size is neither a number nor a text, the variant no text, or another value not of its type.
    """

    max_shard_size: int | str = MAX_SHARD_SIZE
    safe_serialization: bool = True
    variant: str | None = None
    save_function: SaveFunction = torch.save
    """Writes a pickle; safetensors are not written by it."""

    def __post_init__(self) -> None:
        """Check what could only be found out when half is written."""
        check_flag("safe_serialization", self.safe_serialization)
        if not callable(self.save_function):
            raise TypeError(f"save_function must be a function, as torch.save, got {self.save_function!r:.100}")
        if not isinstance(self.variant, (str, type(None))):
            raise TypeError(f"variant must be a text, as 'fp16', or None, got {self.variant!r:.100}")
        size_in_bytes(self.max_shard_size)
        WeightNames(variant=self.variant)

    def check_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse what the one file of an adapter cannot follow.

        Args:
            tensors: Of the adapter.

        Raises:
            ValueError: If a variant, a pickle, or several files are asked for.
        """
        if self.variant is not None:
            raise ValueError(f"variant must be None for an adapter, whose file has one name, got {self.variant!r}")
        if not self.safe_serialization:
            raise ValueError("safe_serialization must stay True for an adapter, which is written as safetensors only")
        size = sum(each.numel() * each.element_size() for each in tensors.values())
        if size_in_bytes(self.max_shard_size) < size:
            raise ValueError(
                f"max_shard_size must be at least {size} bytes, the size of the adapter, which is one file; got "
                f"{self.max_shard_size!r}"
            )

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write named tensors into a folder."""
        size, variant = self.max_shard_size, self.variant
        if self.safe_serialization:
            write_tensors(folder, tensors, max_shard_size=size, variant=variant)
        else:
            write_torch_tensors(folder, tensors, max_shard_size=size, variant=variant, save_function=self.save_function)


class ModelSaving(AdapterHolder):
    """Write a pretrained model; one of its bases."""

    config: TransformerConfig
    hf_config: dict[str, Any]  # Any: JSON
    has_head: bool
    tied_targets: ClassVar[Mapping[str, str]]
    model_tags: Sequence[str] = ()
    """Tags for the README of uploads."""

    if TYPE_CHECKING:

        @classmethod
        def head_rows(cls, family: Family) -> Rows:
            """Return the names of the head's tensors: pairs of the family's and ours."""

        @property
        def family(self) -> Family:
            """The family whose names the files use."""

        @property
        def architecture(self) -> str:
            """What transformers calls this model."""

        @property
        def dtype(self) -> torch.dtype:
            """Of the parameters."""

    def save_pretrained(  # house: peer signature
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: SaveFunction = torch.save,
        push_to_hub: bool = False,
        max_shard_size: int | str = MAX_SHARD_SIZE,
        safe_serialization: bool = True,
        variant: str | None = None,
        token: str | bool | None = None,
        save_peft_format: bool = True,
        **push_kwargs: Any,  # noqa: ANN401 - the fields of PushOptions
    ) -> None:
        """Write configuration and weights so that transformers and :meth:`from_pretrained` load them.

        All appears whole or not at all; the weights of an earlier save of the same variant go, other files stay. Of a
        model with adapters the active one is written, as PEFT does, and the base beside it unless it is still what its
        name leads to, of whichever dtype; :meth:`merge_and_unload` makes one model of both.

        Args:
            save_directory: The folder; ``~`` at its beginning is the home folder, as for :meth:`from_pretrained`.
            is_main_process: False writes and uploads nothing, as all processes of a run but one should.
            state_dict: What to write in the place of the model's own, or a part of it, under the model's own names;
                what wrappers put before or into names (``module.``, ``_orig_mod.``) is taken out.
            save_function: Writes a pickle in the place of ``torch.save``; it is for ``safe_serialization=False`` only.
            push_to_hub: Also upload what has been written, in one commit.
            max_shard_size: Largest weight file: bytes, or a text as ``"5GB"`` or ``"200MiB"``; 0 gives each tensor its
                own.
            safe_serialization: False writes ``pytorch_model.bin``, with a warning.
            variant: A word to put into the names of the weight files, as in ``model.fp16.safetensors``.
            token: Access token for the upload; True or None take the stored one.
            save_peft_format: Must stay true: adapters are written in PEFT's format only.
            **push_kwargs: For the upload: ``repo_id`` (else the name of the folder), ``commit_message``,
                ``commit_description``, ``private``, ``create_pr``, ``revision``, ``tags``.

        Raises:
            FileExistsError: If ``save_directory`` is a file.
            RuntimeError: If two tensors share memory and are not known to be tied.
            ValueError: If an option is malformed, a name of ``state_dict`` is not the model's, tied weights differ, or
                values of the model are offloaded.
            TypeError: If a flag is no bool, an argument is of the wrong type or unknown, or for an upload that
                ``push_to_hub`` does not ask for.
        """
        flags = {"is_main_process": is_main_process, "push_to_hub": push_to_hub, "save_peft_format": save_peft_format}
        for name, value in flags.items():
            check_flag(name, value)
        if not save_peft_format:
            raise ValueError("save_peft_format must stay True: adapters are written in PEFT's format only")
        if push_kwargs and not push_to_hub:
            raise TypeError(f"{sorted(push_kwargs)} are for an upload; pass push_to_hub=True")
        if unknown := sorted(set(push_kwargs) - {each.name for each in fields(PushOptions)}):
            known = sorted(each.name for each in fields(PushOptions))
            raise TypeError(f"save_pretrained knows no argument {unknown[0]!r}; for an upload it takes {known}")
        folder = Path(save_directory).expanduser()
        options = PushOptions(**{"repo_id": Path(os.path.abspath(folder)).name, "token": token, **push_kwargs})
        form = Format(
            max_shard_size=max_shard_size,
            safe_serialization=safe_serialization,
            variant=variant,
            save_function=save_function,
        )
        if not is_main_process:
            return

        def save(target: Path) -> None:
            self._write(target, self.state_dict() if state_dict is None else state_dict, form)

        if push_to_hub:
            push(self._parcel(save), options, folder=folder)
        else:
            save(folder)

    def files_to_save(self) -> dict[str, dict[str, Any]]:  # Any: JSON
        """Return the JSON files beside the weights by their names; what can generate has its settings among them."""
        return {CONFIG_NAME: self._config_to_save()}

    def _parcel(self, save: Callable[[Path], None]) -> Parcel:
        def card(repository: str) -> str:
            return (
                f"# {repository}\n\nA `{self.architecture}`, written by sparse-encoder.\n\n```python\n"
                f"from sparse_encoder.backbone import {type(self).__name__}\n\n"
                f'model = {type(self).__name__}.from_pretrained("{repository}")\n```\n'
            )

        return Parcel(kind="model", save=save, tags=tuple(self.model_tags), card=card)

    def _write(self, folder: Path, state_dict: Mapping[str, Tensor], form: Format) -> None:
        tensors, adapter = self._tensors_to_save(_checked(state_dict)), self.adapter_to_save()
        if adapter is not None:
            form.check_adapter(adapter_tensors(self, adapter.name))
        is_adapter_alone = adapter is not None and self._is_base_as_stored(state_dict)
        if not is_adapter_alone:
            _refuse_empty(tensors)
        if not form.safe_serialization and not is_adapter_alone:
            warnings.warn(
                "pytorch_model.bin is a pickle, which others will not like to open; safe_serialization=True writes"
                " safetensors",
                UserWarning,
                stacklevel=4,
            )
        with staged_folder(folder, replaces_adapters=True) as stage:
            if not is_adapter_alone:  # whose base is where it was
                for name, values in self.files_to_save().items():
                    written = _with_dtype(values, tensors) if name == CONFIG_NAME else values
                    write_json(stage / name, written, sort_keys=True)
                form.write(stage, tensors)
            if adapter is not None:
                if not is_adapter_alone:  # and which is not found by its name
                    beside = replace(adapter.config, base_model_name_or_path=None, revision=None)
                    adapter = adapter._replace(config=beside)
                write_adapter(adapter, unwrapped(state_dict), stage)

    def _is_base_as_stored(self, state_dict: Mapping[str, Tensor]) -> bool:
        return is_as_stored(self._model(), base_tensors(self, unwrapped(state_dict)))

    def _tensors_to_save(self, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Name tensors as the family does: tied ones once, no base prefix without a head."""
        family, is_tied, tensors = self.family, self.config.tie_word_embeddings, {}
        names = names_of(family, self.config, self.head_rows(family))
        plain = unwrapped(self.state_dict() if state_dict is None else state_dict)
        own = untied(base_tensors(self, plain), self.tied_targets if is_tied else {})
        refuse_overlaps(own)
        for name, tensor in own.items():
            theirs = names.own.theirs_or_none(name)
            if theirs is None:
                raise ValueError(
                    f"state_dict has {name!r}, which is no name of this model; its own are those of model.state_dict(),"
                    f" as {next(iter(self.state_dict()))!r}"
                )
            written = theirs if self.has_head else theirs.removeprefix(family.base_prefix)
            tensors[written] = tensor.t() if names.is_transposed(name) and tensor.ndim == 2 else tensor
            if name == WORD_EMBEDDINGS and family.copies_words_if_untied and not is_tied:
                tensors |= {copy: tensor.clone() for copy in family.word_copies}
            if name == HEAD_BIAS and names.has_second_bias and family.decoder_bias_copy is not None and not is_tied:
                tensors[family.decoder_bias_copy] = tensor.clone()  # transformers does not tie the bias either
        return tensors

    def _config_to_save(self) -> dict[str, Any]:  # Any: JSON
        left_out = (*DTYPE_KEYS, *DANGEROUS)  # what is written now is neither quantized nor needs foreign code
        written = {key: value for key, value in self.hf_config.items() if key not in left_out}
        key = "torch_dtype" if "torch_dtype" in self.hf_config else "dtype"
        return {**written, "architectures": [self.architecture], key: str(self.dtype).removeprefix("torch.")}


def check_flag(name: str, value: object) -> None:
    """Refuse a switch that is neither on nor off.

    Args:
        name: What the caller calls it.
        value: What was given.

    Raises:
        TypeError: If it is no bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r:.100}")


def _checked(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return what may be saved: tensors by name."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must map names to tensors, got {type(state_dict).__name__}")
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"state_dict must map names to tensors, got {type(tensor).__name__} for {name!r:.100}")
    return state_dict


def _refuse_empty(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors whose values are elsewhere, by their names in the files."""
    if empty := [name for name, tensor in tensors.items() if tensor.is_meta]:
        raise ValueError(
            f"{empty[0]!r} has no values here: it is offloaded, or on the meta device; load the model without a"
            " device_map that offloads, and save that"
        )


def _with_dtype(values: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:  # Any: JSON
    """Let a configuration name the dtype of the tensors beside it: that of the first floating one."""
    found = next((each.dtype for each in tensors.values() if each.is_floating_point()), None)
    key = next((key for key in DTYPE_KEYS if key in values), None)
    return values if found is None or key is None else {**values, key: str(found).removeprefix("torch.")}


def unwrapped(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take out of names what DistributedDataParallel and torch.compile put before the module they wrap.

    Args:
        state_dict: Tensors by name.

    Raises:
        ValueError: If two tensors would get one name.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if plain in result:
            raise ValueError(f"two tensors of state_dict are called {plain!r} without their wrappers' names")
        result[plain] = tensor
    return result


def untied(state_dict: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """Keep one name of parameters that are one.

    Args:
        state_dict: Tensors by name; of a tied pair either may be missing.
        tied: Names to leave out, each to the one that stands for both.

    Raises:
        ValueError: If both are there and differ.
    """
    result = dict(state_dict)
    for alias, source in tied.items():
        if alias not in result:
            continue
        tensor = result.pop(alias)
        kept = result.setdefault(source, tensor)
        if not _same(kept.detach(), tensor.detach()):
            raise ValueError(
                f"{alias!r} and {source!r} are tied by the config and differ, so one of them would be lost; call"
                " tie_weights(), or set tie_word_embeddings to false"
            )
    return result


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are one, or at least equal."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return (one.data_ptr() == other.data_ptr() and one.stride() == other.stride()) or torch.equal(one, other)
