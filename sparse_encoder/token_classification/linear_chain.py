"""A linear-chain conditional random field: labels of neighbours judge each other. Tensor maths only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Chains(NamedTuple):
    """Chains of tokens, without what lies between them."""

    scores: Tensor
    """Of each label at each link, (B, S, L) float32; those behind a chain's end mean nothing."""
    lengths: Tensor
    """Links of each chain, (B,)."""
    places: Tensor
    """Which token each link is, (B, S)."""


def chains_of(scores: Tensor, mask: Tensor) -> Chains:
    """Take the tokens of the mask together.

    Args:
        scores: Of each label at each token, (B, T, L).
        mask: Tokens that are links, (B, T).
    """
    mask = mask.bool()
    lengths = mask.sum(dim=1)
    size = max(1, mask.shape[1])
    if mask.device.type == "cpu" and mask.numel():  # an accelerator would have to wait for the number
        size = max(1, int(lengths.max()))
    places = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, :size]  # (B, S): links first
    return Chains(scores.gather(1, places[..., None].expand(-1, -1, scores.shape[-1])).float(), lengths, places)


class LinearChain(nn.Module):
    r"""Score label sequences.

    .. math:: s(y) = b_{y_1} + \sum_i e_{i, y_i} + \sum_i A_{y_i, y_{i+1}} + c_{y_n}, \quad p(y) \propto \exp s(y)

    Source: Lafferty et al., 2001, Conditional random fields; Lample et al., 2016, https://arxiv.org/abs/1603.01360.

    Args:
        num_labels: Labels, L.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(num_labels))
        self.transitions = nn.Parameter(torch.zeros(num_labels, num_labels))
        """From the label of the row to that of the column."""
        self.end = nn.Parameter(torch.zeros(num_labels))

    def negative_log_likelihood(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        r"""Return :math:`-\log p(y)` of each chain, (B,) float32; 0 for a chain without links.

        Args:
            scores: Of each label at each token, (B, T, L).
            labels: Of each token, (B, T); those outside the mask are not read.
            mask: Tokens that are links, (B, T).
        """
        chains = chains_of(scores, mask)
        truth = labels.gather(1, chains.places)
        linked = self._linked(chains)
        truth = truth.masked_fill(~linked, 0)
        emitted = chains.scores.gather(2, truth[..., None]).squeeze(-1)  # (B, S)
        passed = self.transitions.float()[truth[:, :-1], truth[:, 1:]]  # (B, S - 1)
        last = truth.gather(1, (chains.lengths - 1).clamp(min=0)[:, None]).squeeze(1)
        own = (
            self.start.float()[truth[:, 0]]
            + (emitted * linked).sum(dim=1)
            + (passed * linked[:, 1:]).sum(dim=1)
            + self.end.float()[last]
        )
        total = torch.logsumexp(self._forward_scores(chains)[-1] + self.end.float(), dim=-1)
        return torch.where(chains.lengths > 0, total - own, (total - own) * 0)

    def log_marginals(self, scores: Tensor, mask: Tensor) -> Tensor:
        r"""Return :math:`\log p(y_i = l)` of each link, and the log-softmax of the scores elsewhere, (B, T, L) float32.

        Args:
            scores: Of each label at each token, (B, T, L).
            mask: Tokens that are links, (B, T).
        """
        chains = chains_of(scores, mask)
        alphas = self._forward_scores(chains)
        beta = self.end.float().expand(scores.shape[0], -1)
        linked = self._linked(chains)
        found = []
        for place in range(chains.scores.shape[1] - 1, -1, -1):
            found.append((alphas[place] + beta).log_softmax(dim=-1))
            if place:
                back = self.transitions.float() + (chains.scores[:, place] + beta)[:, None, :]  # (B, L, L)
                beta = torch.where(linked[:, place, None], torch.logsumexp(back, dim=-1), beta)
        marginals = torch.stack(found[::-1], dim=1)
        result = scores.float().log_softmax(dim=-1)
        places = chains.places[..., None].expand_as(marginals)
        kept = torch.where(linked[..., None], marginals, result.gather(1, places))
        return result.scatter(1, places, kept)

    @torch.no_grad()
    def decode(self, scores: Tensor, mask: Tensor) -> list[list[int]]:
        """Return the likeliest labels of each chain's links.

        Args:
            scores: Of each label at each token, (B, T, L).
            mask: Tokens that are links, (B, T).
        """
        chains = chains_of(scores, mask)
        best = self.start.float() + chains.scores[:, 0]
        origins: list[Tensor] = []
        linked = self._linked(chains)
        for place in range(1, chains.scores.shape[1]):
            values, origin = (best[:, :, None] + self.transitions.float()).max(dim=1)  # from any to each
            best = torch.where(linked[:, place, None], values + chains.scores[:, place], best)
            origins.append(origin)
        label = (best + self.end.float()).argmax(dim=-1)  # (B,): of the last link
        path = [label]
        for place in range(len(origins), 0, -1):
            before = origins[place - 1].gather(1, label[:, None]).squeeze(1)
            label = torch.where(linked[:, place], before, label)
            path.append(label)
        found = torch.stack(path[::-1], dim=1).tolist()
        return [row[:length] for row, length in zip(found, chains.lengths.tolist(), strict=True)]

    def _linked(self, chains: Chains) -> Tensor:
        """Return which places of the chains are links, (B, S)."""
        places = torch.arange(chains.scores.shape[1], device=chains.lengths.device)
        return places < chains.lengths[:, None]

    def _forward_scores(self, chains: Chains) -> list[Tensor]:
        """Return for each place the log-sum over all beginnings of a chain that end in each label, (B, L) each.

        Behind a chain's end they stay what they were.
        """
        linked = self._linked(chains)
        alpha = self.start.float() + chains.scores[:, 0]
        alphas = [alpha]
        for place in range(1, chains.scores.shape[1]):
            moved = torch.logsumexp(alpha[:, :, None] + self.transitions.float(), dim=1) + chains.scores[:, place]
            alpha = torch.where(linked[:, place, None], moved, alpha)
            alphas.append(alpha)
        return alphas
