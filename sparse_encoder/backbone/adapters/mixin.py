"""The methods for adapters that a pretrained model has, under the names of transformers. Knows no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sparse_encoder.backbone.adapters import book as books
from sparse_encoder.backbone.adapters.bases import on_base
from sparse_encoder.backbone.adapters.book import lora_layers
from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.adapters.files import (
    StoredAdapter,
    fit_to_model,
    plain_values,
    read_adapter_config,
    read_adapter_tensors,
    tensors_for_file,
    write_adapter,
)
from sparse_encoder.backbone.adapters.holder import AdapterHolder, new_name
from sparse_encoder.backbone.adapters.layer import LowRank
from sparse_encoder.backbone.adapters.names import HEAD, copied_parameters, in_layers, linear_names, resolve
from sparse_encoder.checkpoint import CheckpointError, fetch_model_folder, resolve_inside, staged_folder

if TYPE_CHECKING:
    from typing_extensions import Self

    from sparse_encoder.backbone.pretrained import PretrainedModel

_HUB_OPTIONS = {"cache_dir": "cache_folder", "revision": "revision", "token": "token", "subfolder": "subfolder"}


class ModelAdapters(AdapterHolder):
    """Add, train, save, load and merge low-rank adapters; one base of a pretrained model.

    Several adapters may be on a model, by name. The base gets no gradient while there is any.
    """

    def add_adapter(self, adapter_config: object, adapter_name: str | None = None) -> None:
        """Put a fresh adapter on the model and let it alone be active; its numbers come from torch's generator.

        Args:
            adapter_config: A :class:`LoraConfig`, or one of ``peft``'s.
            adapter_name: ``"default"`` if it is not given.

        Raises:
            TypeError: If it is no such config.
            ValueError: If the name is taken, or the config finds no layer or asks for what is not supported.
        """
        model, config = self._model(), LoraConfig.of(adapter_config)
        name = new_name(adapter_name, self.peft_config)
        if config.base_model_name_or_path is None:
            config = on_base(config, self.source)
        _check_layers(config, model)
        config, layers = resolve(config, model)
        self._attach(name, StoredAdapter(config, layers, tuple(copied_parameters(config, model, layers)), {}))
        for layer in lora_layers(self).values():
            if name in layer.lora_A:
                layer.initialize(name, config.init_lora_weights)

    def load_adapter(  # house: peer signature
        self,
        peft_model_id: str | Path | None = None,
        adapter_name: str | None = None,
        peft_config: object | None = None,
        adapter_state_dict: Mapping[str, Tensor] | None = None,
        is_trainable: bool = False,
        local_files_only: bool = False,
        adapter_kwargs: Mapping[str, Any] | None = None,  # Any: options of the hub
    ) -> None:
        """Put a saved adapter on the model, strictly, and let it alone be active.

        Args:
            peft_model_id: A folder, or a repository on the hub, as PEFT writes it.
            adapter_name: ``"default"`` if it is not given.
            peft_config: In the place of the file's: a config, or its fields.
            adapter_state_dict: In the place of the file's: tensors by the names of the family's files.
            is_trainable: Whether it gets a gradient.
            local_files_only: Download nothing.
            adapter_kwargs: ``cache_dir``, ``revision``, ``subfolder`` and ``token`` for the hub.

        Raises:
            FileNotFoundError: If there is no such folder, repository or config.
            LoadError: If the files are not what they claim to be, or do not fit the model; it is as it was then.
            CheckpointError: Also if the adapter was made for a model of the other direction.
            ValueError: If the name is taken, or neither files nor both others are given.
        """
        name = new_name(adapter_name, self.peft_config)
        if peft_model_id is None and (peft_config is None or adapter_state_dict is None):
            raise ValueError("give peft_model_id, or both peft_config and adapter_state_dict")
        folder = None
        if peft_model_id is not None:
            folder = _folder(peft_model_id, {**(adapter_kwargs or {}), "local_files_only": local_files_only})
        if peft_config is not None:
            config = plain_values(peft_config) if isinstance(peft_config, Mapping) else LoraConfig.of(peft_config)
        else:
            assert folder is not None
            config = read_adapter_config(folder)
        if adapter_state_dict is None:
            assert folder is not None
            adapter_state_dict = read_adapter_tensors(folder)
        _check_direction(config, self._model(), folder)
        config = on_base(replace(config, inference_mode=not is_trainable), self.source)
        stored = fit_to_model(config, adapter_state_dict, model=self._model(), path=folder)
        self._attach(name, stored)
        books.fill(self, name, tensors=stored.tensors)

    def save_adapter(self, save_directory: str | Path, adapter_name: str | None = None) -> None:
        """Write one adapter as PEFT does: ``adapter_config.json`` and ``adapter_model.safetensors``.

        Args:
            save_directory: The folder.
            adapter_name: By default the one that is active.

        Raises:
            ValueError: If there is none of this name, or several are active.
        """
        adapter = self.adapter_named(adapter_name)
        with staged_folder(Path(save_directory)) as folder:
            write_adapter(adapter, None, folder)

    def set_adapter(self, adapter_name: str | Sequence[str]) -> None:
        """Let one adapter, or several together, be active and trained, and no other.

        Raises:
            ValueError: If one is not there, weights are merged, or two have copies of one parameter.
        """
        book = self._known()
        names = (adapter_name,) if isinstance(adapter_name, str) else tuple(adapter_name)
        if unknown := sorted(set(names) - book.configs.keys()):
            raise ValueError(f"no adapters {unknown}; choose from {sorted(book.configs)}")
        if not names or len(set(names)) != len(names):
            raise ValueError(f"adapter_name must name one adapter or several different ones, got {list(names)}")
        books.refuse_merged(self, "set_adapter")
        if book.enabled:
            books.activate(self, names)
        book.active = names
        for name in names:
            book.configs[name] = replace(book.configs[name], inference_mode=False)
        self._set_trainable()

    def enable_adapters(self) -> None:
        """Let the active adapters act again."""
        self._switch(on=True)

    def disable_adapters(self) -> None:
        """Let the model compute what it would without adapters; merged weights are unmerged."""
        self._switch(on=False)

    def delete_adapter(self, adapter_names: str | Sequence[str]) -> None:
        """Take adapters off the model; with the last one the model is as it was before the first.

        Raises:
            ValueError: If one is not there, or weights are merged.
        """
        book = self._known()
        names = (adapter_names,) if isinstance(adapter_names, str) else tuple(adapter_names)
        if unknown := sorted(set(names) - book.configs.keys()):
            raise ValueError(f"no adapters {unknown}; choose from {sorted(book.configs)}")
        books.refuse_merged(self, "delete_adapter")
        left = tuple(name for name in book.active if name not in names)
        books.activate(self, left if book.enabled else ())
        for name in names:
            books.detach(self, name)
            del book.configs[name]
        book.active = left or tuple(book.configs)[:1]
        if book.configs:
            books.activate(self, book.active if book.enabled else ())
            self._set_trainable()
        else:
            self._forget()

    def active_adapters(self) -> list[str]:
        """Return the names of the active adapters, also while they are disabled."""
        return list(self._known().active)

    def active_adapter(self) -> str:
        """Return the name of the first active adapter."""
        return self.active_adapters()[0]

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors of one adapter, by the names of the family's files.

        Args:
            adapter_name: By default the one that is active.
            state_dict: The model's tensors; by default as they are now.
        """
        return tensors_for_file(*self.adapter_named(adapter_name), state_dict)

    def merge_adapter(self, adapter_names: Sequence[str] | None = None) -> None:
        """Let the weights take in what adapters add, so that they cost nothing; they cannot be trained then.

        Args:
            adapter_names: By default those that are active.

        Raises:
            ValueError: If one is not there, weights are merged already, or it changes a head that is tied.
        """
        book = self._known()
        books.refuse_merged(self, "merge_adapter")
        names = book.active if adapter_names is None else tuple(adapter_names)
        if unknown := sorted(set(names) - book.configs.keys()):
            raise ValueError(f"no adapters {unknown}; choose from {sorted(book.configs)}")
        if self._tied_head(names) is not None:
            raise ValueError(
                "the head shares its table with the words, which would change with it: merge_and_unload() unties them"
            )
        books.activate(self, names)
        book.active, book.enabled = names, True
        for layer in lora_layers(self).values():
            layer.merge(names)

    def unmerge_adapter(self) -> None:
        """Give the weights the very bits back that they had before :meth:`merge_adapter`; they are kept for that."""
        self._known()
        books.unmerge(self)

    def merge_and_unload(self) -> Self:
        """Let the weights take the active adapters in for good, and take all adapters off; returns the model.

        A head that is tied to the words gets a table of its own if an adapter changes one of them alone.
        """
        head = self._tied_head(self._known().active)
        if head is not None:
            head.weight = nn.Parameter(head.weight.detach().clone())
            self._model().set_output_embeddings(head)
        if not books.is_merged(self):
            self.merge_adapter()
        for name, layer in lora_layers(self).items():
            self.set_submodule(name, layer.plain())
        books.forget_copies(self)
        own = self._model().get_output_embeddings()
        if own is not None:  # words or head may be an adapter's copy
            self._model().set_output_embeddings(own)
        self._forget()
        return self

    def _tied_head(self, names: Sequence[str]) -> LowRank | None:
        """Return the head if some adapters change the scores of a table that is that of the words too."""
        head = lora_layers(self).get(HEAD)
        is_changed = head is not None and any(name in head.lora_A for name in names)
        return head if is_changed and self._model().config.tie_word_embeddings else None


def _check_direction(config: LoraConfig, model: PretrainedModel, folder: Path | None) -> None:
    """Refuse an adapter that was made for another direction, which would change what it computes unseen."""
    if config.is_causal not in (None, model.config.causal):
        told = {True: "those before it alone", False: "all others"}
        raise CheckpointError(
            f"the adapter was made for a model each token of which sees {told[bool(config.is_causal)]}, and here it "
            f"sees {told[model.config.causal]}: load the base with is_causal={config.is_causal}, or the adapter by "
            "from_pretrained, which does so",
            path=folder,
        )


def _check_layers(config: LoraConfig, model: PretrainedModel) -> None:
    """Refuse numbers of layers that there are not."""
    wanted = config.layers_to_transform
    names = linear_names(model).values() if wanted is not None else ()
    numbers = (wanted,) if isinstance(wanted, int) else wanted or ()
    alone = {number: replace(config, layers_to_transform=[number]) for number in numbers}
    if missing := [number for number in numbers if not any(in_layers(alone[number], name) for name in names)]:
        raise ValueError(f"layers_to_transform must hold numbers of layers that the model has; {missing} are not there")


def _folder(peft_model_id: str | Path, options: Mapping[str, Any]) -> Path:  # Any: options of the hub
    """Return the folder of an adapter, downloaded first if it is on the hub."""
    known = {**_HUB_OPTIONS, "local_files_only": "local_files_only"}
    if unknown := sorted(set(options) - known.keys()):
        raise ValueError(f"unknown adapter_kwargs {unknown}; choose from {sorted(_HUB_OPTIONS)}")
    given = {known[name]: value for name, value in options.items() if name != "subfolder" or value}
    root = fetch_model_folder(peft_model_id, **given)
    return resolve_inside(root, given["subfolder"]) if "subfolder" in given else root
