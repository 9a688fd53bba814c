from __future__ import annotations

import numpy as np
import torch

from sparse_encoder.cli.term_directions import term_directions

ROWS = [[0, 1, 2], [0, 1, 1, 5], [3, 4], [3, 4, 4, 6], [0, 1], [3, 4, 2]]


def test_terms_of_the_same_texts_are_near() -> None:
    directions = term_directions(ROWS, num_terms=9, size=64, seed=0)
    assert directions.shape == (9, 64)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(9))
    cosines = directions @ directions.mT
    together = {(0, 1): float(cosines[0, 1]), (3, 4): float(cosines[3, 4])}
    apart = [abs(float(cosines[a, b])) for a in (0, 1) for b in (3, 4)]
    assert min(together.values()) > 0.35 > max(apart)


def test_the_half_that_means_something_is_that_of_the_singular_vectors() -> None:
    """Two terms that always come together have one meaning: their cosine is 1/2, from the half that is not random."""
    rows = [[0, 1], [2, 3], [0, 1], [2, 3], [2, 3]]
    sums = np.zeros((4, 4))
    for seed in range(60):
        directions = term_directions(rows, num_terms=4, size=32, seed=seed).double().numpy()
        sums += directions @ directions.T
    means = sums / 60
    np.testing.assert_allclose(means[[0, 2], [1, 3]], 0.5, atol=0.06)
    np.testing.assert_allclose(means[:2, 2:], 0.0, atol=0.06)


def test_terms_that_come_nowhere_have_directions_too() -> None:
    directions = term_directions(ROWS, num_terms=9, size=16, seed=0)
    torch.testing.assert_close(directions[7:].norm(dim=1), torch.ones(2))


def test_a_seed_decides() -> None:
    first = term_directions(ROWS, num_terms=9, size=16, seed=0)
    assert torch.equal(first, term_directions(ROWS, num_terms=9, size=16, seed=0))
    assert not torch.equal(first, term_directions(ROWS, num_terms=9, size=16, seed=1))


def test_one_text_is_too_few_to_compare() -> None:
    assert term_directions([[0, 1]], num_terms=3, size=8, seed=0).isfinite().all()
