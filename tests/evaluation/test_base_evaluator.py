from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sparse_encoder.evaluation import BaseEvaluator, SentenceEvaluator, SequentialEvaluator, SparseEvaluator


class FixedTableEvaluator(BaseEvaluator):
    """Returns what it was given."""

    def __init__(self, result: float | dict[str, float], primary: str | None = None, name: str | None = None) -> None:
        self.result = result
        self.primary_metric = primary
        self.calls: list[tuple[Any, ...]] = []
        if name is not None:
            self.name = name

    def __call__(
        self, model: object, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> float | dict[str, float]:
        self.calls.append((model, output_path, epoch, steps))
        return self.result


def test_names_start_metrics_once() -> None:
    evaluator = FixedTableEvaluator(0.0, primary="ndcg")
    assert evaluator.prefix_name_to_metrics({"ndcg": 1}, "") == {"ndcg": 1.0}
    assert evaluator.primary_metric == "ndcg"
    for _ in range(2):
        assert evaluator.prefix_name_to_metrics({"ndcg": 1}, "dev") == {"dev_ndcg": 1.0}
        assert evaluator.primary_metric == "dev_ndcg"


def test_the_names_users_know() -> None:
    assert SentenceEvaluator is BaseEvaluator
    assert SparseEvaluator is BaseEvaluator
    evaluator = FixedTableEvaluator(0.0)
    assert evaluator.description == "Fixed Table"
    assert evaluator.greater_is_better is True
    assert evaluator.get_config_dict() == {}


def test_a_card_that_keeps_metrics_gets_them() -> None:
    kept: list[tuple[Any, ...]] = []
    evaluator = FixedTableEvaluator(0.0)
    card = SimpleNamespace(set_evaluation_metrics=lambda *arguments: kept.append(arguments))
    evaluator.store_metrics_in_model_card_data(SimpleNamespace(model_card_data=card), {"a": 1.0}, 2, 3)
    evaluator.store_metrics_in_model_card_data(SimpleNamespace(model_card_data=SimpleNamespace()), {"a": 1.0})
    evaluator.store_metrics_in_model_card_data(object(), {"a": 1.0})
    assert kept == [(evaluator, {"a": 1.0}, 2, 3)]


def test_evaluators_in_sequence() -> None:
    parts = [
        FixedTableEvaluator({"a": 1.0, "b": 2.0}, primary="b"),
        FixedTableEvaluator({"c": 3.0, "d": 4.0}),
        FixedTableEvaluator(5.0),
    ]
    sequence = SequentialEvaluator(iter(parts), main_score_function=lambda scores: sum(scores))
    expected = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "evaluator_2": 5.0, "sequential_score": 2.0 + 3.0 + 5.0}
    assert sequence("model", "out", 1, 2) == expected
    assert [part.calls for part in parts] == [[("model", "out", 1, 2)]] * 3
    assert sequence.primary_metric == "sequential_score"
    assert SequentialEvaluator(parts)("model")["sequential_score"] == 5.0


def test_sequences_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one evaluator"):
        SequentialEvaluator([])
    with pytest.raises(ValueError, match="more than one FixedTableEvaluator is called 'dev'"):
        SequentialEvaluator([FixedTableEvaluator(1.0, name="dev"), FixedTableEvaluator(2.0, name="dev")])
    SequentialEvaluator([FixedTableEvaluator(1.0, name="dev"), FixedTableEvaluator(2.0, name="test")])


def test_public_names_are_sorted_and_there() -> None:
    from sparse_encoder import evaluation

    assert evaluation.__all__ == sorted(evaluation.__all__)
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
    evaluators = [name for name in evaluation.__all__ if name.endswith("Evaluator") and name.startswith("Sparse")]
    assert len(evaluators) == 9  # eight of the peer's nine and the base; the ninth joins rankings
