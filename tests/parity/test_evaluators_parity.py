"""Every metric, column, file and setting of the evaluators against sentence-transformers', on the same embeddings."""

from __future__ import annotations

import csv
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import mixed_texts, write_masked_language_model
from nano_beir_helpers import offline, write_repository
from peer_evaluator_helpers import TEXTS, found_by, models, pairs, pick, samples, scores

from sparse_encoder import SparseEncoder, evaluation

peers = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")
peer_models = pytest.importorskip("sentence_transformers.sparse_encoder")
peer_evaluators = pytest.importorskip("sentence_transformers.base.evaluation")
utilities = pytest.importorskip("sentence_transformers.util")

pytestmark = pytest.mark.filterwarnings(  # the peer makes torch say these, once a process
    "ignore:Sparse CSR tensor support:UserWarning", "ignore:Sparse invariant checks:UserWarning"
)

EXTRA = {"avg_flops", "milliseconds_per_query", "milliseconds_per_text", "postings_per_query"}
"""Metrics that the peer does not have."""
SIMILARITIES = ["dot", "cosine", "euclidean", "manhattan"]


def names(*chosen: str) -> dict[str, Any]:
    return {"similarity_fn_names": list(chosen)}


COMMON: list[dict[str, Any]] = [{}, {"name": "dev", "max_active_dims": 3}, {"write_csv": False}]
SPARSE: dict[str, tuple[Callable[[], tuple[Any, ...]], list[dict[str, Any]]]] = {
    "SparseEmbeddingSimilarityEvaluator": (
        lambda: (*pairs(), scores()),
        [
            *COMMON,
            names(*SIMILARITIES),
            {"main_similarity": "manhattan"},
            {"main_similarity": "cosine", "name": "x", **names("dot", "cosine")},
        ],
    ),
    "SparseBinaryClassificationEvaluator": (
        lambda: (*pairs(), [int(score > 3) for score in scores()]),
        [*COMMON, names(*SIMILARITIES), {"name": "x", **names("manhattan", "dot")}],
    ),
    "SparseTripletEvaluator": (
        lambda: (*pairs(), pick(40, 6)),
        [
            *COMMON,
            names(*SIMILARITIES),
            {"margin": 0.5},
            {"margin": {"cosine": 0.1}, "main_similarity_function": "cosine", **names("dot", "cosine")},
            {"main_distance_function": "euclidean", "name": "x"},
        ],
    ),
    "SparseTranslationEvaluator": (lambda: (TEXTS[:25], TEXTS[10:35]), [*COMMON, {"print_wrong_matches": True}]),
    "SparseRerankingEvaluator": (
        lambda: (samples(),),
        [
            *COMMON,
            {"at_k": 3, "use_batched_encoding": False, "name": "y"},
            {"mrr_at_k": 2, "similarity_fct": utilities.dot_score},
        ],
    ),
}
CASES = [(name, options) for name, (_, cases) in SPARSE.items() for options in cases]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value)[:60])
def test_same_metrics_tables_and_settings(
    name: str, options: dict[str, Any], similarity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = SPARSE[name][0]()
    ours, theirs = getattr(evaluation, name)(*arguments, **options), getattr(peers, name)(*arguments, **options)
    for epoch, seed in ((1, 0), (2, 1)):
        model, peer_model = models(similarity, seed)
        found = ours(model, str(tmp_path / "ours"), epoch, 10 * epoch)
        printed = capsys.readouterr().out
        expected = theirs(peer_model, str(tmp_path / "peer"), epoch, 10 * epoch)
        assert_same_texts(printed, capsys.readouterr().out)
        assert_same_metrics(found, expected)
        assert model.model_card_data.metrics == pytest.approx(peer_model.model_card_data.metrics, rel=1e-6, abs=1e-6)
        assert list(model.model_card_data.metrics) == list(expected)
    assert ours.primary_metric == theirs.primary_metric
    assert ours.greater_is_better == theirs.greater_is_better
    assert ours.description == theirs.description
    assert ours.get_config_dict() == theirs.get_config_dict()
    assert_same_files(tmp_path)


def assert_same_metrics(found: dict[str, float], expected: dict[str, float]) -> None:
    assert [key for key in found if key in expected] == list(expected)
    assert {key.split("_", 1)[1] if key not in EXTRA else key for key in found if key not in expected} <= EXTRA
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=2e-6, abs=1e-6)
    assert all(type(value) is float for value in found.values())


def assert_same_texts(found: str, expected: str) -> None:
    """Compare what was printed: lines by text, and the scores in them."""
    score = re.compile(r"\(Score: ([-0-9.]+)\)")
    assert [score.sub("", line).split() for line in found.splitlines()] == [
        score.sub("", line).split() for line in expected.splitlines()
    ]
    numbers = [[float(number) for number in score.findall(text)] for text in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-4)


def assert_same_files(folder: Path) -> None:
    files = [
        sorted(path.name for path in (folder / kind).iterdir()) if (folder / kind).exists() else []
        for kind in ("ours", "peer")
    ]
    assert files[0] == files[1]
    for file in files[0]:
        ours, peer = folder / "ours" / file, folder / "peer" / file
        if file.endswith(".jsonl"):
            lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (ours, peer)]
            assert lines[0] == lines[1]
            continue
        assert table(ours)[0] == table(peer)[0]
        for row, expected in zip(table(ours)[1], table(peer)[1], strict=True):
            assert row == pytest.approx(expected, rel=2e-6, abs=1e-6)


def table(path: Path) -> tuple[list[str], list[list[float]]]:
    with path.open(newline="", encoding="utf-8") as file:
        headers, *rows = csv.reader(file)
    return headers, [[float(value) for value in row] for row in rows]


@pytest.mark.parametrize("options", COMMON, ids=str)
def test_distances_to_a_teacher(options: dict[str, Any], tmp_path: Path) -> None:
    (teacher, peer_teacher), (student, peer_student) = models(seed=0), models(seed=1)
    ours = evaluation.SparseMSEEvaluator(TEXTS[:20], TEXTS[20:40], teacher, **options)
    theirs = peers.SparseMSEEvaluator(TEXTS[:20], TEXTS[20:40], peer_teacher, **options)
    for model, peer_model in ((student, peer_student), (teacher, peer_teacher)):
        found, expected = (
            ours(model, str(tmp_path / "ours"), 0.5, 3),
            theirs(peer_model, str(tmp_path / "peer"), 0.5, 3),
        )
        assert_same_metrics(found, expected)
        assert model.model_card_data.metrics == pytest.approx(peer_model.model_card_data.metrics, rel=1e-6)
    assert (ours.primary_metric, ours.description) == (theirs.primary_metric, theirs.description)
    assert ours.get_config_dict() == theirs.get_config_dict()
    assert_same_files(tmp_path)


@pytest.mark.parametrize(
    "options", [{}, {"name": "dev", "at_k": 3, "rrf_k": 1}, {"write_predictions": True}, {"write_csv": False}], ids=str
)
def test_joined_rankings(options: dict[str, Any], tmp_path: Path) -> None:
    ours = evaluation.ReciprocalRankFusionEvaluator(found_by(7), found_by(8), **options)
    theirs = peers.ReciprocalRankFusionEvaluator(found_by(7), found_by(8), **options)
    for epoch in (1, 2):
        found = ours(str(tmp_path / "ours"), epoch, 10) if epoch == 1 else ours(object(), str(tmp_path / "ours"), 2, 20)
        assert_same_metrics(found, theirs(str(tmp_path / "peer"), epoch, 10 * epoch))
    assert ours() == ours(output_path=None) == found
    assert (ours.primary_metric, ours.description) == (theirs.primary_metric, theirs.description)
    assert ours.get_config_dict() == theirs.get_config_dict()
    assert_same_files(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dataset_names": ["NQ"], "write_predictions": True},
        {"max_active_dims": 3, "aggregate_fn": np.max, "aggregate_key": "max", "mrr_at_k": [3, 5], "map_at_k": [20]},
        {"query_prompts": "", "corpus_prompts": {"msmarco": "", "NQ": "", "arguana": ""}, "write_csv": False},
        {"main_score_function": "dot", "score_functions": {"dot": utilities.dot_score, "cosine": utilities.cos_sim}},
    ],
    ids=lambda options: str(options)[:60],
)
def test_nano_beir(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path / "cache")
    repository = write_repository(tmp_path / "hub", listed="dataset_names" in options)
    given = {"dataset_names": ["msmarco", "NQ", "arguana"], "dataset_id": repository} | options
    ours, theirs = evaluation.SparseNanoBEIREvaluator(**given), peers.SparseNanoBEIREvaluator(**given)
    for epoch, similarity in ((1, "dot"), (2, "cosine" if "score_functions" not in options else "dot")):
        if epoch == 2 and similarity == "cosine" and options.get("write_csv", True):
            break  # the peer adds the row under the headers of another similarity
        model, peer_model = models(similarity)
        found = ours(model, str(tmp_path / "ours"), epoch, 10 * epoch)
        expected = theirs(peer_model, str(tmp_path / "peer"), epoch, 10 * epoch)
        assert [key for key in found if key in expected] == list(expected)
        added = {key for key in found if key not in expected}
        assert {key.removesuffix(cost) for key in added for cost in EXTRA if key.endswith(cost)} == {
            *(f"{each.name}_" for each in (*ours.evaluators, ours))
        }
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=2e-6, abs=1e-6)
        if len(ours.dataset_names) > 1:  # else the peer stores those of the one data set, as we do
            assert list(model.model_card_data.metrics) == list(peer_model.model_card_data.metrics)
        assert model.model_card_data.metrics == pytest.approx(peer_model.model_card_data.metrics, rel=2e-6, abs=1e-6)
    assert ours.primary_metric == theirs.primary_metric
    assert ours.description == theirs.description
    assert ours.get_config_dict() == theirs.get_config_dict()
    assert ours.name == theirs.name
    assert_same_files(tmp_path)


ALL = [
    *SPARSE,
    "SparseNanoBEIREvaluator",
    "SparseMSEEvaluator",
    "ReciprocalRankFusionEvaluator",
    "SparseInformationRetrievalEvaluator",
]


def parameters(function: object) -> list[tuple[str, object]]:
    found = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [
        (each.name, tuple(each.default) if isinstance(each.default, list) else each.default)
        for each in found
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]


@pytest.mark.parametrize("name", ALL)
def test_same_signatures(name: str) -> None:
    ours, theirs = parameters(getattr(evaluation, name)), parameters(getattr(peers, name))
    if name == "SparseRerankingEvaluator":  # the same function of each library
        ours, theirs = (
            [(key, "f" if key == "similarity_fct" else value) for key, value in all] for all in (ours, theirs)
        )
    assert ours == theirs


def test_nothing_is_missing() -> None:
    assert {*peers.__all__, *peer_evaluators.__all__} <= set(evaluation.__all__)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    write_masked_language_model(folder / "bert")
    SparseEncoder(str(folder / "bert")).save_pretrained(str(folder / "splade"))
    return str(folder / "splade")


@pytest.mark.parametrize("name", ["similarity", "binary", "triplet", "reranking", "translation", "mse", "retrieval"])
def test_a_saved_model_measured_by_both(name: str, saved: str) -> None:
    texts = mixed_texts(36, longest=12)
    first, second, third = texts[:12], texts[12:24], texts[24:]
    model, peer_model = SparseEncoder(saved, device="cpu"), peer_models.SparseEncoder(saved, device="cpu")
    queries, corpus = (
        {f"q{n}": text for n, text in enumerate(first)},
        {f"d{n}": t for n, t in enumerate(second + third)},
    )
    relevant = {f"q{n}": {f"d{n}", f"d{2 * n}"} for n in range(12)}
    candidates = [
        {"query": query, "positive": [positive], "negative": third[:5]}
        for query, positive in zip(first, second, strict=True)
    ]
    makers: dict[str, Callable[[Any, Any], Any]] = {
        "similarity": lambda room, _: room.SparseEmbeddingSimilarityEvaluator(first, second, scores(12)),
        "binary": lambda room, _: room.SparseBinaryClassificationEvaluator(first, second, [0, 1, 1] * 4),
        "triplet": lambda room, _: room.SparseTripletEvaluator(first, second, third),
        "reranking": lambda room, _: room.SparseRerankingEvaluator(candidates),
        "translation": lambda room, _: room.SparseTranslationEvaluator(first, second),
        "mse": lambda room, teacher: room.SparseMSEEvaluator(first, second, teacher),
        "retrieval": lambda room, _: room.SparseInformationRetrievalEvaluator(queries, corpus, relevant),
    }
    found, expected = makers[name](evaluation, model)(model), makers[name](peers, peer_model)(peer_model)
    assert [key for key in found if key in expected] == list(expected)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
