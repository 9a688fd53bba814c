"""Whether two systems differ by more than chance, from values per query; pure functions that know no run and no model.

Both tests are paired: each query is measured with both systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_SIGNS = 1 << 22
"""Most signs that are drawn at a time."""


class Comparison(NamedTuple):
    """One metric of two systems.

    Attributes:
        baseline: Mean of the one.
        system: Mean of the other.
        t_test: p-value of the paired t-test.
        t_test_adjusted: The same, adjusted to the number of metrics.
        randomization: p-value of the randomisation test.
        randomization_adjusted: The same, adjusted to the number of metrics.
    """

    baseline: float
    system: float
    t_test: float
    t_test_adjusted: float
    randomization: float
    randomization_adjusted: float

    @property
    def difference(self) -> float:
        """By how much the system is above the baseline."""
        return self.system - self.baseline


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> float:
    r"""Return the two-sided p-value of Student's test that the mean difference is 0.

    .. math:: t = \bar{d} \sqrt{n} / s_d \quad\text{with } n - 1 \text{ degrees of freedom}

    Where all differences are the same there is no spread to measure them by: p is 1 if they are 0, else 0.

    Source: Student, 1908, https://doi.org/10.1093/biomet/6.1.1.

    Args:
        first: Values of the one system, one for each query.
        second: Values of the other, in the same order.

    Raises:
        ValueError: If there are not as many of both, fewer than two, or a value is not finite.
    """
    from scipy.special import stdtr

    differences = _differences(first, second)
    size, mean = len(differences), differences.mean()
    spread = differences.std(ddof=1)
    if spread <= 1e-14 * abs(mean) or not differences.any():
        return 0.0 if mean else 1.0
    return float(2 * stdtr(size - 1, -abs(mean) * math.sqrt(size) / spread))


def randomization_test(
    first: Sequence[float], second: Sequence[float], *, num_permutations: int = 10_000, seed: int = 0
) -> float:
    r"""Return the two-sided p-value of Fisher's test: how often as great a difference comes of swapping at random.

    If the two systems were alike, each query's values could as well be the other way round. All :math:`2^n` ways are
    tried if they are not more than ``num_permutations``; else as many are drawn, and the one observed counts as one
    more: :math:`p = (c + 1) / (m + 1)`.

    Source: Smucker, Allan and Carterette, 2007, https://doi.org/10.1145/1321440.1321528.

    Args:
        first: Values of the one system, one for each query.
        second: Values of the other, in the same order.
        num_permutations: Ways to try.
        seed: Of the draw; one seed gives one p-value.

    Raises:
        ValueError: If there are not as many of both, fewer than two, a value is not finite, or ``num_permutations`` is
            below 1.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, got {num_permutations}")
    differences = _differences(first, second)
    size = len(differences)
    exact = size < 63 and 2**size <= num_permutations
    total = 2**size if exact else num_permutations
    generator = np.random.default_rng(seed)
    bar = abs(differences.sum()) * (1 - 1e-12) - 1e-15  # sums in another order may come out a little smaller
    extreme = 0
    step = max(1, MAX_SIGNS // size)
    for start in range(0, total, step):
        stop = min(start + step, total)
        if exact:
            swapped = (np.arange(start, stop)[:, None] >> np.arange(size)) & 1
        else:
            swapped = generator.integers(0, 2, (stop - start, size), dtype=np.int8)
        sums = (1.0 - 2.0 * swapped) @ differences
        extreme += int((np.abs(sums) >= bar).sum())
    return extreme / total if exact else (extreme + 1) / (total + 1)


def holm_bonferroni(p_values: Sequence[float]) -> list[float]:
    r"""Adjust p-values so that the chance of any false alarm among them stays below the level they are held to.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Source: Holm, 1979, https://www.jstor.org/stable/4615733.

    Args:
        p_values: In any order.

    Returns:
        The adjusted values, in the same order.

    Raises:
        ValueError: If one is not in [0, 1].
    """
    for value in p_values:
        if not 0 <= value <= 1:
            raise ValueError(f"p-values must lie in [0, 1], got {value}")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def compare(
    baseline: Mapping[str, Mapping[str, float]],
    system: Mapping[str, Mapping[str, float]],
    *,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare two systems in every metric.

    Args:
        baseline: Values by query, by metric, as :func:`~sparse_encoder.evaluation.run_metrics.measure_run` gives them.
        system: The same metrics of the same queries.
        num_permutations: As in :func:`randomization_test`.
        seed: As in :func:`randomization_test`.

    Returns:
        By metric; p-values are adjusted to the number of metrics.

    Raises:
        ValueError: If metrics or queries differ, or there are fewer than two queries.
    """
    if baseline.keys() != system.keys():
        raise ValueError(f"both must have the same metrics, got {sorted(baseline)} and {sorted(system)}")
    t_tests, randomizations = [], []
    pairs: list[tuple[list[float], list[float]]] = []
    for metric, values in baseline.items():
        strays = sorted(values.keys() ^ system[metric].keys())
        if strays:
            raise ValueError(f"both must have the same queries, only one has {strays[0]!r} in {metric}")
        pairs.append((list(values.values()), [system[metric][query] for query in values]))
        t_tests.append(paired_t_test(*pairs[-1]))
        randomizations.append(randomization_test(*pairs[-1], num_permutations=num_permutations, seed=seed))
    columns = zip(
        baseline, pairs, t_tests, holm_bonferroni(t_tests), randomizations, holm_bonferroni(randomizations), strict=True
    )
    return {
        metric: Comparison(sum(first) / len(first), sum(second) / len(second), *p_values)
        for metric, (first, second), *p_values in columns
    }


def _differences(first: Sequence[float], second: Sequence[float]) -> NDArray[np.float64]:
    if len(first) != len(second):
        raise ValueError(f"both systems need one value for each query, got {len(first)} and {len(second)}")
    if len(first) < 2:
        raise ValueError(f"at least two queries are needed to compare systems, got {len(first)}")
    differences: NDArray[np.float64] = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"values must be finite, query {int(np.flatnonzero(~np.isfinite(differences))[0])} is not")
    return differences
