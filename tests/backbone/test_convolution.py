"""A convolution over neighbouring tokens: torch's numbers, and no text that touches another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.backbone.config import FieldError
from sparse_encoder.backbone.convolution import Convolution, ConvolutionConfig

B, T, D = 3, 7, 12


def states(num_texts: int = B, num_tokens: int = T, width: int = D) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings, hidden = (torch.randn(num_texts, num_tokens, width, generator=generator) for _ in range(2))
    mask = (torch.arange(num_tokens) < torch.randint(1, num_tokens + 1, (num_texts, 1), generator=generator)).long()
    return embeddings, hidden, mask


def convolution(config: ConvolutionConfig, width: int = D) -> Convolution:
    torch.manual_seed(0)
    return Convolution(config, width, nn.LayerNorm(width)).eval()


@pytest.mark.parametrize(
    ("window", "groups", "activation"), [(1, 1, "tanh"), (3, 1, "gelu"), (5, 3, "tanh"), (9, 4, "relu")]
)
def test_numbers_are_those_of_torch(window: int, groups: int, activation: str) -> None:
    module = convolution(ConvolutionConfig(window=window, groups=groups, activation=activation))
    embeddings, hidden, mask = states()
    is_token = mask.bool().unsqueeze(-1)
    peer = nn.Conv1d(D, D, window, padding=window // 2, groups=groups)
    peer.load_state_dict(module.convolution.state_dict())
    local = peer(embeddings.masked_fill(~is_token, 0).mT).mT.masked_fill(~is_token, 0)
    activated = {"tanh": torch.tanh, "gelu": nn.functional.gelu, "relu": torch.relu}[activation](local)
    torch.testing.assert_close(module(embeddings, hidden, mask), module.norm(hidden + activated), rtol=0, atol=1e-5)


def test_padding_counts_as_nothing_whatever_stands_there() -> None:
    module = convolution(ConvolutionConfig(window=5))
    embeddings, hidden, mask = states()
    seen = mask.bool()
    other = embeddings.masked_fill(~seen.unsqueeze(-1), torch.nan)
    assert torch.equal(module(embeddings, hidden, mask)[seen], module(other, hidden, mask)[seen])
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = module(*(part[row : row + 1, :length] for part in (embeddings, hidden, mask)))
        torch.testing.assert_close(module(embeddings, hidden, mask)[row, :length], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("num_tokens", [16, 48])
def test_a_text_has_the_same_bits_in_every_batch(groups: int, num_tokens: int) -> None:
    module = convolution(ConvolutionConfig(window=3, groups=groups), width=64)
    batch = states(9, num_tokens, 64)
    with torch.no_grad():
        together = module(*batch)
        for size in (1, 2, 4):
            parts = zip(*(part.split(size) for part in batch), strict=True)
            assert torch.equal(torch.cat([module(*part) for part in parts]), together)


def test_dropout_in_training_only() -> None:
    module = convolution(ConvolutionConfig(dropout=0.5))
    assert torch.equal(module(*states()), module(*states()))
    module.train()
    assert not torch.equal(module(*states()), module(*states()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("window", 2), ("window", 0), ("window", 513), ("groups", 0), ("activation", "sharp"), ("dropout", 1.0)],
)
def test_a_value_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(FieldError, match=rf"^{field} must .* got '?{value}"):
        ConvolutionConfig(**{field: value})  # type: ignore[arg-type]
