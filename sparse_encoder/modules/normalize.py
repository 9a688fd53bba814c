"""Scale embeddings to length 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch.nn import functional

from sparse_encoder.modules.base import LoadSettings, Module
from sparse_encoder.modules.features import Features

if TYPE_CHECKING:
    from typing_extensions import Self


class Normalize(Module):
    """Divide embeddings by their Euclidean length; zeros stay zeros.

    Args:
        module_input_name: The feature to read, (B, D) or (B, T, D).
        module_output_name: The feature to write; by default the one that is read.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("module_input_name", "module_output_name")

    def __init__(self, module_input_name: str = "sentence_embedding", module_output_name: str | None = None) -> None:
        super().__init__()
        self.module_input_name = module_input_name
        self.module_output_name = module_input_name if module_output_name is None else module_output_name

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Normalise one feature along its last axis."""
        scaled = functional.normalize(features[self.module_input_name], p=2, dim=-1)
        return Features({**features, self.module_output_name: scaled})

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a module from its folder; older models have no file in it, or not even the folder."""
        if not (Path(folder) / cls.config_file_name).exists():
            return cls()
        return super().load(folder, settings)
