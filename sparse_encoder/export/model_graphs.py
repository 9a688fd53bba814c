"""Describe the graphs of models that take texts at once: encoders, masked-language models, taggers.

Axes: B texts, T tokens, D hidden size, V vocabulary, L labels.
"""

from __future__ import annotations

import json

from torch import Tensor, nn

from sparse_encoder.backbone import MaskedLanguageModel, PretrainedModel
from sparse_encoder.checkpoint.graph_names import LONGEST
from sparse_encoder.export.batches import example_length, text_batch, text_cases, vocabulary_of, with_types
from sparse_encoder.export.graph import Axes, Graph, Tensors
from sparse_encoder.export.metadata import metadata_of
from sparse_encoder.token_classification import TokenClassificationModel


class HiddenStates(nn.Module):
    """Return the states of the last layer, (B, T, D), of any model."""

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Run the backbone."""
        states: Tensor = self.backbone(input_ids, attention_mask, token_type_ids)
        return states


class TokenScores(nn.Module):
    """Return what the head makes of each token, (B, T, V) or (B, T, L); of a tagger the scores before its chain."""

    def __init__(self, model: MaskedLanguageModel | TokenClassificationModel) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Run backbone and head."""
        scores: Tensor = self.head(self.backbone(input_ids, attention_mask, token_type_ids))
        return scores


def text_graph(model: PretrainedModel, task: str, *, inputs: Axes, outputs: Axes) -> Graph:
    """Describe the graph of a model.

    Args:
        model: The model.
        task: ``default`` and ``feature-extraction`` give hidden states, others what the head makes of tokens.
        inputs: Its inputs and their axes, in order.
        outputs: Its one output and its axes.
    """
    config = model.config
    module: nn.Module
    if task in ("default", "feature-extraction"):
        module = HiddenStates(model)
    else:
        assert isinstance(model, (MaskedLanguageModel, TokenClassificationModel))
        module = TokenScores(model)
    length, types = example_length(config), config.num_token_types if "token_type_ids" in inputs else 0
    example = text_batch((2, length), vocabulary_of(config), padding=[length // 2])
    if types:
        example["token_type_ids"] = with_types(example["input_ids"], types)
    if unknown := [name for name in inputs if name not in example]:
        kind = config.published.get("model_type", "this")
        raise ValueError(f"a graph of a {kind} model has the inputs {list(example)}, the configuration names {unknown}")
    (output,) = outputs

    def reference(values: Tensors) -> Tensors:
        return {output: _by_the_model(model, task, values)}

    return Graph(
        module=module,
        reference=reference,
        inputs=inputs,
        outputs=outputs,
        example={name: example[name] for name in inputs},
        cases=text_cases(vocabulary_of(config), config.max_tokens, num_token_types=types),
        metadata=metadata_of(task, {LONGEST: config.max_tokens, **_labels(model, task)}),
    )


def _by_the_model(model: PretrainedModel, task: str, values: Tensors) -> Tensor:
    """Compute the output by the model itself."""
    if isinstance(model, TokenClassificationModel) and task == "token-classification":
        if model.head.crf is None:
            logits: Tensor = model(**values)["logits"]
            return logits
        scores: Tensor = model.head(model.backbone(**values))
        return scores
    is_headless = task in ("default", "feature-extraction")
    result: Tensor = (model.backbone if is_headless else model)(**values)
    return result


def _labels(model: PretrainedModel, task: str) -> dict[str, object]:
    """Return what a tagger's graph says of its labels: their names, and the chain that judges sequences of them."""
    if not isinstance(model, TokenClassificationModel) or task != "token-classification":
        return {}
    facts: dict[str, object] = {"id2label": json.dumps(model.id2label, ensure_ascii=False)}
    chain = model.head.crf
    if chain is not None:
        parts = {name: getattr(chain, name).detach().float().tolist() for name in ("start", "transitions", "end")}
        facts |= {"crf": json.dumps(parts), "crf_links": model.crf_links}
    return facts
