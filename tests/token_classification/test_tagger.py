"""The model: its labels, its loss, its linear chain, its shared backbone, its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from token_classification_helpers import LABELS, config, tagger
from torch.nn import functional as F

from sparse_encoder.backbone import EncoderModel
from sparse_encoder.checkpoint import CheckpointError, ConfigError
from sparse_encoder.token_classification import TokenClassificationModel

IDS = torch.tensor([[2, 4, 5, 6, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TRUTH = torch.tensor([[-100, 1, 2, -100, -100], [-100, 3, -100, -100, -100]])


def test_labels_are_kept_in_one_form(tmp_path: Path) -> None:
    model = TokenClassificationModel.from_config(
        {**config(), "id2label": {"0": "O", "1": "B-X"}, "label2id": {"O": "0", "B-X": "1"}}
    )
    assert (model.id2label, model.label2id, model.num_labels) == ({0: "O", 1: "B-X"}, {"O": 0, "B-X": 1}, 2)
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["id2label"] == {"0": "O", "1": "B-X"}
    assert written["label2id"] == {"O": 0, "B-X": 1}
    assert "num_labels" not in written
    assert written["architectures"] == ["BertForTokenClassification"]
    again = TokenClassificationModel.from_pretrained(tmp_path)
    assert again.id2label == model.id2label
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), model.parameters(), strict=True))


def test_two_labels_without_names_are_the_default() -> None:
    assert TokenClassificationModel.from_config(config()).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert TokenClassificationModel.from_config({**config(), "num_labels": 3}).num_labels == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id2label": ["O", "B-X"], "num_labels": 3}, "num_labels must be the number of labels, 2, got 3"),
        ({"id2label": ["O", "B-X"], "label2id": {"O": 1, "B-X": 0}}, "must be the reverse"),
        ({"id2label": ["O"], "class_weights": [1.0, 2.0]}, "class_weights must be 1 positive numbers"),
        ({"id2label": ["O"], "class_weights": [-1.0]}, "class_weights must be 1 positive"),
        ({"id2label": ["O"], "class_weights": [float("nan")]}, "class_weights must be 1 positive"),
    ],
)
def test_labels_that_contradict_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    tagger().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        TokenClassificationModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **options)


def test_labels_of_a_damaged_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="id2label"):
        TokenClassificationModel.from_config({**config(), "id2label": {"1": "O"}})
    with pytest.raises(ConfigError, match="must be at least 0 and below 1"):
        TokenClassificationModel.from_config({**config(), "classifier_dropout": 1.5})


def test_another_number_of_labels_is_refused_or_starts_anew(tmp_path: Path) -> None:
    tagger().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="classifier.weight is"):
        TokenClassificationModel.from_pretrained(tmp_path, id2label=["O", "B-X"])
    with pytest.warns(UserWarning, match="of another shape"):
        model = TokenClassificationModel.from_pretrained(tmp_path, id2label=["O", "B-X"], ignore_mismatched_sizes=True)
    assert model.head.classifier.weight.shape == (2, 12)


def test_half_a_classifier_is_refused(tmp_path: Path) -> None:
    model = tagger()
    tensors = model.state_dict()
    del tensors["head.classifier.bias"]
    model.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(CheckpointError, match="1 missing tensor: classifier.bias"):
        TokenClassificationModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 1.0, 3.0]])
def test_the_loss_is_the_mean_over_labelled_tokens(weights: list[float] | None) -> None:
    model = tagger(class_weights=weights)
    output = model(IDS, MASK, labels=TRUTH)
    wanted = F.cross_entropy(
        output.logits.flatten(0, 1), TRUTH.flatten(), weight=None if weights is None else torch.tensor(weights)
    )
    torch.testing.assert_close(output.loss, wanted)
    total = model(IDS, MASK, labels=TRUTH, num_items_in_batch=6).loss * 6
    torch.testing.assert_close(total, wanted * (3 if weights is None else 2 + 0.5 + 1))


@pytest.mark.parametrize("options", [{}, {"class_weights": [1.0] * 5}, {"use_crf": True}])
def test_no_label_at_all_is_no_loss_and_no_gradient(options: dict[str, Any]) -> None:
    model = tagger(**options).train()
    loss = model(IDS, MASK, labels=torch.full_like(TRUTH, -100)).loss
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_without_labels_there_is_no_loss() -> None:
    output = tagger()(IDS, MASK)
    assert output.loss is None
    assert list(output) == ["logits"]
    with pytest.raises(AttributeError, match="there is no 'states'"):
        _ = output.states


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([[0, 0, 0, 0, 0], [0, 5, 0, 0, 0]]), "between 0 and 4, got 5 for token 1 of text 1"),
        (torch.tensor([[0, 0, 0, 0, 0], [0, -1, 0, 0, 0]]), "got -1 for token 1 of text 1"),
        (torch.zeros(2, 4, dtype=torch.long), r"as input_ids \(2, 5\), got \(2, 4\)"),
    ],
)
def test_bad_labels_are_named(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tagger()(IDS, MASK, labels=labels)


def test_a_mask_that_is_left_out_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = tagger()
    torch.testing.assert_close(model(IDS[:1]).logits, model(IDS[:1], MASK[:1]).logits)
    assert not caplog.records
    model(IDS)
    assert len(caplog.records) == 1


def test_the_chain_learns_and_its_scores_are_probabilities(tmp_path: Path) -> None:
    model = tagger(use_crf=True).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(IDS, MASK, labels=TRUTH).loss
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
    model.eval()
    with torch.no_grad():
        logits = model(IDS, MASK, labels=TRUTH).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 5))
    assert logits.argmax(-1)[TRUTH != -100].tolist() == [1, 2, 3]
    assert model.decode(IDS, MASK, chain_mask=TRUTH != -100) == [[1, 2], [3]]
    model.save_pretrained(tmp_path)
    again = TokenClassificationModel.from_pretrained(tmp_path)
    torch.testing.assert_close(again(IDS, MASK, chain_mask=TRUTH != -100).logits, logits)
    assert tagger().decode(IDS, MASK) == [
        row[mask.bool()].tolist() for row, mask in zip(tagger()(IDS, MASK).logits.argmax(-1), MASK, strict=True)
    ]


def test_one_backbone_serves_two_models() -> None:
    encoder = EncoderModel.from_config(config())
    shared = TokenClassificationModel.from_backbone(encoder, id2label=LABELS)
    assert shared.backbone is encoder.backbone
    assert 0.1 < float(shared.head.classifier.weight.detach().std()) < 0.5
    before = encoder(IDS, MASK)
    shared(IDS, MASK, labels=TRUTH).loss.backward()
    with torch.no_grad():
        for parameter in shared.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    assert not torch.equal(before, encoder(IDS, MASK))
    copied = TokenClassificationModel.from_backbone(encoder, id2label=LABELS, share=False)
    torch.testing.assert_close(copied.backbone(IDS, MASK), encoder.backbone(IDS, MASK))
    assert copied.backbone is not encoder.backbone


def test_the_shared_backbone_may_be_frozen() -> None:
    encoder = EncoderModel.from_config(config())
    model = TokenClassificationModel.from_backbone(encoder, id2label=LABELS)
    model.backbone.requires_grad_(False)
    model(IDS, MASK, labels=TRUTH).loss.backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert model.head.classifier.weight.grad is not None
