"""Processors for sampling: they leave fewer tokens to draw from, or change how far the scores are apart.

A token that is left out has the score ``filter_value``. Letters: R rows (texts times beams), T tokens so far, V
vocabulary.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from sparse_encoder.generation.processors import LogitsProcessor, above_zero, at_least

_MOST_OF_TOP_H = 100
"""Tokens that top-h sampling looks at, as published."""


def _within(name: str, value: float, *, zero: bool, one: bool) -> float:
    """Return a number between 0 and 1 as a float.

    Args:
        name: What it is called in an error.
        value: The number.
        zero: Whether it may be 0.
        one: Whether it may be 1.

    Raises:
        ValueError: If it is out of range or no number.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (0 < value < 1 or (zero and value == 0) or (one and value == 1))
    ):
        bounds = f"{'at least' if zero else 'above'} 0 and {'at most' if one else 'below'} 1"
        raise ValueError(f"{name} must be {bounds}, got {value!r:.100}")
    return float(value)


def _below_kept(scores: Tensor, kept: int) -> Tensor:
    """Return which scores are below the ``kept`` highest of their row, (R, V)."""
    return scores < scores.topk(min(kept, scores.shape[1])).values[:, -1:]


def _entropy(log_probabilities: Tensor) -> Tensor:
    """Return the entropy of each row in nats, (R, 1); a token that cannot come adds nothing."""
    finite = log_probabilities.clamp(min=torch.finfo(log_probabilities.dtype).min)
    return -(finite * log_probabilities.exp()).sum(dim=-1, keepdim=True)


class TemperatureLogitsWarper(LogitsProcessor):
    """Divide the scores: below 1 the likely tokens become likelier, above 1 all become more alike.

    Args:
        temperature: What divides.

    Raises:
        ValueError: If it is not above 0.
    """

    def __init__(self, temperature: float) -> None:
        hint = "; for the likeliest token always, set do_sample=False" if temperature == 0 else ""
        self.temperature = above_zero("temperature", temperature, hint)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return scores / self.temperature


class TopKLogitsWarper(LogitsProcessor):
    """Leave the k likeliest tokens, and all that are as likely as the last of them.

    Args:
        top_k: k.
        filter_value: Score of what is left out.
        min_tokens_to_keep: k at least.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, top_k: int, filter_value: float = -inf, min_tokens_to_keep: int = 1) -> None:
        self.top_k = max(at_least("top_k", top_k, 1), at_least("min_tokens_to_keep", min_tokens_to_keep, 1))
        self.filter_value = filter_value

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        return scores.masked_fill(_below_kept(scores, self.top_k), self.filter_value)


class TopPLogitsWarper(LogitsProcessor):
    """Leave the fewest tokens that are together at least as likely as p, the likeliest first.

    Source: Holtzman et al., 2019, https://arxiv.org/abs/1904.09751.

    Args:
        top_p: p; 1 leaves all.
        filter_value: Score of what is left out.
        min_tokens_to_keep: Tokens left at least.

    Raises:
        ValueError: If p is not between 0 and 1, or the other number below 1.
    """

    def __init__(self, top_p: float, filter_value: float = -inf, min_tokens_to_keep: int = 1) -> None:
        self.top_p = _within("top_p", top_p, zero=True, one=True)
        self.filter_value = filter_value
        self.min_tokens_to_keep = at_least("min_tokens_to_keep", min_tokens_to_keep, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        ordered, order = scores.sort(descending=False)
        is_out = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - self.top_p
        is_out[:, -self.min_tokens_to_keep :] = False
        return scores.masked_fill(is_out.scatter(1, order, is_out), self.filter_value)


class TopHLogitsWarper(LogitsProcessor):
    """Leave the likeliest tokens as long as the entropy they add up to is within a part of the whole.

    Only the 100 likeliest are looked at. Source: Baghaei Potraghloo et al., 2025, https://arxiv.org/abs/2509.02510.

    Args:
        top_h: The part.
        filter_value: Score of what is left out.

    Raises:
        ValueError: If it is not above 0 and at most 1.
    """

    def __init__(self, top_h: float, filter_value: float = -inf) -> None:
        self.top_h = _within("top_h", top_h, zero=False, one=True)
        self.filter_value = filter_value

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        top, order = scores.topk(min(_MOST_OF_TOP_H, scores.shape[1]), dim=-1)
        normalized = top - top.logsumexp(dim=-1, keepdim=True)
        probabilities = normalized.softmax(dim=-1)
        limit = -(normalized.clamp(min=torch.finfo(top.dtype).min) * probabilities).sum(-1, keepdim=True) * self.top_h
        is_kept = (-probabilities * probabilities.log()).cumsum(dim=-1) <= limit  # NaN behind what cannot come
        is_kept[:, 0] = True
        is_in = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, is_kept)
        return scores.masked_fill(~is_in, self.filter_value)


class MinPLogitsWarper(LogitsProcessor):
    """Leave the tokens that are at least a part as likely as the likeliest.

    Source: Nguyen et al., 2024, https://arxiv.org/abs/2407.01082.

    Args:
        min_p: The part.
        filter_value: Score of what is left out.
        min_tokens_to_keep: Tokens left at least.

    Raises:
        ValueError: If the part is not between 0 and 1, or the other number below 1.
    """

    def __init__(self, min_p: float, filter_value: float = -inf, min_tokens_to_keep: int = 1) -> None:
        self.min_p = _within("min_p", min_p, zero=True, one=True)
        self.filter_value = filter_value
        self.min_tokens_to_keep = at_least("min_tokens_to_keep", min_tokens_to_keep, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        probabilities = scores.softmax(dim=-1)
        is_out = probabilities < self.min_p * probabilities.amax(dim=-1, keepdim=True)
        kept = probabilities.topk(min(self.min_tokens_to_keep, scores.shape[1]), dim=-1).indices
        return scores.masked_fill(is_out.scatter(1, kept, False), self.filter_value)


class TypicalLogitsWarper(LogitsProcessor):
    """Leave the tokens whose information is nearest to the entropy, as many as are together as likely as a mass.

    Source: Meister et al., 2022, https://arxiv.org/abs/2202.00666.

    Args:
        mass: Probability of what is left, at least.
        filter_value: Score of what is left out.
        min_tokens_to_keep: Tokens left at least.

    Raises:
        ValueError: If the mass is not above 0 and below 1, or the other number below 1.
    """

    def __init__(self, mass: float = 0.9, filter_value: float = -inf, min_tokens_to_keep: int = 1) -> None:
        self.mass = _within("typical_p", mass, zero=False, one=False)
        self.filter_value = filter_value
        self.min_tokens_to_keep = at_least("min_tokens_to_keep", min_tokens_to_keep, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        normalized = scores.log_softmax(dim=-1)
        entropy = -(normalized * normalized.exp()).nansum(dim=-1, keepdim=True)
        distances, order = (-normalized - entropy).abs().sort(descending=False)
        mass = scores.gather(1, order).softmax(dim=-1).cumsum(dim=-1)
        last = (mass < self.mass).sum(dim=1, keepdim=True).clamp(max=scores.shape[1] - 1)
        is_out = distances > distances.gather(1, last)
        is_out[:, : self.min_tokens_to_keep] = False
        return scores.masked_fill(is_out.scatter(1, order, is_out), self.filter_value)


class EpsilonLogitsWarper(LogitsProcessor):
    """Leave the tokens that are at least as likely as a bound.

    Source: Hewitt et al., 2022, https://arxiv.org/abs/2210.15191.

    Args:
        epsilon: The bound.
        filter_value: Score of what is left out.
        min_tokens_to_keep: Tokens left at least.

    Raises:
        ValueError: If the bound is not above 0 and below 1, or the other number below 1.
    """

    def __init__(self, epsilon: float, filter_value: float = -inf, min_tokens_to_keep: int = 1) -> None:
        self.epsilon = _within("epsilon_cutoff", epsilon, zero=False, one=False)
        self.filter_value = filter_value
        self.min_tokens_to_keep = at_least("min_tokens_to_keep", min_tokens_to_keep, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        is_out = (scores.softmax(dim=-1) < self.epsilon) & _below_kept(scores, self.min_tokens_to_keep)
        return scores.masked_fill(is_out, self.filter_value)


class EtaLogitsWarper(LogitsProcessor):
    r"""Leave the tokens that are at least as likely as a bound that falls with the entropy H.

    .. math:: \eta = \min(\epsilon, \sqrt\epsilon \, e^{-H})

    Source: Hewitt et al., 2022, https://arxiv.org/abs/2210.15191.

    Args:
        epsilon: The largest bound.
        filter_value: Score of what is left out.
        min_tokens_to_keep: Tokens left at least.
        device: Where epsilon is kept; None: where the first scores are.

    Raises:
        ValueError: If epsilon is not above 0 and below 1, or the other number below 1.
    """

    def __init__(
        self,
        epsilon: float,
        filter_value: float = -inf,
        min_tokens_to_keep: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        self.epsilon = torch.tensor(_within("eta_cutoff", epsilon, zero=False, one=False), device=device)
        self.filter_value = filter_value
        self.min_tokens_to_keep = at_least("min_tokens_to_keep", min_tokens_to_keep, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the new scores, (R, V)."""
        entropy = _entropy(scores.log_softmax(dim=-1))
        if self.epsilon.device != scores.device:
            self.epsilon = self.epsilon.to(scores.device)
        bound = torch.minimum(self.epsilon, self.epsilon.sqrt() * (-entropy).exp())  # (R, 1)
        is_out = (scores.softmax(dim=-1) < bound) & _below_kept(scores, self.min_tokens_to_keep)
        return scores.masked_fill(is_out, self.filter_value)
