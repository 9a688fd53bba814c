"""Public names of the evaluators besides their calls, against sentence-transformers'; what they give is the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_beir_helpers import offline, write_repository
from peer_evaluator_helpers import TEXTS, found_by, models, pairs, pick, samples, scores

from sparse_encoder import evaluation

peers = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")
peer_evaluators = pytest.importorskip("sentence_transformers.base.evaluation")
peer_examples = pytest.importorskip("sentence_transformers.sentence_transformer.readers")
utilities = pytest.importorskip("sentence_transformers.util")

pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor support:UserWarning", "ignore:Sparse invariant checks:UserWarning"
)

LEFT_OUT = {
    "csv_headers": "a table has the columns of the row that is written, there is no list of them that grows",
    "truncate_dim": "of dense embeddings, always None in the peer's sparse evaluators",
    "precision": "of dense embeddings, always None in the peer's sparse evaluators",
    "compute_metrices": "a misspelling that the peer keeps for old scripts, with a warning",
    "compute_metrices_batched": "likewise",
    "compute_metrices_individual": "likewise",
    "get_corpus_id_ranks": "a tensor in the middle of the peer's search; ours goes through documents by rising id",
    "count_vectors": "sums over the chunks of a call, half-way; active_terms has them",
    "count_lengths": "likewise",
}
"""What the peer's evaluators have and ours have not, and why."""
QUERIES = {f"q{number}": text for number, text in enumerate(TEXTS[:8])}
CORPUS = {f"d{number:02}": text for number, text in enumerate(TEXTS[8:50])}
ANSWERS = {f"q{number}": {f"d{number:02}", f"d{3 * number:02}"} for number in range(8)}


def retrieval(room: Any) -> Any:  # noqa: ANN401
    return room.SparseInformationRetrievalEvaluator(QUERIES, CORPUS, ANSWERS)


MAKERS: dict[str, Callable[[Any, Any], Any]] = {
    "SparseEmbeddingSimilarityEvaluator": lambda room, _: room.SparseEmbeddingSimilarityEvaluator(*pairs(), scores()),
    "SparseBinaryClassificationEvaluator": lambda room, _: room.SparseBinaryClassificationEvaluator(
        *pairs(), [int(score > 3) for score in scores()]
    ),
    "SparseTripletEvaluator": lambda room, _: room.SparseTripletEvaluator(*pairs(), pick(40, 6)),
    "SparseTranslationEvaluator": lambda room, _: room.SparseTranslationEvaluator(TEXTS[:25], TEXTS[10:35]),
    "SparseRerankingEvaluator": lambda room, _: room.SparseRerankingEvaluator(samples()),
    "SparseMSEEvaluator": lambda room, model: room.SparseMSEEvaluator(TEXTS[:5], TEXTS[5:10], model),
    "SparseInformationRetrievalEvaluator": lambda room, _: retrieval(room),
    "ReciprocalRankFusionEvaluator": lambda room, _: room.ReciprocalRankFusionEvaluator(found_by(7), found_by(8)),
    "SequentialEvaluator": lambda room, _: room.SequentialEvaluator([retrieval(evaluation)]),
}


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("name", [*MAKERS, "SparseNanoBEIREvaluator"])
def test_public_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "SparseNanoBEIREvaluator":
        offline(monkeypatch, tmp_path / "cache")
        given = {"dataset_names": ["msmarco"], "dataset_id": write_repository(tmp_path / "hub", listed=False)}
        ours, theirs = (room.SparseNanoBEIREvaluator(**given) for room in (evaluation, peers))
        assert ours.information_retrieval_class.__name__ == theirs.information_retrieval_class.__name__
    else:
        theirs_room = peers if hasattr(peers, name) else peer_evaluators
        ours, theirs = (
            MAKERS[name](room, model) for room, model in zip((evaluation, theirs_room), models(), strict=True)
        )
    missing = public(theirs) - public(ours)
    assert missing <= LEFT_OUT.keys()
    for attribute in public(ours) & public(theirs):
        mine, peer = getattr(ours, attribute), getattr(theirs, attribute)
        plain = peer is None or isinstance(peer, (str, int, float, list, tuple))
        if plain and attribute not in ("evaluators", "primary_metric", "source_embeddings"):
            assert mine == (list(peer) if isinstance(mine, list) else peer), attribute


def test_what_is_left_out_is_still_the_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path / "cache")
    repository = write_repository(tmp_path / "hub", listed=False)
    theirs = [make(peers, models()[1]) for name, make in MAKERS.items() if hasattr(peers, name)]
    theirs.append(peers.SparseNanoBEIREvaluator(["msmarco"], repository))
    assert set().union(*map(public, theirs)) >= LEFT_OUT.keys()
    assert all(LEFT_OUT.values())


@pytest.mark.parametrize(
    ("name", "num_texts"),
    [
        ("SparseEmbeddingSimilarityEvaluator", 2),
        ("SparseBinaryClassificationEvaluator", 2),
        ("SparseTripletEvaluator", 3),
    ],
)
def test_examples(name: str, num_texts: int) -> None:
    columns = [pick(20, 30 + place) for place in range(num_texts)]
    examples = [
        peer_examples.InputExample(texts=list(texts), label=row % 2)
        for row, texts in enumerate(zip(*columns, strict=True))
    ]
    given = {"name": "x", "batch_size": 7, "max_active_dims": 4, "similarity_fn_names": ["dot", "cosine"]}
    ours, theirs = (getattr(room, name).from_input_examples(examples, **given) for room in (evaluation, peers))
    model, peer_model = models()
    found, expected = ours(model), theirs(peer_model)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=2e-6, abs=1e-6)
    assert (ours.batch_size, ours.max_active_dims, ours.show_progress_bar) == (7, 4, False)


def test_metrics_without_a_row_of_results() -> None:
    model, peer_model = models("cosine")
    labels, names = [int(score > 3) for score in scores()], ["cosine", "dot"]  # the peer takes none from a model here
    ours, theirs = (
        room.SparseBinaryClassificationEvaluator(*pairs(), labels, similarity_fn_names=names)
        for room in (evaluation, peers)
    )
    found, expected = ours.compute_metrics(model), theirs.compute_metrics(peer_model)
    assert list(found) == list(expected) == names
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=2e-6, abs=1e-6)
    ours, theirs = (MAKERS["SparseRerankingEvaluator"](room, None) for room in (evaluation, peers))
    assert ours.samples == theirs.samples
    for method in ("compute_metrics", "compute_metrics_batched", "compute_metrics_individual"):
        found, expected = getattr(ours, method)(model), getattr(theirs, method)(peer_model)
        assert found == pytest.approx(expected, rel=2e-6)


def test_rankings_from_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(5)
    rankings = [
        [{"corpus_id": f"d{place:02}", "score": float(random.integers(0, 9))} for place in random.permutation(42)[:30]]
        for _ in QUERIES
    ]
    ours, theirs = retrieval(evaluation), retrieval(peers)
    found, expected = ours.compute_metrics(rankings), theirs.compute_metrics(rankings)
    assert found.keys() == expected.keys()
    for metric in found:
        assert found[metric] == pytest.approx(expected[metric])
    caplog.set_level(logging.INFO)
    ours.output_scores(found)
    assert f"NDCG@10: {found['ndcg@k'][10]:.4f}" in caplog.text
    assert ours.compute_dcg_at_k([3, 2, 0, 1], 3) == pytest.approx(theirs.compute_dcg_at_k([3, 2, 0, 1], 3))
    fused, peer_fused = (MAKERS["ReciprocalRankFusionEvaluator"](room, None) for room in (evaluation, peers))
    labels, values = [0, 1, 0, 1, 0], [0.1, 0.5, 0.9, 0.2, 0.3]
    assert fused.compute_metrics(labels, values) == pytest.approx(peer_fused.compute_metrics(labels, values))


@pytest.mark.parametrize("high", [True, False])
def test_thresholds(high: bool) -> None:
    random = np.random.default_rng(8)
    values, labels = random.integers(0, 12, 50) / 4, random.integers(0, 2, 50)
    ours, theirs = (room.SparseBinaryClassificationEvaluator for room in (evaluation, peers))
    for method in ("find_best_acc_and_threshold", "find_best_f1_and_threshold"):
        found = getattr(ours, method)(values, labels, high_score_more_similar=high)
        assert found == pytest.approx(getattr(theirs, method)(values, labels, high))


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("Sparse")])
def test_embeddings(name: str) -> None:
    model, peer_model = models()
    ours, theirs = MAKERS[name](evaluation, model), MAKERS[name](peers, peer_model)
    texts = TEXTS[:6]
    found = ours.embed_inputs(model, texts)
    expected = theirs.embed_inputs(peer_model, texts)
    rows = expected.to_dense() if hasattr(expected, "to_dense") else np.stack([row.to_dense() for row in expected])
    assert found.to_dense().tolist() == np.asarray(rows).tolist()
    asked = model.encode_query(texts, max_active_dims=None)
    assert ours.embed_inputs(model, "text 1").shape[0] == 1
    assert ours.embed_inputs(model, texts, "query").to_dense().tolist() == asked.to_dense().tolist()
    with pytest.raises(ValueError, match="encode_fn_name must be 'query', 'document' or None, got 'dense'"):
        ours.embed_inputs(model, texts, "dense")
