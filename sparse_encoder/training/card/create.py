"""Write the README of a trainer's model on demand, with what the caller adds to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint.atomic import write_text
from sparse_encoder.model_card import SparseEncoderModelCardData, write_card
from sparse_encoder.model_card_base import ModelCardData
from sparse_encoder.model_card_datasets import DatasetFacts
from sparse_encoder.training.card.generic import generic_card, write_generic_card

if TYPE_CHECKING:
    from sparse_encoder.training.card.callback import CardTrainer

Names = str | Iterable[str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a caller of ``trainer.create_model_card`` adds to a card; ``None`` leaves the card as it is."""

    language: Names = None
    """Language codes."""
    license: str | None = None
    """Licence identifier."""
    tags: Names = None
    """Added to those that are there."""
    model_name: str | None = None
    """Title."""
    finetuned_from: str | None = None
    """Hub id of the base model."""
    tasks: Names = None
    """Task identifiers of the hub, the main one first."""
    dataset_tags: Names = None
    """Hub ids of the training datasets."""
    dataset: Names = None
    """Names of the training datasets, in the order of ``dataset_tags``."""
    dataset_args: Names = None
    """Their configurations, in the same order."""

    def apply(self, card: ModelCardData) -> None:
        """Put what is given on a card."""
        if self.language is not None:
            card.set_language(_listed(self.language))
        if self.license is not None:
            card.set_license(self.license)
        card.add_tags(_listed(self.tags))
        if self.model_name is not None:
            card.model_name = self.model_name
        if self.finetuned_from is not None:
            card.set_base_model(self.finetuned_from)
        if self.tasks is not None:
            card.set_tasks(_listed(self.tasks))
        self._name_datasets(card)

    def _name_datasets(self, card: ModelCardData) -> None:
        """Tell hub ids, names and configurations to the training datasets, one by one; add those that are not there."""
        columns = {
            "id": _listed(self.dataset_tags),
            "name": _listed(self.dataset),
            "config": _listed(self.dataset_args),
        }
        for index in range(max(map(len, columns.values()))):
            told: DatasetFacts = {key: values[index] for key, values in columns.items() if index < len(values)}
            match = next((each for each in card.train_datasets if _are_same(each, told)), None)
            if match is None and index < len(card.train_datasets) and not _is_named(card.train_datasets[index], told):
                match = card.train_datasets[index]
            if match is not None:
                match.update(told)
            elif {"id", "name"} & set(told):
                card.train_datasets.append(told)
            else:
                raise ValueError(f"dataset_args needs dataset_tags or dataset beside it, got {told['config']!r} alone")


def create_model_card(trainer: CardTrainer, options: CardOptions, folder: Path | None = None) -> Path | None:
    """Write ``README.md``; only the first process does.

    Args:
        trainer: Whose model it is. A model without ``model_card_data`` gets a plainer card.
        options: What is added to the card; a SparseEncoder keeps it for later saves.
        folder: Where to; by default into ``args.output_dir``.

    Returns:
        The file; None where nothing was written.

    Raises:
        ValueError: If a configuration of a dataset is given without the dataset.
    """
    if not trainer.state.is_world_process_zero:
        return None
    card = getattr(trainer.model, "model_card_data", None)
    if isinstance(card, SparseEncoderModelCardData):
        card.bring_up_to_date()  # datasets come first, so that their names can be told
        options.apply(card)
        text = write_card(trainer.model, card)
    else:
        plain = generic_card(trainer)
        options.apply(plain)
        text = write_generic_card(trainer.model, plain)
    folder = Path(str(trainer.args.output_dir)) if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.md", text)
    return folder / "README.md"


def _listed(names: Names) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _are_same(dataset: DatasetFacts, told: DatasetFacts) -> bool:
    return any(told.get(key) is not None and dataset.get(key) == told[key] for key in ("id", "name"))


def _is_named(dataset: DatasetFacts, told: DatasetFacts) -> bool:
    """Return whether a dataset has a hub id or a name that what is told contradicts."""
    return any(told.get(key) and dataset.get(key) and dataset[key] != told[key] for key in ("id", "name"))
