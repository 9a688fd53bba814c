"""``sparse-encoder evaluate``: figures on the screen and in files, comparisons, and mistakes told before the work."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
from collections_helpers import DOCUMENTS, QRELS, QUERIES, write_beir, write_lines
from model_helpers import write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.cli.main import main
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.evaluation.run_metrics import DEFAULT_METRICS, means, measure_run
from sparse_encoder.evaluation.significance import compare
from sparse_encoder.evaluation.trec_files import read_run, write_run

FACTS = ["library", "model", "model_fingerprint", "collection", "split"]
COSTS = {
    "query_terms",
    "document_terms",
    "avg_flops",
    "postings_per_query",
    "num_postings",
    "index_megabytes",
    "search_ms_per_query",
    "ms_per_query",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_beir(folder / "small")
    write_masked_language_model(folder / "model")
    return folder


def evaluate(place: Path, *options: str, model: str = "model", collection: str = "small") -> int:
    name = model if model == "bm25" else str(place / model)
    return main(["evaluate", name, str(place / collection), *options])


def test_a_model_in_a_folder(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(place, "--output", str(tmp_path / "out"), "--batch-size", "2", "--device", "cpu") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    run = read_run(tmp_path / "out" / "run.trec")
    assert list(results) == [*FACTS, "metrics", "cost", "per_query"]
    assert (results["collection"], results["split"]) == ("small", None)
    assert results["per_query"] == measure_run(run, QRELS)
    assert results["metrics"] == means(results["per_query"])
    assert results["cost"].keys() == COSTS
    assert results["model_fingerprint"] == SparseEncoder(str(place / "model")).fingerprint
    assert run.keys() == QRELS.keys()
    model = SparseEncoder(str(place / "model"))
    documents = model.encode_document([DOCUMENTS[name] for name in DOCUMENTS])
    queries = model.encode_query([QUERIES["q1"], QUERIES["q2"]])
    scores = model.similarity(queries, documents)
    for number, query in enumerate(("q1", "q2")):
        expected = dict(zip(DOCUMENTS, scores[number].tolist(), strict=True))
        assert run[query] == pytest.approx({name: score for name, score in expected.items() if score > 0}, rel=1e-5)
    shown = capsys.readouterr().out
    assert "model on small: 5 documents, 2 judged queries" in shown
    for metric in DEFAULT_METRICS:
        assert re.search(rf"^{metric} +{results['metrics'][metric]:.4f}$", shown, flags=re.MULTILINE)
    for what in ("active terms of a query", "FLOPS", "postings touched per query", "search, ms per query"):
        assert what in shown


def test_it_agrees_with_the_evaluator_of_trainings(place: Path, tmp_path: Path) -> None:
    assert evaluate(place, "--output", str(tmp_path)) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    evaluator = SparseInformationRetrievalEvaluator(
        QUERIES, DOCUMENTS, QRELS, precision_recall_at_k=[100, 1000], skip_own_id=True
    )
    theirs = evaluator(SparseEncoder(str(place / "model")))
    ours = results["metrics"]
    for metric, key in (("nDCG@10", "ndcg@10"), ("MRR@10", "mrr@10"), ("Recall@1000", "recall@1000")):
        assert ours[metric] == pytest.approx(theirs[f"dot_{key}"])
    assert results["cost"]["avg_flops"] == pytest.approx(theirs["avg_flops"])
    assert results["cost"]["query_terms"] == pytest.approx(theirs["query_active_dims"])


def test_what_judgements_mean_is_the_same_in_both(place: Path, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "odd")
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q3\td1\t0\nq3\td2\t-1\nq1\tlost\t3\nq9\td1\t1\n")  # nothing relevant, two unknown ids
    assert evaluate(place, "--output", str(tmp_path / "out"), collection=str(folder)) == 2
    assert evaluate(place, "--allow-unknown", "--output", str(tmp_path / "out"), collection=str(folder)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    qrels = {"q1": QRELS["q1"] | {"lost": 3}, "q2": QRELS["q2"], "q3": {"d1": 0, "d2": -1}, "q9": {"d1": 1}}
    evaluator = SparseInformationRetrievalEvaluator(
        QUERIES, DOCUMENTS, qrels, precision_recall_at_k=[100, 1000], skip_own_id=True, allow_unknown=True
    )
    theirs = evaluator(SparseEncoder(str(place / "model")))
    assert list(results["per_query"]["MAP"]) == evaluator.queries_ids == ["q1", "q2", "q3"]
    assert results["per_query"]["nDCG@10"]["q3"] == 0.0
    for metric, key in (("nDCG@10", "ndcg@10"), ("MRR@10", "mrr@10"), ("Recall@100", "recall@100")):
        assert 0 < results["metrics"][metric] == pytest.approx(theirs[f"dot_{key}"])
    ir_measures = pytest.importorskip("ir_measures")
    del qrels["q9"]  # which no run can have
    run, measures = read_run(tmp_path / "out" / "run.trec"), [ir_measures.nDCG @ 10, ir_measures.R @ 100]
    expected = ir_measures.calc_aggregate(measures, qrels, run)
    assert [results["metrics"][name] for name in ("nDCG@10", "Recall@100")] == pytest.approx(
        [expected[measure] for measure in measures]
    )


def test_metrics_that_are_asked_for(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(place, "--output", str(tmp_path / "out"), "--metrics", "nDCG@3", "R@1000", "AP", "R@2000") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    run = read_run(tmp_path / "out" / "run.trec")
    asked = ["nDCG@3", "R@1000", "AP", "R@2000"]
    assert list(results["metrics"]) == list(results["per_query"]) == asked
    assert results["per_query"] == measure_run(run, QRELS, asked)
    assert re.search(r"^R@2000 +1\.0000$", capsys.readouterr().out, flags=re.MULTILINE)
    baseline = ["--baseline", str(tmp_path / "out" / "run.trec"), "--output", str(tmp_path / "out"), "--metrics", "P@1"]
    assert evaluate(place, *baseline) == 0
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["baseline"]) == ["P@1"]


def test_metrics_that_are_asked_for_twice_are_told_once(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(place, "--output", str(tmp_path), "--metrics", "P@1", "MAP", "P@1") == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["metrics"]) == ["P@1", "MAP"]
    assert capsys.readouterr().out.count("P@1") == 1


@pytest.mark.parametrize("option", ["--batch-size", "--max-active-dims"])
@pytest.mark.parametrize("command", ["evaluate", "prune-sweep"])
def test_numbers_are_judged_before_anything_is_read(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "no/model", "no/collection", option, "0"]) == 2
    assert f"argument {option}: must be an integer from 1 up, got 0" in capsys.readouterr().err


def test_rankings_are_as_long_as_the_deepest_metric(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparse_encoder.cli.evaluate.DEPTH", 2)
    for metric, length in (("R@1", 2), ("R@4", 4)):
        assert evaluate(place, "--output", str(tmp_path), "--metrics", metric) == 0
        assert {len(found) for found in read_run(tmp_path / "run.trec").values()} == {length}


def test_fewer_terms_and_another_type(place: Path, tmp_path: Path) -> None:
    assert evaluate(place, "--max-active-dims", "3", "--dtype", "bfloat16", "--output", str(tmp_path)) == 0
    cost = json.loads((tmp_path / "results.json").read_text())["cost"]
    assert (cost["query_terms"], cost["document_terms"], cost["num_postings"]) == (3.0, 3.0, 15)


def test_texts_without_a_word(place: Path, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "empty")
    for file in ("corpus.jsonl", "queries.jsonl"):
        rows = [json.loads(line) for line in (folder / file).read_text().splitlines()]
        rows[0] = {"_id": rows[0]["_id"], "text": ""}
        write_lines(folder / file, [json.dumps(row) for row in rows])
    assert evaluate(place, "--output", str(tmp_path / "bm25"), model="bm25", collection=str(folder)) == 0
    assert read_run(tmp_path / "bm25" / "run.trec").keys() == {"q2"}  # q1 has no words and finds nothing
    per_query = json.loads((tmp_path / "bm25" / "results.json").read_text())["per_query"]
    assert per_query["MAP"] == {"q1": 0.0, "q2": 1.0}
    assert evaluate(place, collection=str(folder)) == 0


def test_a_baseline(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(place, "--output", str(tmp_path / "bm25"), model="bm25") == 0
    run = tmp_path / "bm25" / "run.trec"
    assert read_run(run)["q2"].keys() == {"d4"}
    capsys.readouterr()
    assert evaluate(place, "--baseline", str(run), "--output", str(tmp_path / "model")) == 0
    results = json.loads((tmp_path / "model" / "results.json").read_text())
    expected = compare(measure_run(read_run(run), QRELS), results["per_query"])
    assert results["baseline"] == {
        metric: {**each._asdict(), "difference": each.difference} for metric, each in expected.items()
    }
    shown = capsys.readouterr().out
    assert re.search(r"^nDCG@10 +0\.\d{4} +0\.\d{4} +[+-]0\.\d{4} +\d\.\d{4} +\d\.\d{4}$", shown, flags=re.MULTILINE)
    assert "p-values adjusted to 6 metrics (Holm)" in shown


def test_vectors_that_are_kept_are_not_made_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = str(tmp_path / "vectors")
    assert evaluate(place, "--embeddings", vectors, "--output", str(tmp_path / "first")) == 0
    monkeypatch.setattr(SparseEncoder, "encode_document", None)
    assert evaluate(place, "--embeddings", vectors, "--output", str(tmp_path / "second")) == 0
    assert f"vectors from {vectors}" in capsys.readouterr().out
    runs = [(tmp_path / name / "run.trec").read_bytes() for name in ("first", "second")]
    assert runs[0] == runs[1]
    assert evaluate(place, "--embeddings", vectors, model="bm25") == 2
    assert "the vectors are of another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--batch-size", "0"], "argument --batch-size: must be an integer from 1 up, got 0"),
        (["--batch-size", "many"], "argument --batch-size: must be an integer from 1 up, got many"),
        (["--max-active-dims", "0"], "argument --max-active-dims: must be an integer from 1 up, got 0"),
        (["--split", "dev"], "there is no split 'dev'; there are ['test']"),
        (["--baseline", "nothing.trec"], "nothing.trec"),
        (["--metrics", "nDCG@10", "ndcg@10"], "unknown metric 'ndcg@10'; choose from ['AP', 'MAP', 'MRR@k', 'P@k', "),
        (["--device", "gpu7"], "--device gpu7 cannot be used: "),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used: "),
        (["--device", "meta"], "--device meta cannot be used: "),
    ],
)
def test_options_that_do_not_fit(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert evaluate(place, *options) == 2
    assert reason in capsys.readouterr().err


def test_mistakes_are_told_before_the_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparseEncoder, "encode_document", None)  # nothing may be encoded
    write_lines(tmp_path / "taken" / "thesis.txt", ["mine"])
    assert evaluate(place, "--output", str(tmp_path / "taken")) == 2
    assert "holds something else than results (thesis.txt)" in capsys.readouterr().err
    write_lines(tmp_path / "bad.trec", ["q1 Q0 d1"])
    assert evaluate(place, "--baseline", str(tmp_path / "bad.trec")) == 2
    assert "bad.trec:1: must have 6 fields" in capsys.readouterr().err
    write_run(tmp_path / "other.trec", {"q77": {"d1": 1.0}})
    assert evaluate(place, "--baseline", str(tmp_path / "other.trec")) == 2
    assert "the baseline has no query that the collection has judgements for" in capsys.readouterr().err
    write_run(tmp_path / "mixed.trec", {"q1": {"d1": 1.0}, "q2": {"d1": 1.0}, "q77": {"d1": 1.0}, "q78": {"d1": 1.0}})
    assert evaluate(place, "--baseline", str(tmp_path / "mixed.trec")) == 2
    assert "has 2 queries that the collection has not, the first is 'q77'" in capsys.readouterr().err
    write_beir(tmp_path / "blanks")
    for file in ("corpus.jsonl", "qrels/test.tsv"):
        path = tmp_path / "blanks" / file
        path.write_text(path.read_text().replace("d1", "d 1"))
    assert evaluate(place, "--output", str(tmp_path / "out"), collection=str(tmp_path / "blanks")) == 2
    assert "the id of a document must not be empty or have blanks" in capsys.readouterr().err
    assert evaluate(place, "--dtype", "float16", model="bm25") == 2
    assert "--dtype is for models, bm25 has none" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--embeddings"])
def test_a_folder_that_cannot_be_made_is_told_before_the_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def refuse(**options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(SparseEncoder, "encode_document", None)  # nothing may be encoded
    write_lines(tmp_path / "file", ["mine"])
    assert evaluate(place, option, str(tmp_path / "file" / "deep" / "folder")) == 2
    assert f"file is no folder; choose another {option}" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert evaluate(place, option, str(tmp_path / "link")) == 2
    assert f"link is no folder; choose another {option}" in capsys.readouterr().err
    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    assert evaluate(place, option, str(tmp_path / "new")) == 2
    assert f"new cannot be written to ([Errno 30] Read-only file system); choose another {option}" in (
        capsys.readouterr().err
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_queries_that_a_baseline_lacks_are_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", {"q2": {"d4": 1.0}, "q3": {"d4": 1.0}})  # q3 is not judged
    options = ["--baseline", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert evaluate(place, *options, model="bm25") == 0
    assert "nothing for 1 of 2 judged queries, the first is 'q1'" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["baseline"]["MAP"]["baseline"] == 0.5


def test_what_is_nowhere(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    assert evaluate(place, collection="missing") == 2
    assert "pip install 'sparse-encoder[ir]'" in capsys.readouterr().err
    assert evaluate(place, model="small") == 2  # a folder that is no model
    assert capsys.readouterr().err.startswith("sparse-encoder evaluate: ")
