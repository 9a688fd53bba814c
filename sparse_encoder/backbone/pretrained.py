"""Models that come from and go to folders in the Hugging Face layout. Knows no family by name, and nothing of text.

::

    PretrainedModel
    ├── EncoderModel          .backbone           hidden states
    └── MaskedLanguageModel   .backbone .head     logits
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sparse_encoder.backbone.adapters.mixin import ModelAdapters
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.dtypes import Dtypes, chosen_dtype
from sparse_encoder.backbone.editing import ModelEditing
from sparse_encoder.backbone.facts import ModelFacts
from sparse_encoder.backbone.families import ENCODING_FAMILIES, family_of, read_config, respell
from sparse_encoder.backbone.families.family import HEAD_WEIGHT, WORD_EMBEDDINGS, Family
from sparse_encoder.backbone.head_bias import HeadBias
from sparse_encoder.backbone.heads import VocabularyHead, build_head
from sparse_encoder.backbone.hub_mixin import ModelPublishing
from sparse_encoder.backbone.loading.mixin import ModelLoading
from sparse_encoder.backbone.transformer import Transformer
from sparse_encoder.backbone.weights import LoadReport
from sparse_encoder.checkpoint import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self


class PretrainedModel(ModelLoading, ModelEditing, HeadBias, ModelFacts, ModelAdapters, ModelPublishing, ABC):
    """Own a backbone and know where it came from; build one by :meth:`from_pretrained` or :meth:`from_config`.

    Args:
        config: Which transformer.
        hf_config: The ``config.json`` it was read from; its keys are written again.
        attn_implementation: ``"sdpa"`` or ``"eager"``.
    """

    config_class: ClassVar[type[TransformerConfig]] = TransformerConfig
    base_model_prefix: ClassVar[str] = "backbone"
    """Name of the attribute that holds the backbone."""
    has_head: bool

    def __init__(
        self, config: TransformerConfig, hf_config: Mapping[str, Any], *, attn_implementation: str = "sdpa"
    ) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise TypeError(f"config must be a {self.config_class.__name__}, got {type(config).__name__}")
        self.hf_config = deepcopy(respell(hf_config, config))
        self.config = replace(config, published=self.hf_config)
        self.load_report: LoadReport | None = None
        """What became of the checkpoint's tensors; None for a model of random weights."""
        self.backbone = Transformer(self.config, attn_implementation=attn_implementation)

    @abstractmethod
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
    ) -> Any:  # noqa: ANN401 - a tensor, or several by their names
        """Run the model; arguments as :meth:`Transformer.forward`, but that no ``attention_mask`` means no padding."""

    @classmethod
    def from_config(
        cls,
        hf_config: Mapping[str, Any],
        *,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str = "sdpa",
    ) -> Self:
        """Build a model of random weights, drawn from torch's global generator as the family does.

        Args:
            hf_config: The content of a ``config.json``.
            dtype: Of the parameters; None and ``"auto"`` take what the config says, else float32.
            attn_implementation: ``"sdpa"`` or ``"eager"``.

        Raises:
            ConfigError: If the config is not one of ours or has a value out of range.
            ValueError: If ``dtype`` or ``attn_implementation`` is unknown.
        """
        config = cls.own_config(read_config(hf_config), family_of(hf_config))
        dtypes = Dtypes(chosen_dtype(dtype, hf_config), config.guards_float16)
        with torch.device("meta"):
            model = cls(config, hf_config, attn_implementation=attn_implementation)
        model = model.to_empty(device="cpu").to(dtypes.usual)
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(dtypes.of(name))
        model.init_weights()
        return model

    @property
    def family(self) -> Family:
        """The family whose names the files use."""
        return family_of(self.hf_config)

    @property
    def architecture(self) -> str:
        """What transformers calls this model."""
        family = self.family
        return family.masked_language_architecture if self.has_head else family.encoder_architecture

    @property
    def base_model(self) -> Transformer:
        """The backbone."""
        return self.backbone


class EncoderModel(PretrainedModel):
    """A backbone alone: token ids in, hidden states out; of an encoder with a decoder, the encoder."""

    has_head = False

    @classmethod
    def own_config(cls, config: TransformerConfig, family: Family, path: Path | None = None) -> TransformerConfig:
        """Return the config of the encoder, where there is a decoder as well.

        Raises:
            ConfigError: If the family's encoder cannot be saved without its decoder.
        """
        if not family.has_encoder_class:
            told = (
                f"the encoder of a {family.model_type} cannot be saved alone, as transformers has no class for it; "
                f"an EncoderModel or SparseEncoder is built on one of {sorted(ENCODING_FAMILIES)}, and "
                "Seq2SeqModel.from_pretrained(...).encode(...) gives the hidden states of this one"
            )
            raise ConfigError(told, path=path, field="model_type")
        return replace(config, decoder=None)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states, (B, T, D); arguments as :meth:`PretrainedModel.forward`."""
        attention_mask = self.mask_or_ones(input_ids, attention_mask)
        hidden: Tensor = self.backbone(input_ids, attention_mask, token_type_ids, position_ids, head_mask)
        return hidden


class MaskedLanguageModel(PretrainedModel):
    """A backbone with a masked-language head: token ids in, logits out."""

    has_head = True
    tied_targets = {HEAD_WEIGHT: WORD_EMBEDDINGS}

    def __init__(
        self, config: TransformerConfig, hf_config: Mapping[str, Any], *, attn_implementation: str = "sdpa"
    ) -> None:
        super().__init__(config, hf_config, attn_implementation=attn_implementation)
        self.head = build_head(config)
        self.tie_weights()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
    ) -> Tensor:
        """Return logits, (B, T, V); arguments as :meth:`PretrainedModel.forward`."""
        attention_mask = self.mask_or_ones(input_ids, attention_mask)
        logits: Tensor = self.head(self.backbone(input_ids, attention_mask, token_type_ids, position_ids, head_mask))
        return logits

    def vocabulary_head(self) -> VocabularyHead:
        """Return the head."""
        return self.head
