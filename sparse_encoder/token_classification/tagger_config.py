"""The configuration of a tagger: its encoder's, and its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from sparse_encoder.backbone import TransformerConfig
from sparse_encoder.backbone.published_names import told_when_changed


@told_when_changed
@dataclass(frozen=True, kw_only=True, slots=True)
class TaggerConfig(TransformerConfig):
    """A transformer and the labels of its tokens; scripts read ``model.config.num_labels``."""

    id2label: Mapping[int, str] = field(default_factory=dict, hash=False)
    """Names of labels by their numbers."""
    label2id: Mapping[str, int] = field(default_factory=dict, hash=False)
    """The reverse."""

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return len(self.id2label)

    @classmethod
    def of(cls, config: TransformerConfig, id2label: Mapping[int, str], label2id: Mapping[str, int]) -> TaggerConfig:
        """Put labels to the configuration of an encoder; those that it has are replaced."""
        values = {each.name: getattr(config, each.name) for each in fields(TransformerConfig)}
        return cls(**values, id2label=id2label, label2id=label2id)
