"""Taggers against those of transformers: weights, scores, losses, gradients, files, for every family."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.token_classification import TokenClassificationModel

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 23,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 40,
    "num_labels": 5,
    "pad_token_id": 1,
    "attn_implementation": "eager",
}
CLASSES: dict[str, dict[str, Any]] = {
    "Albert": {"embedding_size": 8, "num_hidden_groups": 1},
    "Bert": {},
    "Camembert": {},
    "DebertaV2": {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "DistilBert": {"dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 20},
    "Electra": {"embedding_size": 8},
    "Gte": {"type_vocab_size": 0},
    "MPNet": {},
    "ModernBert": {"global_attn_every_n_layers": 2, "local_attention": 4, "attn_implementation": "sdpa"},
    "NomicBert": {"type_vocab_size": 2},
    "Roberta": {},
    "XLMRoberta": {},
}


def peer_of(name: str, head: str = "TokenClassification", **values: Any) -> Any:  # noqa: ANN401 - a model of transformers
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **CLASSES[name], **values})
    model = getattr(transformers, f"{name}For{head}")(config).eval()
    for parameter in model.parameters():  # biases too
        parameter.data.normal_(0.0, 0.3)
    return model


def a_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(2, 23, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    ids[1, 4:] = 1
    labels = torch.randint(0, 5, (3, 7), generator=generator)
    labels[:, 0] = -100
    labels[mask == 0] = -100
    return ids, mask, labels


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_scores_loss_and_gradients(name: str, tmp_path: Path) -> None:
    peer = peer_of(name)
    peer.save_pretrained(tmp_path)
    model = TokenClassificationModel.from_pretrained(tmp_path, dtype="float64")
    peer = peer.double()
    ids, mask, labels = a_batch()
    wanted = peer(input_ids=ids, attention_mask=mask, labels=labels)
    found = model(ids, mask, labels=labels)
    tolerance = 1e-5 if name in {"Gte", "ModernBert", "NomicBert"} else 1e-10  # transformers turns by float32 angles
    kept = mask.bool()
    torch.testing.assert_close(found.logits[kept], wanted.logits[kept], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found["loss"], wanted.loss.float(), atol=1e-6, rtol=1e-6)
    wanted.loss.backward()
    found["loss"].backward()
    named = dict(peer.named_parameters())
    torch.testing.assert_close(model.head.classifier.weight.grad, named["classifier.weight"].grad, atol=1e-6, rtol=1e-5)
    assert model.num_labels == 5
    assert model.architecture == type(peer).__name__


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_what_is_saved_here_loads_there(name: str, tmp_path: Path) -> None:
    peer = peer_of(name)
    peer.save_pretrained(tmp_path / "peer")
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    TokenClassificationModel.from_pretrained(tmp_path / "peer", id2label=labels).save_pretrained(tmp_path / "ours")
    again, info = type(peer).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.config.id2label == dict(enumerate(labels))
    assert again.config.label2id == {label: number for number, label in enumerate(labels)}
    for key, value in peer.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("kind", [EncoderModel, MaskedLanguageModel])
def test_a_checkpoint_without_a_classifier_starts_one(name: str, kind: type, tmp_path: Path) -> None:
    peer_of(name, "MaskedLM").save_pretrained(tmp_path / "peer")
    kind.from_pretrained(tmp_path / "peer").save_pretrained(tmp_path / "ours")  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="missing: classifier.bias, classifier.weight.*train them"):
        model = TokenClassificationModel.from_pretrained(tmp_path / "ours", id2label=["O", "B-X"])
    report = model.load_report
    assert report is not None
    expected = {"classifier.weight", "classifier.bias"}
    if name == "ModernBert" and kind is EncoderModel:
        expected |= {"head.dense.weight", "head.norm.weight"}
    assert set(report.missing) == expected
    assert torch.count_nonzero(model.head.classifier.bias) == 0
    assert 0.001 < float(model.head.classifier.weight.detach().std()) < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(transformers, f"{name}ForTokenClassification").from_pretrained(tmp_path / "ours", num_labels=2)
    backbone = dict(theirs.base_model.named_parameters())
    ids, mask, _ = a_batch()
    found = model.backbone(ids, mask)[mask.bool()]
    wanted = theirs.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert backbone


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("values", [{}, {"classifier_dropout": 0.3, "classifier_dropout_prob": 0.4}])
def test_dropout_is_that_of_transformers(name: str, values: dict[str, float], tmp_path: Path) -> None:
    peer = peer_of(name, **values)
    peer.save_pretrained(tmp_path)
    model = TokenClassificationModel.from_pretrained(tmp_path)
    dropout = getattr(peer, "dropout", None) or peer.drop
    assert model.head.dropout.p == dropout.p
