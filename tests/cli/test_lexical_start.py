from __future__ import annotations

from math import exp, log1p, sqrt

import pytest
import torch
from torch import Tensor

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.cli.lexical_start import LexicalStart, start_lexically
from sparse_encoder.kernels import max_projection

VOCABULARY, SIZE, HEADS = 19, 66, 2
PAD, CLS, SEP = 0, 1, 2
EXACT = LexicalStart(mean_length=10.0, constant=1e5, noise=0.0)
"""No random layers, and constants that no sum can move: the formulas then hold as they are written."""


def bert(**changes: object) -> MaskedLanguageModel:
    config: dict[str, object] = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
    }
    return MaskedLanguageModel.from_config({**config, **changes}, dtype=torch.float64).eval()


def orthogonal_directions() -> Tensor:
    """Directions of terms whose slices are orthogonal in each head and have no mean, (V, D)."""
    num_axes = SIZE // HEADS - 3  # without those of the constants and of [CLS]
    drawn = torch.randn(num_axes, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.linalg.qr(drawn - drawn.mean(dim=0)).Q.mT  # (V, num_axes)
    return torch.nn.functional.pad(basis, (3, 0)).repeat(1, HEADS)


@pytest.fixture(scope="module")
def rarity() -> Tensor:
    return torch.linspace(0.5, 7.0, VOCABULARY, dtype=torch.float64)


@pytest.fixture(scope="module")
def exact(rarity: Tensor) -> MaskedLanguageModel:
    torch.manual_seed(0)
    model = bert()
    start_lexically(model, rarity, orthogonal_directions(), cls_id=CLS, special_ids=[PAD, CLS, SEP], start=EXACT)
    return model


def weights(model: MaskedLanguageModel, ids: list[int], padding: int = 0) -> Tensor:
    """Term weights of one text as SPLADE has them, (V,)."""
    row = torch.tensor([[CLS, *ids, SEP, *[PAD] * padding]])
    mask = torch.tensor([[1] * (len(ids) + 2) + [0] * padding])
    with torch.no_grad():
        hidden = model.head.transform(model.backbone(row, mask))
        logits = max_projection(hidden, model.head.weight, model.head.bias, mask)
    return logits[0].relu().log1p()


def expected_weight(rarity: float, count: int, length: int) -> float:
    """The formulas of the module docstring, in numbers."""
    k1, b = EXACT.k1, EXACT.b
    others = length - count - 1  # all but the copies and [CLS]
    share = count / (count + k1 * (1 - b) + k1 * b / EXACT.mean_length * others)
    norm = (exp(EXACT.strength * sqrt(rarity)) - 1) / (1 + EXACT.gain / 2 - EXACT.threshold)
    return log1p(max(0.0, norm * (1 + EXACT.gain * share - EXACT.threshold)))


@pytest.mark.parametrize(
    ("ids", "term", "count"),
    [([5], 5, 1), ([5, 9, 5], 5, 2), ([5, 9, 5], 9, 1), ([7, 8, 9, 10, 11, 7, 12, 7, 13], 7, 3)],
)
def test_weights_follow_the_formula(
    exact: MaskedLanguageModel, rarity: Tensor, ids: list[int], term: int, count: int
) -> None:
    weight = float(weights(exact, ids)[term])
    assert weight == pytest.approx(
        expected_weight(float(rarity[term]), count, len(ids) + 2), rel=5e-3
    )  # GELU is not quite straight


def test_only_the_terms_of_a_text_are_active(exact: MaskedLanguageModel) -> None:
    assert weights(exact, [4, 17, 9]).nonzero().flatten().tolist() == [4, 9, 17]


def test_the_share_is_the_saturation_of_bm25() -> None:
    """Of a text of L tokens besides the copies."""
    start = EXACT
    saturation = start.k1 * (1 - start.b + start.b)
    copies, sink, others = exp(start.copy_score), exp(start.sink_score), start.mean_length
    assert copies * 3 / (copies * 3 + sink + others) == pytest.approx(3 / (3 + saturation))


def test_padding_changes_nothing(exact: MaskedLanguageModel) -> None:
    torch.testing.assert_close(weights(exact, [4, 17, 9]), weights(exact, [4, 17, 9], padding=5))


def test_directions_that_are_near_make_each_other_active(rarity: Tensor) -> None:
    directions = orthogonal_directions()
    directions[6] = 0.8 * directions[5] + 0.6 * directions[6]
    model = bert()
    start_lexically(model, rarity, directions, cls_id=CLS, special_ids=[PAD, CLS, SEP], start=EXACT)
    found = weights(model, [5])
    assert found.nonzero().flatten().tolist() == [5, 6]
    assert found[6] < found[5]


def test_every_parameter_can_be_trained(rarity: Tensor) -> None:
    torch.manual_seed(0)
    model = bert()
    start = LexicalStart(mean_length=10.0)
    start_lexically(model, rarity, orthogonal_directions(), cls_id=CLS, special_ids=[PAD, CLS, SEP], start=start)
    ids = torch.tensor([[CLS, 5, 9, 5, 14, SEP]])
    hidden = model.head.transform(model.backbone(ids, torch.ones_like(ids)))
    assert model.head.bias is not None
    max_projection(hidden, model.head.weight, model.head.bias, torch.ones_like(ids)).relu().sum().backward()
    unmoved = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert unmoved == []


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="b between 0 and 1"):
        LexicalStart(b=1.0)
    with pytest.raises(ValueError, match="threshold must be between 0 and 3.0, got 3.5"):
        LexicalStart(threshold=3.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "electra", "architectures": ["ElectraForMaskedLM"]}, "must be a BERT with tied"),
        ({"tie_word_embeddings": False}, "must be a BERT with tied embeddings"),
        ({"num_attention_heads": 11}, "at least 8 dimensions, got 6"),
    ],
)
def test_models_of_another_build_are_refused(rarity: Tensor, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start_lexically(
            bert(**changes), rarity, orthogonal_directions(), cls_id=CLS, special_ids=[PAD, CLS, SEP], start=EXACT
        )
