from __future__ import annotations

import pytest
import torch

from sparse_encoder.modules import Features, VocabularyProjection


def test_logits_appear_when_they_are_asked_for_and_are_not_kept() -> None:
    projection = VocabularyProjection(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0, 4.0]]), torch.tensor([0.5]))
    features = Features({"vocabulary_projection": projection})
    assert features["token_embeddings"].tolist() == [[[11.5]]]
    assert list(features) == ["vocabulary_projection"]
    features["token_embeddings"] = torch.zeros(1)
    assert features["token_embeddings"].tolist() == [0.0]


def test_other_names_and_features_without_a_projection_are_missing() -> None:
    with pytest.raises(KeyError, match="token_embeddings"):
        Features()["token_embeddings"]
    with pytest.raises(KeyError, match="input_ids"):
        Features({"vocabulary_projection": None})["input_ids"]
