"""TokenClassificationModel: an encoder with a layer that labels every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone import PretrainedModel, Transformer, TransformerConfig
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.families.family import Family, Rows
from sparse_encoder.backbone.families.reader import ConfigReader
from sparse_encoder.backbone.feed_forward import ACTIVATIONS
from sparse_encoder.backbone.label_maps import label_maps
from sparse_encoder.backbone.modes import evaluating
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.token_classification.alignment import IGNORED, Strategy
from sparse_encoder.token_classification.linear_chain import LinearChain
from sparse_encoder.token_classification.tagger_config import TaggerConfig

USE_CRF = "use_crf"
"""Key of ``config.json`` for models with a linear chain; other libraries load them without it."""
CRF_LINKS = "crf_links"
"""Key of ``config.json`` for which tokens the linear chain goes through."""
_CHAIN_ROWS = tuple((f"crf.{name}", f"head.crf.{name}") for name in ("start", "transitions", "end"))


class TokenClassifierOutput(dict[str, Tensor]):
    """What a call returns: ``logits`` and, with labels, before it ``loss``; by key, by attribute or by place."""

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - a value by its key, or by its place, or several by a slice
        """Return the value of a key or place."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Tensor, ...]:
        """Return the values: the loss if there is one, and the logits."""
        return tuple(self.values())

    def __getattr__(self, name: str) -> Tensor | None:
        """Return the value of a key; no loss is None."""
        if name not in self and name != "loss":
            raise AttributeError(f"there is no {name!r} in the output, only {sorted(self)}")
        return self.get(name)


class TokenClassificationHead(nn.Module):
    """Score the labels of every token.

    Args:
        config: Of the encoder.
        num_labels: Labels, L.
        dropout: Before the classifier.
        transforms: Whether a dense layer, an activation and a norm come first, as in ModernBERT.
        use_crf: Whether a linear chain judges sequences of labels.
    """

    def __init__(
        self, config: TransformerConfig, num_labels: int, *, dropout: float, transforms: bool, use_crf: bool
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.head_bias) if transforms else None
        self.activate = ACTIVATIONS[config.head_activation].new if transforms else None
        self.norm = nn.LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias) if transforms else None
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        self.crf = LinearChain(num_labels) if use_crf else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return scores, (B, T, L), of hidden states, (B, T, D)."""
        if self.dense is not None and self.activate is not None and self.norm is not None:
            hidden = self.norm(self.activate(self.dense(hidden)))
        scores: Tensor = self.classifier(self.dropout(hidden))
        return scores


class TokenClassificationModel(PretrainedModel):
    """Label tokens: a backbone, dropout and a linear layer; perhaps a linear chain on top.

    :meth:`from_pretrained` takes checkpoints of token classifiers, and of encoders with or without another head: then
    the classifier starts with random weights, which one warning says. ``id2label``, ``label2id`` or ``num_labels`` may
    be passed to it; without any the checkpoint's hold, or there are two labels.

    With a linear chain (``use_crf=True``) the loss is the mean negative log-likelihood of a token in the chain of
    labelled tokens. Out of training ``logits`` are then the log-probabilities of each token's label given all others,
    so that they are read as those of any other tagger; :meth:`decode` finds the likeliest sequence.

    Args:
        config: Which transformer.
        hf_config: The ``config.json`` it was read from; its keys are written again.
        attn_implementation: ``"sdpa"`` or ``"eager"``.
        id2label: Names of labels by their numbers, which may be texts; else those of ``hf_config``.
        label2id: The reverse.
        num_labels: How many, if they have no names.
        class_weights: What the loss of each label is multiplied with; not saved.
        use_crf: Whether there is a linear chain; None: what ``hf_config`` says, else there is none.
        crf_links: Which tokens of a text the chain learns and judges, as its training data is labelled: ``"first"`` for
            the first token of each word, ``"all"`` for all but special ones; None: what ``hf_config`` says, else
            ``"all"``. A pipeline uses the chain accordingly.

    Raises:
        ConfigError: If the labels of ``hf_config`` contradict each other, or its ``use_crf`` or ``crf_links`` is
            unknown.
        TypeError: If ``use_crf`` is no bool.
        ValueError: If the given labels do, there is not a positive weight for each, there are weights and a chain, or
            ``crf_links`` is unknown.
    """

    has_head = True
    head_may_be_new = True

    def __init__(  # house: peer signature
        self,
        config: TransformerConfig,
        hf_config: Mapping[str, Any],
        *,
        attn_implementation: str = "sdpa",
        id2label: Mapping[Any, str] | Sequence[str] | None = None,
        label2id: Mapping[str, Any] | None = None,
        num_labels: int | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        use_crf: bool | None = None,
        crf_links: str | None = None,
    ) -> None:
        super().__init__(config, hf_config, attn_implementation=attn_implementation)
        given = any(value is not None for value in (id2label, label2id, num_labels))
        self.id2label, self.label2id = (
            label_maps(id2label, label2id, num_labels=num_labels) if given else _labels_of(self.hf_config)
        )
        names = {str(number): name for number, name in self.id2label.items()}
        chain = self.hf_config.get(USE_CRF, False) if use_crf is None else use_crf
        if not isinstance(chain, bool):
            told = f"{USE_CRF} must be true or false, got {chain!r:.80}"
            raise ConfigError(told, field=USE_CRF) if use_crf is None else TypeError(told)
        self.crf_links = _links(self.hf_config, crf_links)
        replaced = ("num_labels", USE_CRF, CRF_LINKS)
        self.hf_config = {key: value for key, value in self.hf_config.items() if key not in replaced}
        self.hf_config |= {"id2label": names, "label2id": self.label2id}
        if chain:
            self.hf_config |= {USE_CRF: True, CRF_LINKS: self.crf_links}
        tagger_config = TaggerConfig.of(config, self.id2label, self.label2id)
        self.config = replace(tagger_config, published=self.hf_config)
        self.head = TokenClassificationHead(
            config,
            self.num_labels,
            dropout=_dropout(self.family, config, self.hf_config),
            transforms=any(ours.startswith("head.dense.") for _, ours in self.family.tagger_rows),
            use_crf=chain,
        )
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32, device="cpu")
        if weights is not None and (weights.shape != (self.num_labels,) or not bool((weights > 0).all())):
            raise ValueError(f"class_weights must be {self.num_labels} positive numbers, got {class_weights!r:.200}")
        if weights is not None and chain:
            raise ValueError("class_weights do not go with use_crf: a chain judges sequences, not single labels")
        self.class_weights = weights

    @classmethod
    def head_rows(cls, family: Family) -> Rows:
        """Return the names of the head's tensors: pairs of the family's and ours."""
        return family.tagger_rows + _CHAIN_ROWS

    @property
    def architecture(self) -> str:
        """What transformers calls this model."""
        return self.family.tagger_architecture

    @property
    def unsmoothed(self) -> str | None:
        """What keeps a trainer from smoothing the labels of the loss: the part of it that would be lost; None if none.

        ``label_smoothing_factor`` replaces the loss of a model by a smoothed one of its logits.
        """
        return "use_crf" if self.head.crf is not None else None if self.class_weights is None else "class_weights"

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return len(self.id2label)

    @classmethod
    def from_backbone(
        cls,
        other: PretrainedModel,
        *,
        id2label: Mapping[Any, str] | Sequence[str],
        share: bool = True,
        class_weights: Sequence[float] | Tensor | None = None,
        use_crf: bool = False,
        crf_links: str | None = None,
    ) -> TokenClassificationModel:
        """Put a new classifier on the backbone of another model.

        Args:
            other: A model of the library, as ``encoder[0].auto_model`` of a sparse encoder.
            id2label: Names of labels by their numbers.
            share: Use the very backbone, so that both are in memory once and what trains one changes the other; False
                copies it.
            class_weights: As in the constructor.
            use_crf: As in the constructor.
            crf_links: As in the constructor.

        Raises:
            TypeError: If ``other`` is no model of the library.
            ValueError: If labels or weights are not as the constructor wants them.
        """
        if not isinstance(other, PretrainedModel):
            raise TypeError(
                "other must be a model of the library, as encoder[0].auto_model of a sparse encoder, "
                f"got {type(other).__name__}"
            )
        hf_config = {key: value for key, value in other.hf_config.items() if key != "architectures"}
        with torch.device("meta"):
            model = cls(
                other.config,
                hf_config,
                id2label=id2label,
                class_weights=class_weights,
                use_crf=use_crf,
                crf_links=crf_links,
            )
        model.head = model.head.to_empty(device=other.device).to(other.dtype)
        if share:
            model.backbone = other.backbone
        else:
            model.backbone = Transformer(other.config).to(device=other.device, dtype=other.dtype)
            model.backbone.load_state_dict(other.backbone.state_dict())
        model.mark_initialized(name for name, _ in model.named_parameters() if name.startswith("backbone."))
        model.init_weights()
        return model.train(other.training)

    def forward(  # house: peer signature
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        labels: Tensor | None = None,
        chain_mask: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> TokenClassifierOutput:
        r"""Score the labels of every token.

        The loss is the cross-entropy, a mean over labelled tokens (weighted by ``class_weights``); it is 0 with zero
        gradients, and not NaN, where no token is labelled.

        Args:
            input_ids: Token ids, (B, T).
            attention_mask: 1 for a token, 0 for padding, (B, T); None takes all for tokens.
            token_type_ids: As :meth:`Transformer.forward`.
            position_ids: As :meth:`Transformer.forward`.
            head_mask: As :meth:`Transformer.forward`.
            labels: Numbers of labels, (B, T); -100 for tokens without one.
            chain_mask: Tokens that the linear chain goes through, (B, T); None: those with labels, else all.
            num_items_in_batch: Labelled tokens of the whole update, that the sum over tokens is divided by in the place
                of those of this batch.

        Returns:
            ``logits``, (B, T, L), and ``loss``, a scalar, if there are labels.

        Raises:
            ValueError: If labels have another shape than ids, or are no number of a label.
        """
        attention_mask = self.mask_or_ones(input_ids, attention_mask)
        hidden = self.backbone(input_ids, attention_mask, token_type_ids, position_ids, head_mask)
        scores = self.head(hidden)
        chain = self.head.crf
        output = TokenClassifierOutput()
        if labels is not None:
            self._check_labels(labels, input_ids)
            output["loss"] = self._loss(scores, labels, num_items_in_batch)
        if chain is not None and not self.training:
            links = self._links(labels, chain_mask, attention_mask)
            scores = chain.log_marginals(scores, links)
        output["logits"] = scores
        return output

    def decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        chain_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> list[list[int]]:
        """Return the likeliest labels of the tokens, without dropout: as a sequence with a chain, else each alone.

        Args:
            input_ids: Token ids, (B, T).
            attention_mask: 1 for a token, 0 for padding, (B, T).
            chain_mask: Tokens that are labelled, (B, T); None: all that are no padding.
            token_type_ids: As :meth:`Transformer.forward`.
        """
        links = (attention_mask if chain_mask is None else chain_mask).bool()
        with torch.no_grad(), evaluating(self):
            scores: Tensor = self.head(self.backbone(input_ids, attention_mask, token_type_ids))
        if self.head.crf is not None:
            return self.head.crf.decode(scores, links)
        best = scores.argmax(dim=-1)
        return [row[mask].tolist() for row, mask in zip(best, links, strict=True)]

    def _links(self, labels: Tensor | None, chain_mask: Tensor | None, attention_mask: Tensor) -> Tensor:
        """Return which tokens the linear chain goes through."""
        if chain_mask is not None:
            return chain_mask
        return attention_mask if labels is None else labels != IGNORED

    def _check_labels(self, labels: Tensor, input_ids: Tensor) -> None:
        """Refuse labels that do not fit; on an accelerator, which must not wait, only by their shape."""
        if labels.shape != input_ids.shape:
            raise ValueError(
                f"labels must be (texts, tokens) as input_ids {tuple(input_ids.shape)}, got {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
        if labels.device.type == "cpu" and labels.numel():
            wrong = (labels != IGNORED) & ((labels < 0) | (labels >= self.num_labels))
            if bool(wrong.any()):
                text, token = wrong.nonzero()[0].tolist()
                raise ValueError(
                    f"a label must be {IGNORED} or a number between 0 and {self.num_labels - 1}, "
                    f"got {int(labels[text, token])} for token {token} of text {text}"
                )

    def _loss(self, scores: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
        labelled = labels != IGNORED
        if self.head.crf is not None:
            total = self.head.crf.negative_log_likelihood(scores, labels, labelled).sum()
            count = labelled.sum() if num_items is None else num_items
            return total / torch.as_tensor(count, device=total.device).clamp(min=1)
        weights = None if self.class_weights is None else self.class_weights.to(scores.device)
        flat, truth = scores.flatten(0, 1).float(), labels.flatten()
        total = F.cross_entropy(flat, truth, weight=weights, ignore_index=IGNORED, reduction="sum")
        if num_items is not None:
            return total / torch.as_tensor(num_items, device=total.device).clamp(min=1)
        if weights is None:
            return total / labelled.sum().clamp(min=1)
        mass = weights[labels.masked_fill(~labelled, 0)].masked_fill(~labelled, 0.0).sum()
        return total / torch.where(mass > 0, mass, torch.ones_like(mass))

    def _init_weights(self, module: nn.Module) -> None:
        """Draw one module's own parameters by the family's rule; a linear chain starts with all sequences alike."""
        super()._init_weights(module)
        if isinstance(module, LinearChain):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)


def _labels_of(hf_config: Mapping[str, Any]) -> tuple[dict[int, str], dict[str, int]]:
    """Read the labels of a configuration; two without names if it says nothing."""
    names, numbers, count = (hf_config.get(key) for key in ("id2label", "label2id", "num_labels"))
    try:
        missing = names is None and numbers is None and count is None
        return label_maps(names, numbers, num_labels=2 if missing else count)
    except (ValueError, TypeError) as reason:
        raise ConfigError(str(reason), field="id2label") from reason


def _links(hf_config: Mapping[str, Any], given: str | None) -> str:
    """Return which tokens a linear chain goes through."""
    value = hf_config.get(CRF_LINKS, "all") if given is None else given
    if value in get_args(Strategy):
        return str(value)
    told = f"{CRF_LINKS} must be one of {sorted(get_args(Strategy))}, got {value!r:.80}"
    raise ConfigError(told, field=CRF_LINKS) if given is None else ValueError(told)


def _dropout(family: Family, config: TransformerConfig, hf_config: Mapping[str, Any]) -> float:
    """Return the dropout before the classifier."""
    usual = config.attention_output_dropout
    if family.tagger_dropout_key is None:
        return usual
    default = usual if family.tagger_dropout is None else family.tagger_dropout
    if hf_config.get(family.tagger_dropout_key, default) is None:
        return usual
    reader = ConfigReader(hf_config)
    value = reader.real(family.tagger_dropout_key, default)
    if not 0 <= value < 1:
        raise reader.error(family.tagger_dropout_key, f"must be at least 0 and below 1, got {value}")
    return value
