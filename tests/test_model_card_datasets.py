from __future__ import annotations

from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict
from torch import nn

from sparse_encoder import SparseEncoderModelCardData
from sparse_encoder.evaluation import BaseEvaluator
from sparse_encoder.losses import FlopsLoss, SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.model_card_base import merged
from sparse_encoder.model_card_datasets import describe_dataset, find_examples, num_rows, origin
from sparse_encoder.model_card_losses import citations_of, describe_loss, losses_of
from sparse_encoder.model_card_results import EvaluationResult, model_index, numbers, result_of, result_tables

PAIRS = {"anchor": ["what causes rain", "sun", "why"], "positive": ["clouds", "a star", "because it is so"]}


def test_a_dataset_is_described() -> None:
    facts = describe_dataset(Dataset.from_dict(PAIRS), name="pairs")
    assert facts == {
        "name": "pairs",
        "size": 3,
        "columns": ["anchor", "positive"],
        "num_rows": 3,
        "statistics": {
            "anchor": {
                "type": "string",
                "details": {"min": "3 characters", "mean": "7.33 characters", "max": "16 characters"},
            },
            "positive": {
                "type": "string",
                "details": {"min": "6 characters", "mean": "9.33 characters", "max": "16 characters"},
            },
        },
        "samples": [{"anchor": a, "positive": p} for a, p in zip(PAIRS["anchor"], PAIRS["positive"], strict=True)],
    }  # fmt: skip


def test_lists_and_other_rows_by_number_are_described() -> None:
    rows = [{"text": "a", "dataset_name": "x"}, {"text": "bc", "dataset_name": "x"}]
    facts = describe_dataset(rows)
    assert (facts["size"], facts["columns"], facts["samples"]) == (2, ["text"], [{"text": "a"}, {"text": "bc"}])
    assert describe_dataset([]) == {"size": 0, "columns": []}
    assert describe_dataset(Dataset.from_dict({"text": []})) == {"size": 0, "columns": ["text"]}


def test_no_row_of_a_stream_is_read() -> None:
    def rows() -> object:
        raise AssertionError("a row was read")

    stream = Dataset.from_dict(PAIRS).to_iterable_dataset().map(lambda row: rows())
    assert describe_dataset(stream)["columns"] == []
    plain = Dataset.from_dict(PAIRS).to_iterable_dataset()
    assert describe_dataset(plain) == {"columns": ["anchor", "positive"]}
    assert num_rows(plain) is None
    assert find_examples({"": plain}) == ([], [])


def test_what_a_dataset_carries_of_its_origin() -> None:
    commit = "0123456789" * 4
    info = SimpleNamespace(
        dataset_name="all-nli",
        config_name="triplet",
        download_checksums={f"hf://datasets/me/all-nli@{commit}/triplet/train.parquet": {}},
        splits={"train": SimpleNamespace(num_examples=557)},
    )
    carried = SimpleNamespace(info=info, split="train")
    expected = {"name": "all-nli", "config": "triplet", "split": "train", "id": "me/all-nli", "revision": commit}
    assert origin(carried) == expected
    assert num_rows(carried) == 557
    info.config_name = "default"
    info.download_checksums = {"hf://datasets/me/all-nli@main/x": {}, "/home/someone/data.csv": {}}
    assert origin(carried) == {"name": "all-nli", "split": "train", "id": "me/all-nli"}
    info.download_checksums = {"/home/someone/data.csv": {}}
    assert origin(carried) == {"name": "all-nli", "split": "train"}
    assert origin(object()) == {}
    card = SparseEncoderModelCardData()
    assert card.infer_datasets(carried) == [{"name": "all-nli", "split": "train"}]
    both = card.infer_datasets({"one": carried, "two": Dataset.from_dict(PAIRS)})
    assert both == [{"name": "one", "split": "train"}, {"name": "two"}]


def test_examples_are_the_shortest_texts_and_always_the_same() -> None:
    found = find_examples({"pairs": Dataset.from_dict(PAIRS)})
    assert found.widget == [{"text": "sun"}, {"text": "why"}, {"text": "what causes rain"}]
    assert found.usage == ["sun", "a star", "because it is so", "clouds"]
    assert find_examples({"": [{"a": ""}, {"a": " "}, {"a": 3}, "no row"]}) == ([], [])
    assert find_examples({"": [{"a": "one", "label": 1}]}) == ([{"text": "one"}], [])
    many = find_examples({"": [{"a": f"text {i}", "score": 0.5} for i in range(9)] + [{"a": "x" * 900}]})
    assert [each["text"] for each in many.widget] == [f"text {i}" for i in range(5)]
    assert many.usage == ["text 0", "text 1", "text 2", "text 3"]


def test_what_an_author_told_of_datasets_stays() -> None:
    found = {"name": "json", "size": 3, "columns": ["a"], "samples": []}
    assert merged([], [found]) == [found]
    assert merged([{"id": "me/x"}], [found]) == [{**found, "id": "me/x"}]
    assert merged([{"name": "My data", "id": "me/x"}], [found]) == [{**found, "name": "My data", "id": "me/x"}]
    other = {**found, "name": "b", "size": 4}
    told = [{"name": "b", "id": "me/b"}]
    assert merged(told, [found, other]) == [found, {**other, "id": "me/b"}]
    assert merged([{"id": "me/x"}], [found, other]) == [{"id": "me/x"}, found, other]
    again = merged(merged([{"name": "My data"}], [found]), [found])
    assert again == [{**found, "name": "My data"}]
    assert merged(merged([], [found]), [other]) == [found, other]


class Inner(nn.Module):
    def get_config_dict(self) -> dict[str, object]:
        return {"margin": 0.5}


class Outer(nn.Module):
    citation = """
        @misc{outer,
            title={Outer}
        }
        """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.inner = Inner()
        self.parts = nn.ModuleList([FlopsLoss(model)])
        self.cross_entropy = nn.CrossEntropyLoss()

    def get_config_dict(self) -> dict[str, object]:
        odd = {"inner": self.inner, "f": len, "x": {1: float("nan")}, "many": ({2}, (1, None)), "o": object()}
        return {**odd, "name": "中|文"}


def test_losses_within_losses() -> None:
    model = nn.Linear(1, 1)
    loss = SpladeLoss(
        model,
        SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-5,
        query_regularizer_weight=1e-5,
    )
    names = ["SpladeLoss", "SparseMultipleNegativesRankingLoss", "FlopsLoss"]
    assert list(dict.fromkeys(type(each).__name__ for each in losses_of(loss))) == names
    assert [type(each).__name__ for each in losses_of({"a": Outer(model), "b": Inner()})] == [
        "Outer",
        "Inner",
        "FlopsLoss",
        "Inner",
    ]
    card = SparseEncoderModelCardData()
    card.set_losses([loss, Outer(model)])
    assert card.tags[3:] == [f"loss:{name}" for name in (*names, "Outer", "Inner")]
    assert list(card.citations) == [*names, "Outer"]
    assert card.citations["Outer"] == "@misc{outer,\n    title={Outer}\n}"


def test_papers_of_several_losses_are_cited_once() -> None:
    class Another(Outer):
        pass

    model = nn.Linear(1, 1)
    assert list(citations_of([Outer(model), Another(model), Outer(model), Inner()])) == ["Outer and Another"]


def test_settings_of_losses_are_json() -> None:
    facts = describe_loss(Outer(nn.Linear(1, 1)))
    assert facts["name"] == "Outer"
    assert '"inner": "Inner(margin=0.5)"' in facts["config"]
    assert '"f": "len"' in facts["config"]
    assert '"1": "nan"' in facts["config"]
    assert '"o": "object"' in facts["config"]
    assert '"name": "中|文"' in facts["config"]
    assert describe_loss(nn.CrossEntropyLoss()) == {"name": "CrossEntropyLoss", "config": ""}


class Evaluator(BaseEvaluator):
    def __init__(self, name: str, primary: str | None, config: dict[object, object] | None = None) -> None:
        self.name, self.primary_metric, self.config = name, primary, config or {}

    def __call__(self, *arguments: object) -> dict[str, float]:
        return {}

    def get_config_dict(self) -> dict[str, object]:
        return self.config  # type: ignore[return-value]


def test_results_of_evaluators() -> None:
    result = result_of(Evaluator("dev", "dev_ndcg"), {"dev_ndcg": 0.5, "dev_map": 1, "note": "x", "none": None})
    assert (result.evaluator, result.task, result.dataset) == ("Evaluator", "Evaluator", "dev")
    assert (result.metrics, result.primary, result.config) == ({"ndcg": 0.5, "map": 1}, "ndcg", "")
    odd = result_of(Evaluator("", None, {(1, 2): object()}), {})
    assert odd.config == '{\n    "(1, 2)": "object"\n}'
    assert result_of(object(), {"a": 1.0}).evaluator == "object"


def test_results_of_one_class_share_a_table() -> None:
    one = result_of(Evaluator("one|1", "one|1_ndcg"), {"one|1_ndcg": 0.5, "one|1_map": 0.25})
    two = result_of(Evaluator("two", "two_ndcg"), {"two_ndcg": 0.75, "two_map": float("nan")})
    other = result_of(Evaluator("other", None), {"other_loss": 0.123456})
    text = result_tables([one, two, other])
    assert "* Datasets: <code>one\\|1</code> and <code>two</code>" in text
    assert "| Metric | one\\|1 | two |" in text
    assert "| **ndcg** | **0.5** | **0.75** |" in text
    assert "| map | 0.25 | nan |" in text
    assert "| Metric | Value |" in text
    assert "| loss | 0.1235 |" in text


def test_the_model_index_has_what_is_finite() -> None:
    result = EvaluationResult(
        evaluator="E", task="Sparse Retrieval", dataset="my data", metrics={"ndcg@10": 0.5, "x": float("inf")}
    )
    (entry,) = model_index([result])
    assert (entry.task_type, entry.task_name) == ("sparse-retrieval", "Sparse Retrieval")
    assert (entry.dataset_type, entry.dataset_name) == ("my-data", "my data")
    assert (entry.metric_type, entry.metric_name, entry.metric_value) == ("ndcg@10", "Ndcg@10", 0.5)
    assert (
        model_index([EvaluationResult(evaluator="E", task="", dataset="", metrics={"a": 1.0})])[0].task_type
        == "unknown"
    )


def test_a_later_result_takes_the_place_of_an_earlier_one() -> None:
    card = SparseEncoderModelCardData()
    first, second = Evaluator("a", "a_x"), Evaluator("b", "b_x")
    card.set_evaluation_metrics(first, {"a_x": 0.1, "a_y": 0.2}, epoch=-1, step=-1)
    card.set_evaluation_metrics(second, {"b_x": 0.3}, epoch=-1, step=-1)
    card.set_evaluation_metrics(first, {"a_x": 0.4, "a_y": 0.5}, epoch=0.5, step=10)
    assert [(result.dataset, result.metrics) for result in card.eval_results] == [
        ("a", {"x": 0.4, "y": 0.5}),
        ("b", {"x": 0.3}),
    ]
    assert card.training_logs == [
        {"Epoch": -1, "Step": -1, "a_x": 0.1, "b_x": 0.3},
        {"Epoch": 0.5, "Step": 10, "a_x": 0.4},
    ]
    sequence = SimpleNamespace(evaluators=[first, second], primary_metric="sequential_score")
    card.set_evaluation_metrics(sequence, {"a_x": 0.6, "b_x": 0.7, "sequential_score": 1.0}, epoch=1.0, step=20)
    assert card.training_logs[-1] == {"Epoch": 1.0, "Step": 20, "a_x": 0.6, "b_x": 0.7}


def test_an_evaluator_keeps_its_metrics_on_the_card() -> None:
    model = SimpleNamespace(model_card_data=SparseEncoderModelCardData())
    Evaluator("dev", "dev_x").store_metrics_in_model_card_data(model, {"dev_x": 0.5}, 1, 2)
    assert model.model_card_data.eval_results[0].metrics == {"x": 0.5}
    assert model.model_card_data.training_logs == [{"Epoch": 1, "Step": 2, "dev_x": 0.5}]


def test_numbers_of_other_libraries_are_plain() -> None:
    torch = pytest.importorskip("torch")
    found = numbers({"a": torch.tensor(0.5), "b": 1, "c": True, "d": torch.zeros(2), "e": None})
    assert found == {"a": 0.5, "b": 1}
    assert type(found["a"]) is float


def test_examples_of_several_datasets_are_set() -> None:
    card = SparseEncoderModelCardData()
    card.set_widget_examples(
        DatasetDict({"a": Dataset.from_dict({"x": ["longer"]}), "b": Dataset.from_dict({"y": ["b"]})})
    )
    assert card.widget == [{"text": "b"}, {"text": "longer"}]
    assert card.usage_examples == ["b", "longer"]
