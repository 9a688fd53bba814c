from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from evaluation_helpers import random_model
from nano_beir_helpers import TEXTS, offline, write_repository

from sparse_encoder.checkpoint import LoadError
from sparse_encoder.evaluation import SparseNanoBEIREvaluator
from sparse_encoder.evaluation.nano_beir import SPLITS, check_names, load_nano

TWO = ("NanoMSMARCO", "NanoNQ")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offline(monkeypatch, tmp_path / "cache")


def test_one_data_set(tmp_path: Path) -> None:
    changes: dict[tuple[str, str], list[dict[str, Any]]] = {
        ("corpus", "NanoNQ"): [{"_id": "d1", "text": "a"}, {"_id": "d2", "text": ""}, {"_id": "d3", "text": "b"}],
        ("queries", "NanoNQ"): [{"_id": "q1", "text": "x"}, {"_id": "q2", "text": ""}],
        ("qrels", "NanoNQ"): [
            {"query-id": "q1", "corpus-id": "d3"},
            {"query-id": "q1", "corpus-id": "d2"},
            {"query-id": "q2", "corpus-id": "d1"},
        ],
    }
    found = load_nano("nq", write_repository(tmp_path / "hub", changes, splits=TWO))
    assert found.corpus == {"d1": "a", "d3": "b"}
    assert found.queries == {"q1": "x"}
    assert found.relevant_docs == {"q1": {"d2", "d3"}, "q2": {"d1"}}


def test_the_aggregate_by_hand(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "hub", splits=TWO)
    evaluator = SparseNanoBEIREvaluator(["msmarco", "nq"], repository, aggregate_fn=sum, aggregate_key="sum_of_all")
    model = random_model(TEXTS)
    model.model_card_data = SimpleNamespace(  # type: ignore[attr-defined]
        set_evaluation_metrics=lambda evaluator, metrics, epoch, step: kept.append((type(evaluator).__name__, metrics))
    )
    kept: list[tuple[str, dict[str, float]]] = []
    found = evaluator(model)
    total = found["NanoMSMARCO_dot_ndcg@10"] + found["NanoNQ_dot_ndcg@10"]
    assert found["NanoBEIR_sum_of_all_dot_ndcg@10"] == pytest.approx(total)
    assert evaluator.primary_metric == "NanoBEIR_sum_of_all_dot_ndcg@10"
    sizes = [len(each.corpus) for each in evaluator.evaluators]
    assert sizes == [30, 35]
    weighted = 30 * found["NanoMSMARCO_corpus_active_dims"] + 35 * found["NanoNQ_corpus_active_dims"]
    assert found["NanoBEIR_sum_of_all_corpus_active_dims"] == pytest.approx(weighted / 65)
    queries = [len(each.queries) for each in evaluator.evaluators]
    postings = [found[f"{name}_postings_per_query"] * size for name, size in zip(TWO, queries, strict=True)]
    assert found["NanoBEIR_sum_of_all_postings_per_query"] == pytest.approx(sum(postings) / sum(queries))
    assert [name for name, _ in kept] == [*["SparseInformationRetrievalEvaluator"] * 2, "SparseNanoBEIREvaluator"]
    assert all(name.startswith("NanoBEIR_sum_of_all_") for name in kept[2][1])
    assert not any("milliseconds" in name for name in kept[2][1])


def test_prompts_and_options_reach_the_model(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "hub", splits=TWO)
    prompts = {"nq": "ask: ", "MSMARCO": "find: "}
    evaluator = SparseNanoBEIREvaluator(
        ["nq", "MSMARCO"],
        repository,
        query_prompts=prompts,
        corpus_prompts="text: ",
        max_active_dims=2,
        batch_size=7,
        skip_own_id=True,
    )
    model = random_model(TEXTS)
    found = evaluator(model)
    assert [(call["prompt"], call["batch_size"], call["max_active_dims"]) for call in model.calls] == [
        *(("ask: ", 7, 2), ("text: ", 7, 2), ("find: ", 7, 2), ("text: ", 7, 2))
    ]
    assert {"NanoNQ_2_dot_map@100", "NanoBEIR_mean_2_dot_map@100"} <= set(found)
    assert all(each.skip_own_id for each in evaluator.evaluators)
    assert evaluator.get_config_dict() == {
        "dataset_names": ["nq", "MSMARCO"],
        "dataset_id": repository,
        "query_prompts": prompts,
        "corpus_prompts": {"nq": "text: ", "MSMARCO": "text: "},
        "max_active_dims": 2,
    }


def test_names() -> None:
    assert check_names(None) == list(SPLITS)
    assert len(SPLITS) == 13
    with pytest.raises(ValueError, match=r"unknown NanoBEIR dataset_names \['bing'\]; choose from \['climatefever'"):
        check_names(["nq", "bing"])
    with pytest.raises(ValueError, match="must not be empty"):
        check_names([])
    with pytest.raises(ValueError, match="must be different"):
        check_names(["nq", "NQ"])
    with pytest.raises(TypeError, match="must be a list of names, got 'nq'"):
        check_names("nq")
    with pytest.raises(ValueError, match=r"query_prompts must have a prompt for each .*lacks \['nq'\]"):
        SparseNanoBEIREvaluator(["nq", "fever"], "nowhere", query_prompts={"fever": ""})


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nowhere: cannot read subset 'queries', split 'NanoNQ'"):
        load_nano("nq", str(tmp_path / "nowhere"))
    repository = write_repository(tmp_path / "hub", splits=("NanoMSMARCO",))
    with pytest.raises(LoadError, match="cannot read subset 'queries', split 'NanoNQ'"):
        load_nano("nq", repository)
    changes = {("corpus", "NanoNQ"): [{"_id": "d1", "title": "a"}]}
    with pytest.raises(LoadError, match=r"split 'NanoNQ' must have the columns \['_id', 'text'\], lacks \['text'\]"):
        load_nano("nq", write_repository(tmp_path / "other", changes, splits=("NanoNQ",)))
    unknown = {("qrels", "NanoNQ"): [{"query-id": "q1", "corpus-id": "d999"}]}
    with pytest.raises(ValueError, match="of query 'q1' names the unknown document 'd999'"):
        load_nano("nq", write_repository(tmp_path / "unknown", unknown, splits=("NanoNQ",)))


def test_models_of_another_similarity_bring_their_own_names(tmp_path: Path) -> None:
    evaluator = SparseNanoBEIREvaluator(["nq", "msmarco"], write_repository(tmp_path / "hub", splits=TWO))
    evaluator(random_model(TEXTS), str(tmp_path / "out"))
    found = evaluator(random_model(TEXTS, similarity_fn_name="cosine"), str(tmp_path / "out"))
    assert evaluator.primary_metric == "NanoBEIR_mean_cosine_ndcg@10"
    assert evaluator.primary_metric in found
    assert (tmp_path / "out" / "NanoBEIR_evaluation_mean_results.1.csv").exists()  # the old headers stay true
    assert torch.tensor([found["NanoNQ_cosine_ndcg@10"]]).isfinite()
