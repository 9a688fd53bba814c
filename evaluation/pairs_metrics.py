"""Measures of numbers by pair of texts: of scores against scores, and of scores against labels; knows no texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Labels = NDArray[np.int64]


class BestAccuracy(NamedTuple):
    """The best share of right answers, and where to cut for it."""

    accuracy: float
    threshold: float


class BestF1(NamedTuple):
    """The best F1, what it is made of, and where to cut for it."""

    f1: float
    precision: float
    recall: float
    threshold: float


def pearson(a: Scores, b: Scores) -> float:
    """Return how linear the relation of two columns is, -1 to 1; NaN if one of them is constant.

    Source: Pearson, 1895, https://doi.org/10.1098/rspl.1895.0041.
    """
    from scipy.stats import pearsonr  # takes long to import

    return float("nan") if _constant(a) or _constant(b) else float(pearsonr(a, b).statistic)


def spearman(a: Scores, b: Scores) -> float:
    """Return the Pearson correlation of the ranks of two columns, equal values sharing the mean of their ranks.

    It is NaN if one of them is constant.

    Source: Spearman, 1904, https://doi.org/10.2307/1412159.
    """
    from scipy.stats import spearmanr  # takes long to import

    return float("nan") if _constant(a) or _constant(b) else float(spearmanr(a, b).statistic)


def _constant(values: Scores | Labels) -> bool:
    return len(values) < 2 or bool((values == values[0]).all())


def best_accuracy(scores: Scores, labels: Labels, *, higher_is_positive: bool = True) -> BestAccuracy:
    """Find the cut between scores at which most pairs are on the side of their label.

    Of equally good cuts the one that calls fewest pairs positive is taken; to call none positive it lies just beyond
    the best score, otherwise halfway between two scores, and at the last score to call all positive.

    Args:
        scores: (N), N at least 1.
        labels: 0 or 1, (N).
        higher_is_positive: Whether pairs above the cut are called positive, or those below it.
    """
    ordered, hits, counts = _cuts(scores, labels, higher_is_positive)
    right = np.concatenate(([0], hits)) + (labels == 0).sum() - np.concatenate(([0], counts - hits))
    best = int(np.argmax(right))
    beyond = np.inf if higher_is_positive else -np.inf
    threshold = float(np.nextafter(ordered[0], ordered.dtype.type(beyond))) if best == 0 else _cut(ordered, best - 1)
    return BestAccuracy(float(right[best]) / len(labels), threshold)


def best_f1(scores: Scores, labels: Labels, *, higher_is_positive: bool = True) -> BestF1:
    """Find the cut between scores with the best harmonic mean of precision and recall; arguments as before.

    Without a positive pair all four numbers are 0.
    """
    ordered, hits, counts = _cuts(scores, labels, higher_is_positive)
    positives = int(labels.sum())
    if not positives:
        return BestF1(0.0, 0.0, 0.0, 0.0)
    precision, recall = hits / counts, hits / positives
    with np.errstate(invalid="ignore"):
        f1 = np.where(hits > 0, 2 * precision * recall / (precision + recall), 0.0)
    best = int(np.argmax(f1))
    return BestF1(float(f1[best]), float(precision[best]), float(recall[best]), _cut(ordered, best))


def _cuts(scores: Scores, labels: Labels, descending: bool) -> tuple[Scores, NDArray[np.int64], NDArray[np.int64]]:
    """List the different scores, best first, and how many positives, and pairs, reach each of them."""
    order = np.argsort(-scores if descending else scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    return ordered[ends], np.cumsum(labels[order])[ends], ends + 1


def _cut(ordered: Scores, place: int) -> float:
    """Return a threshold between a score and the next; the score itself if it is the last or nothing lies between."""
    if place == len(ordered) - 1:
        return float(ordered[place])
    middle = (ordered[place] + ordered[place + 1]) / ordered.dtype.type(2)
    return float(ordered[place] if middle == ordered[place + 1] else middle)


def average_precision(scores: Scores, labels: Labels) -> float:
    r"""Return the mean precision over the positives, equal scores reached at once.

    .. math:: \sum_n (R_n - R_{n-1}) P_n

    with precision and recall at the n-th of the different scores. Without a positive it is 0.
    """
    positives = int(labels.sum())
    if not positives:
        return 0.0
    _, hits, counts = _cuts(scores, labels, True)
    return float((np.diff(hits, prepend=0) * (hits / counts)).sum()) / positives


def matthews_correlation(predicted: Labels, labels: Labels) -> float:
    """Return the Pearson correlation of predictions and labels, both 0 or 1; 0 if one of them is constant.

    Source: Matthews, 1975, https://doi.org/10.1016/0005-2795(75)90109-9.
    """
    if _constant(predicted) or _constant(labels):
        return 0.0
    both, found, wanted = int((predicted * labels).sum()), int(predicted.sum()), int(labels.sum())
    covariance = both * len(labels) - found * wanted
    spread = found * (len(labels) - found) * wanted * (len(labels) - wanted)
    return float(covariance / np.sqrt(float(spread)))
