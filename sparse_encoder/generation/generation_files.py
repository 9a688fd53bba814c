"""How a model that writes comes by its generation config, and saves it. Knows nothing of layers and loops."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sparse_encoder.backbone.loading.mixin import ModelLoading
from sparse_encoder.backbone.saving import ModelSaving
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.config_fields import FieldError, is_field
from sparse_encoder.generation.config_files import GENERATION_CONFIG_NAME
from sparse_encoder.generation.request import wrong_config


class GenerationFiles(ModelLoading, ModelSaving):
    """Read ``generation_config.json`` beside the weights and write it there; one base of a model that writes."""

    @property
    def generation_config(self) -> GenerationConfig:
        """How it writes, unless a call of ``generate`` says otherwise: from its own file, else from ``config.json``."""
        return self._generation_config

    @generation_config.setter
    def generation_config(self, config: GenerationConfig) -> None:
        """Replace it.

        Raises:
            TypeError: If it is no generation config of this library.
        """
        if not isinstance(config, GenerationConfig):
            raise TypeError(wrong_config(config))
        self._generation_config = config

    def _take_generation_config(self, given: GenerationConfig | None) -> None:
        """Begin with a copy of a config that was given, else with what ``config.json`` says."""
        if given is not None and not isinstance(given, GenerationConfig):
            raise TypeError(wrong_config(given))
        self.generation_config = generation_config_of(self.hf_config) if given is None else given.copy()
        self._generation_config_is_given = given is not None

    @classmethod
    def judge_arguments(cls, names: Collection[str]) -> None:
        """Refuse fields of a generation config, which go into one.

        Raises:
            TypeError: If there are any.
        """
        if fields := sorted(filter(is_field, names)):
            told = ", ".join(f"{each}=..." for each in fields)
            raise TypeError(
                f"{cls.__name__} takes {fields} in a config: from_pretrained(..., generation_config="
                f"GenerationConfig({told})), or assign them to model.generation_config"
            )

    def read_beside(self, folder: Path) -> None:
        """Take the generation config of a folder, if it has one and none was given.

        Args:
            folder: That the weights came from.

        Raises:
            ConfigError: If a field cannot hold its value, or one that is not offered would do something.
        """
        super().read_beside(folder)
        if self._generation_config_is_given:
            return
        path = folder / GENERATION_CONFIG_NAME
        if path.exists() or path.is_symlink():
            self.generation_config = GenerationConfig.from_pretrained(folder)

    def files_to_save(self) -> dict[str, dict[str, Any]]:  # Any: JSON
        """Return the JSON files beside the weights by their names.

        Raises:
            ValueError: If a field of the generation config would have no effect, unless all is as it was loaded.
        """
        return {**super().files_to_save(), GENERATION_CONFIG_NAME: self.generation_config.to_file()}


def generation_config_of(hf_config: Mapping[str, Any]) -> GenerationConfig:  # Any: JSON
    """Return what the ``config.json`` of a model says about generation.

    Args:
        hf_config: The content of the file.

    Raises:
        ConfigError: If a field cannot hold its value, or one that is not offered would do something.
    """
    try:
        return GenerationConfig.from_model_config(hf_config)
    except FieldError as reason:
        raise ConfigError(reason.rule, field=reason.field) from reason
