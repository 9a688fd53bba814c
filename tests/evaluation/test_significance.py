"""p-values by hand, by scipy, and by what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparse_encoder.evaluation import significance
from sparse_encoder.evaluation.significance import (
    Comparison,
    compare,
    holm_bonferroni,
    paired_t_test,
    randomization_test,
)

VALUES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12)


def random_pair(size: int, seed: int, shift: float = 0.0) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(seed)
    first = generator.random(size)
    return first.tolist(), (first + shift + 0.2 * generator.standard_normal(size)).tolist()


@pytest.mark.parametrize("size", [2, 3, 11, 50, 700])
def test_the_t_test_is_that_of_scipy(size: int) -> None:
    for seed in range(5):
        first, second = random_pair(size, seed, 0.05)
        assert paired_t_test(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_differences_without_spread() -> None:
    assert paired_t_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == 1.0
    assert paired_t_test([0.0, 0.5], [0.25, 0.75]) == 0.0
    assert randomization_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == 1.0


def test_all_ways_are_tried_where_they_are_few() -> None:
    # differences 1, 2, 3: of the eight sums only 6 and -6 are as great
    assert randomization_test([0, 0, 0], [1, 2, 3]) == 2 / 8
    # differences 1, -2, 3: sums of size 2 or more: 6, 2, -4, 4 and their negatives, of 6, 4, 2, 0
    assert randomization_test([0, 2, 0], [1, 0, 3]) == 6 / 8


def test_the_exact_test_is_that_of_scipy() -> None:
    for seed in range(4):
        first, second = random_pair(9, seed, 0.1)
        expected = stats.permutation_test(
            (np.array(second), np.array(first)),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=2**9,
        )
        assert randomization_test(first, second) == pytest.approx(expected.pvalue, abs=1e-12)


def test_drawn_ways_come_close_to_all_ways_and_a_seed_gives_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_pair(12, 1, 0.06)
    exact = randomization_test(first, second)
    assert 0.02 < exact < 0.5
    drawn = randomization_test(first, second, num_permutations=4000)
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn != exact
    monkeypatch.setattr(significance, "MAX_SIGNS", 12 * 7)
    assert randomization_test(first, second, num_permutations=4000, seed=0) == drawn


def test_the_least_p_is_one_of_the_ways() -> None:
    first, second = random_pair(200, 0, 5.0)
    assert randomization_test(first, second, num_permutations=999) == 1 / 1000


def test_false_alarms_are_as_rare_as_promised() -> None:
    alarms = [
        (paired_t_test(*pair) < 0.05, randomization_test(*pair, num_permutations=500) < 0.05)
        for pair in (random_pair(40, seed) for seed in range(400))
    ]
    for share in np.mean(alarms, axis=0):
        assert 0.02 < share < 0.08


@given(pairs=VALUES)
def test_neither_test_knows_which_system_comes_first(pairs: list[tuple[float, float]]) -> None:
    first, second = [list(side) for side in zip(*pairs, strict=True)]
    assert paired_t_test(first, second) == pytest.approx(paired_t_test(second, first))
    there, back = (randomization_test(*pair, num_permutations=64) for pair in ((first, second), (second, first)))
    assert there == back
    assert 0 < there <= 1


def test_holm_by_hand() -> None:
    assert holm_bonferroni([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_bonferroni([0.5, 0.9]) == [1.0, 1.0]
    assert holm_bonferroni([]) == []
    with pytest.raises(ValueError, match=r"p-values must lie in \[0, 1\], got nan"):
        holm_bonferroni([float("nan")])


def test_two_systems() -> None:
    first, second = random_pair(30, 3, 0.1)
    queries = [f"q{number}" for number in range(30)]
    baseline = {"a": dict(zip(queries, first, strict=True)), "b": dict(zip(queries, second, strict=True))}
    system = {"a": dict(zip(queries[::-1], second[::-1], strict=True)), "b": baseline["b"]}
    found = compare(baseline, system, num_permutations=1000)
    p, q = paired_t_test(first, second), randomization_test(first, second, num_permutations=1000)
    assert list(found) == ["a", "b"]
    assert found["a"] == Comparison(
        pytest.approx(np.mean(first)), pytest.approx(np.mean(second)), p, min(1, 2 * p), q, min(1, 2 * q)
    )
    assert found["a"].difference == pytest.approx(np.mean(second) - np.mean(first))
    assert found["b"][2:] == (1.0, 1.0, 1.0, 1.0)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="one value for each query, got 2 and 3"):
        paired_t_test([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least two queries"):
        randomization_test([1], [2])
    with pytest.raises(ValueError, match="values must be finite, query 1 is not"):
        paired_t_test([1, float("nan")], [1, 2])
    with pytest.raises(ValueError, match="num_permutations must be at least 1"):
        randomization_test([1, 2], [1, 2], num_permutations=0)
    with pytest.raises(ValueError, match=r"the same metrics, got \['a'\] and \['b'\]"):
        compare({"a": {}}, {"b": {}})
    with pytest.raises(ValueError, match="only one has 'y' in a"):
        compare({"a": {"x": 1.0}}, {"a": {"x": 1.0, "y": 0.0}})
