"""Metrics on models of transformers: what reaches the metric is what the model says when it is asked directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sparse_encoder.training.events.metric import MetricCallback

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 17, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 14}
IDS = torch.randint(3, 17, (5, 4), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[1, 2:] = 0
Columns = dict[str, Any]


class Kept:
    def __call__(self, predictions: Any, labels: Any) -> dict[str, float]:  # noqa: ANN401
        self.predictions, self.labels = predictions, labels
        return {"rows": len(labels)}


def metric_of(model: Any, data: Columns, **options: Any) -> Kept:  # noqa: ANN401
    kept = Kept()
    assert MetricCallback(kept, data, **{"batch_size": 2, **options}).compute(model) == {"eval_rows": 5}
    return kept


def test_logits_of_a_classifier() -> None:
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, num_labels=3))
    labels = torch.tensor([0, 1, 2, 1, 0])
    kept = metric_of(model, {"input_ids": IDS, "attention_mask": MASK, "labels": labels, "idx": labels + 7})
    with torch.no_grad():
        expected = model.eval()(input_ids=IDS, attention_mask=MASK).logits
    np.testing.assert_allclose(kept.predictions, expected.numpy(), atol=1e-6)
    assert kept.labels.tolist() == labels.tolist()
    metric = MetricCallback(
        kept, {"input_ids": IDS, "attention_mask": MASK, "labels": labels}, ["hidden_states"], batch_size=5
    )
    model.config.output_hidden_states = True
    with pytest.raises(ValueError, match=r"output_cols \['hidden_states'\] are no tensors"):
        metric.compute(model)


@pytest.mark.parametrize("kind", ["decoder", "encoder and decoder"])
def test_generations(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "decoder":
        config = transformers.GPT2Config(
            vocab_size=17,
            n_embd=12,
            n_layer=1,
            n_head=2,
            n_positions=32,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        sizes = {"vocab_size": 17, "d_model": 12, "d_kv": 6, "d_ff": 14, "num_layers": 1, "num_heads": 2}
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))
    labels = [[5, 6], [7], [8, 9, 10], [3], [4]]
    data = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": labels}
    options = {"max_new_tokens": 6, "do_sample": False}
    kept = metric_of(model, data, predict_with_generate=True, generate_kwargs=options)
    assert model.training
    model.eval()
    for row, ids in enumerate(IDS):
        alone = model.generate(ids[None], attention_mask=torch.ones_like(ids[None]), **options)[0]
        assert kept.predictions[row][: len(alone)].tolist() == alone.tolist()
        assert set(kept.predictions[row][len(alone) :].tolist()) <= {0}
    assert kept.labels.tolist() == [[5, 6, -100], [7, -100, -100], [8, 9, 10], [3, -100, -100], [4, -100, -100]]
    if kind != "decoder":  # it needs the labels for its forward
        logits = metric_of(model, data, output_cols=["logits"]).predictions
        assert logits.shape == (5, 3, 17) and (logits[4:, 1:] == -100).all()
