"""Low-rank adapters of a model's backbone, by the methods that sentence-transformers has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.modules.decoders import warn_of_idle_head


class AdapterMethods(nn.Module):
    """Hand adapters to the first backbone of a model; one base of a model."""

    if TYPE_CHECKING:

        @property
        def transformers_model(self) -> PretrainedModel | None:
            """The first backbone with its head."""

    def has_peft_compatible_model(self) -> bool:
        """Say whether there is a backbone."""
        return self.transformers_model is not None

    def check_peft_compatible_model(self) -> None:
        """Refuse a model without a backbone.

        Raises:
            ValueError: If there is none.
        """
        self._backbone()

    def add_adapter(self, adapter_config: object, adapter_name: str | None = None) -> None:
        """Put a fresh adapter on the backbone and train nothing else of it; as :meth:`PretrainedModel.add_adapter`.

        If the backbone is a decoder and its head is not trained, the log says so and what to do.
        """
        backbone = self._backbone()
        backbone.add_adapter(adapter_config, adapter_name)
        warn_of_idle_head(backbone)

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
        """Put a saved adapter on the backbone; as :meth:`PretrainedModel.load_adapter`."""
        self._backbone().load_adapter(
            peft_model_id,
            adapter_name,
            peft_config,
            adapter_state_dict,
            is_trainable=is_trainable,
            local_files_only=local_files_only,
            adapter_kwargs=adapter_kwargs,
        )

    def set_adapter(self, adapter_name: str | Sequence[str]) -> None:
        """Let some adapters be active and trained; as :meth:`PretrainedModel.set_adapter`."""
        self._backbone().set_adapter(adapter_name)

    def enable_adapters(self) -> None:
        """Let the active adapters act again."""
        self._backbone().enable_adapters()

    def disable_adapters(self) -> None:
        """Let the backbone compute what it would without adapters."""
        self._backbone().disable_adapters()

    def delete_adapter(self, adapter_names: str | Sequence[str]) -> None:
        """Take adapters off the backbone; as :meth:`PretrainedModel.delete_adapter`."""
        self._backbone().delete_adapter(adapter_names)

    def active_adapters(self) -> list[str]:
        """Return the names of the active adapters."""
        return self._backbone().active_adapters()

    def active_adapter(self) -> str:
        """Return the name of the first active adapter."""
        return self._backbone().active_adapter()

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors of one adapter; as :meth:`PretrainedModel.get_adapter_state_dict`."""
        return self._backbone().get_adapter_state_dict(adapter_name, state_dict)

    def _backbone(self) -> PretrainedModel:
        backbone = self.transformers_model
        if backbone is None:
            raise ValueError("this model has no backbone that could have adapters; its modules need a Transformer")
        return backbone
