"""The linear chain against all sequences counted out."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from sparse_encoder.token_classification.linear_chain import LinearChain

L = 3
MASKS = [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1]]


@pytest.fixture
def chain() -> LinearChain:
    generator = torch.Generator().manual_seed(3)
    chain = LinearChain(L)
    for parameter in chain.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return chain


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(len(MASKS), 4, L, generator=torch.Generator().manual_seed(4)) * 2


def every_sequence(chain: LinearChain, emitted: Tensor) -> dict[tuple[int, ...], float]:
    """Score all sequences of labels by the formula."""
    found = {}
    for labels in product(range(L), repeat=len(emitted)):
        total = float(chain.start[labels[0]] + chain.end[labels[-1]])
        total += sum(float(emitted[place, label]) for place, label in enumerate(labels))
        total += sum(float(chain.transitions[one, other]) for one, other in zip(labels, labels[1:], strict=False))
        found[labels] = total
    return found


def test_likelihood_marginals_and_the_best_sequence(chain: LinearChain, scores: Tensor) -> None:
    mask = torch.tensor(MASKS)
    labels = torch.tensor([[0, 1, 2, 0], [-100, 2, -100, 1], [0, 0, 1, 0], [-100] * 4, [2, -100, 0, 0]])
    with torch.no_grad():
        losses = chain.negative_log_likelihood(scores, labels, mask)
        marginals = chain.log_marginals(scores, mask).exp()
        paths = chain.decode(scores, mask)
        for row, links in enumerate(mask.bool()):
            assert torch.allclose(marginals[row][~links], scores[row].softmax(-1)[~links], atol=1e-6)
            if not links.any():
                assert losses[row] == 0
                assert paths[row] == []
                continue
            weights = every_sequence(chain, scores[row][links])
            total = torch.logsumexp(torch.tensor(list(weights.values())), 0)
            own = weights[tuple(labels[row][links].tolist())]
            assert losses[row] == pytest.approx(float(total - own), abs=1e-5)
            assert tuple(paths[row]) == max(weights, key=weights.__getitem__)
            expected = torch.zeros(int(links.sum()), L)
            for sequence, weight in weights.items():
                for place, label in enumerate(sequence):
                    expected[place, label] += float((weight - total).exp())
            assert torch.allclose(marginals[row][links], expected, atol=1e-5)


def test_the_gradient_is_that_of_marginals(chain: LinearChain, scores: Tensor) -> None:
    scores = scores.requires_grad_()
    mask = torch.tensor(MASKS)
    labels = torch.ones(len(MASKS), 4, dtype=torch.long)
    chain.negative_log_likelihood(scores, labels, mask).sum().backward()
    expected = chain.log_marginals(scores.detach(), mask).exp().detach() - torch.eye(L)[1]
    assert scores.grad is not None
    assert torch.allclose(scores.grad, expected * mask[..., None], atol=1e-5)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in chain.parameters())


def test_padding_changes_nothing(chain: LinearChain, scores: Tensor) -> None:
    mask = torch.tensor(MASKS)
    alone = chain.log_marginals(scores[4:5], mask[4:5])
    padded = chain.log_marginals(
        torch.cat([scores, torch.full((5, 2, L), 9.0)], 1), torch.nn.functional.pad(mask, (0, 2))
    )
    assert torch.allclose(padded[4:5, :4], alone, atol=1e-6)
