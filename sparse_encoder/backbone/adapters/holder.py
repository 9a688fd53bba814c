"""A model that has adapters: how they are put on it, switched and forgotten. Knows no files."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.adapters import book as books
from sparse_encoder.backbone.adapters.bases import BaseSource
from sparse_encoder.backbone.adapters.book import AdapterBook, lora_layers
from sparse_encoder.backbone.adapters.config import LoraConfig
from sparse_encoder.backbone.adapters.files import ModelAdapter, StoredAdapter
from sparse_encoder.checkpoint import CheckpointError

if TYPE_CHECKING:
    from sparse_encoder.backbone.pretrained import PretrainedModel

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TAKEN = frozenset(dir(nn.ModuleDict())) | frozenset(dir(nn.ParameterDict()))
_OF_RUNS = ("r", "lora_alpha", "use_rslora", "lora_dropout", "bias", "rank_pattern", "alpha_pattern")
"""What must be the same where an adapter takes the weights of a saved one; layers and modules its tensors tell."""


def new_name(adapter_name: str | None, taken: Collection[str]) -> str:
    """Return the name of a new adapter.

    Args:
        adapter_name: As a caller gives it.
        taken: Names that there are.

    Raises:
        ValueError: If it is taken, or can be no name of a module.
    """
    name = DEFAULT_NAME if adapter_name is None else adapter_name
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise ValueError(f"an adapter's name must be letters, digits, _ and -, and no word of torch's, got {name!r}")
    if name in taken:
        raise ValueError(f"there is an adapter {name!r} already; delete it, or give another adapter_name")
    return name


def refuse_several(active: Collection[str]) -> None:
    """Refuse to save several active adapters, which one folder cannot hold.

    Raises:
        ValueError: If there is not one.
    """
    if len(active) != 1:
        raise ValueError(
            f"one adapter can be saved, and {list(active)} are active: call set_adapter() with one, or "
            "merge_and_unload()"
        )


class AdapterHolder(nn.Module):
    """Hold the adapters of a model."""

    source: BaseSource | None = None
    """Where the model came from; None for one that was made here, or came with an adapter beside it."""
    _book: AdapterBook | None = None

    @property
    def name_or_path(self) -> str | None:
        """Folder or repository that the model came from, which its adapters name as their base."""
        return None if self.source is None else self.source.name

    @property
    def has_adapters(self) -> bool:
        """Whether any adapter is on the model, active or not."""
        return self._book is not None

    @property
    def are_adapters_enabled(self) -> bool:
        """Whether the active adapters act."""
        return self._book is not None and self._book.enabled

    @property
    def peft_config(self) -> dict[str, LoraConfig]:
        """The adapters by name; empty without any."""
        return {} if self._book is None else dict(self._book.configs)

    def tensors_in_use(self) -> dict[str, Tensor]:
        """Return what decides the outputs: the base's tensors, and those of active adapters by their order."""
        tensors = books.base_tensors(self)
        book = self._book
        for index, name in enumerate(book.active if book is not None and book.enabled else ()):
            own = books.adapter_tensors(self, name)
            tensors |= {f"adapters.{index}.{key}": each for key, each in own.items()}
            scales = {key: layer.scaling[name] for key, layer in lora_layers(self).items() if name in layer.scaling}
            tensors[f"adapters.{index}.scaling"] = torch.tensor(list(scales.values()), dtype=torch.float64)
        return tensors

    def state_of_saved(self, saved: AdapterHolder) -> dict[str, Tensor]:
        """Return the tensors this model has once its active adapter is that of a saved model; its others stay.

        The base is replaced only if it was saved with the adapter.

        Raises:
            ValueError: If several adapters of this model are active.
            CheckpointError: If the saved model has no adapter, or one of another kind.
        """
        own = self.adapter_named()
        if not saved.has_adapters:
            raise CheckpointError("the saved model has no adapter, and the one that takes its weights has")
        other = saved.adapter_named()
        for name in _OF_RUNS:
            before, now = getattr(other.config, name), getattr(own.config, name)
            if before != now:
                raise CheckpointError(f"the saved adapter is of another kind: {name} was {before!r} and is {now!r} now")
        tensors = books.adapter_tensors(other.model, other.name)
        here = books.adapter_tensors(own.model, own.name)
        for names, what in ((here.keys() - tensors.keys(), "lacks"), (tensors.keys() - here.keys(), "also has")):
            if names:
                raise CheckpointError(f"the saved adapter is of another kind: it {what} {min(names)}")
        return books.state_of_saved(
            self, own.name, own=tensors, base=books.base_tensors(saved) if saved.source is None else None
        )

    def _attach(self, name: str, adapter: StoredAdapter) -> None:
        """Put an adapter on the model and let it alone be active."""
        books.refuse_merged(self, "another adapter")
        if any(each.is_meta for each in self.parameters()):
            raise ValueError("the model's values are offloaded, where no adapter can be put on them; load it without")
        trained = tuple(each for each, parameter in self.named_parameters() if parameter.requires_grad)
        book = self._book or AdapterBook(trained=trained)
        books.attach(self, name, config=adapter.config, layers=adapter.layers, copied=adapter.copied)
        self._book = book
        book.configs[name], book.active, book.enabled = adapter.config, (name,), True
        books.activate(self, (name,))
        self._set_trainable()

    def _switch(self, *, on: bool) -> None:
        book = self._known()
        if not on:
            books.unmerge(self)
        books.activate(self, book.active if on else ())
        book.enabled = on
        self._set_trainable()

    def _set_trainable(self) -> None:
        book = self._known()
        trained = [name for name in book.active if book.enabled and not book.configs[name].inference_mode]
        books.set_trainable(self, trained)

    def _forget(self) -> None:
        """Forget all adapters, and let the base be trained as before."""
        before = set(self._known().trained)
        self._book = None
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in before)

    def _known(self) -> AdapterBook:
        if self._book is None:
            raise ValueError("there is no adapter on the model; use add_adapter or load_adapter first")
        return self._book

    def adapter_named(self, adapter_name: str | None = None) -> ModelAdapter:
        """Return one adapter.

        Args:
            adapter_name: By default the one that is active.

        Raises:
            ValueError: If there is none of this name, or several are active.
        """
        book = self._known()
        names = book.active if adapter_name is None else (adapter_name,)
        if len(names) != 1 or names[0] not in book.configs:
            raise ValueError(f"name one adapter of {sorted(book.configs)}, got {list(names)}")
        return ModelAdapter(self._model(), names[0], book.configs[names[0]])

    def adapter_to_save(self) -> ModelAdapter | None:
        """Return the active adapter; None for a model without.

        Raises:
            ValueError: If several are active, which one folder cannot hold, or they are disabled, which no file says.
        """
        if self._book is None:
            return None
        refuse_several(self._book.active)
        if not self._book.enabled:
            raise ValueError(
                "the adapters are disabled, and would be active once loaded: call enable_adapters(), or "
                "delete_adapter() to save the model without them; save_adapter() saves one in any case"
            )
        return self.adapter_named()

    def check_trainable(self, *, is_saved: bool) -> None:
        """Refuse adapters that could not be trained.

        Args:
            is_saved: Whether the model is to be saved on the way.

        Raises:
            ValueError: If weights have taken adapters in, or several are active and the model is to be saved.
        """
        books.refuse_merged(self, "training")
        if self._book is not None and is_saved:
            refuse_several(self._book.active)

    def _model(self) -> PretrainedModel:
        return cast("PretrainedModel", self)
