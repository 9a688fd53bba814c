"""Sweeps over prunings: rows that can be checked by hand, tables, and the plot."""

from __future__ import annotations

import csv
import io
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from evaluation_helpers import GivenModel, random_model

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation import pruning
from sparse_encoder.evaluation.collections import Collection
from sparse_encoder.evaluation.encoded_collection import (
    EncodedCollection,
    Encoding,
    encode_collection,
    load_encoded,
    save_encoded,
)
from sparse_encoder.evaluation.pruning import PrunedResult, csv_table, default_prunings, markdown_table, sweep
from sparse_encoder.evaluation.pruning_plot import plot_sweep
from sparse_encoder.search import SparseIndex
from sparse_encoder.search.pruning import Pruning


def collection(num_documents: int = 40, num_queries: int = 6) -> Collection:
    return Collection(
        name="random",
        corpus={f"d{number}": f"document {number}" for number in range(num_documents)},
        queries={f"q{number}": f"query {number}" for number in range(num_queries)},
        qrels={f"q{number}": {f"d{number}": 2, f"d{number + 7}": 1} for number in range(num_queries)},
    )


def encoded() -> EncodedCollection:
    texts = collection()
    return encode_collection(
        random_model([*texts.corpus.values(), *texts.queries.values()], density=0.6), texts, Encoding()
    )


def parsed(*texts: str) -> list[Pruning]:
    return [Pruning.parse(text) for text in texts]


def test_less_is_kept_and_touched_the_harder_one_prunes() -> None:
    vectors = encoded()
    rows = list(sweep(vectors, parsed("none", "top_k=4", "top_k=2", "top_k=1")))
    assert [str(row.pruning) for row in rows] == ["none", "top_k=4", "top_k=2", "top_k=1"]
    for name in ("document_terms", "num_postings", "postings_per_query", "avg_flops", "index_megabytes"):
        values = [getattr(row.cost, name) for row in rows]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
    assert rows[-1].cost.num_postings == 40
    assert rows[0].cost.num_postings == vectors.documents.nnz
    assert len({row.cost.query_terms for row in rows}) == 1
    assert rows[0].metrics["nDCG@10"] != rows[-1].metrics["nDCG@10"]


def test_a_row_is_what_measuring_the_pruned_vectors_gives() -> None:
    vectors = encoded()
    pruned = EncodedCollection(
        collection=vectors.collection, documents=vectors.documents.top_k(2), queries=vectors.queries
    )
    (row,) = sweep(vectors, parsed("top_k=2"))
    (expected,) = sweep(pruned, parsed("none"))
    assert row.metrics == expected.metrics
    assert row.cost.num_postings == expected.cost.num_postings


def test_the_side_that_is_pruned() -> None:
    vectors = encoded()
    of = {side: next(sweep(vectors, parsed("top_k=1"), side=side)) for side in ("documents", "queries", "both")}
    whole = next(sweep(vectors, parsed("none")))
    terms = {side: (row.cost.query_terms, row.cost.document_terms) for side, row in of.items()}
    assert terms == {
        "documents": (whole.cost.query_terms, 1.0),
        "queries": (1.0, whole.cost.document_terms),
        "both": (1.0, 1.0),
    }


def test_arguments_are_judged_before_a_row_is_asked_for() -> None:
    vectors = encoded()
    with pytest.raises(ValueError, match=r"unknown side 'left'; choose from \['both', 'documents', 'queries'\]"):
        sweep(vectors, parsed("none"), side="left")
    with pytest.raises(ValueError, match="unknown metric 'ndcg'"):
        sweep(vectors, parsed("none"), metrics=["ndcg"])
    with pytest.raises(TypeError, match="metrics must be a list of names, got 'MAP'"):
        sweep(vectors, parsed("none"), metrics="MAP")
    with pytest.raises(ValueError, match="top_k must be an integer from 1 up, got 0"):
        sweep(vectors, parsed("none"), top_k=0)
    with pytest.raises(TypeError, match="as Pruning.parse.. makes them, number 1 is 'top_k=3'"):
        sweep(vectors, [Pruning(), "top_k=3"])  # type: ignore[list-item]


@pytest.mark.parametrize(("side", "expected"), [("queries", 1), ("documents", 3), ("both", 3)])
def test_documents_that_are_not_pruned_are_indexed_once(
    side: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, built = encoded(), []

    def build(documents: SparseEmbeddings, ids: list[str]) -> SparseIndex:
        built.append(len(documents))
        return SparseIndex.build(documents, ids)

    monkeypatch.setattr(pruning, "SparseIndex", SimpleNamespace(build=build))
    rows = list(sweep(vectors, parsed("none", "top_k=2", "top_k=1"), side=side))
    assert built == [40] * expected
    alone = [next(sweep(vectors, [row.pruning], side=side)) for row in rows]
    assert [row.metrics for row in rows] == [row.metrics for row in alone]
    assert len({tuple(row.metrics.values()) for row in rows}) > 1


def test_8_bits_make_the_index_smaller_and_change_little() -> None:
    whole, small, queries = (
        next(sweep(encoded(), parsed(text), side=side))
        for text, side in (("none", "documents"), ("uint8", "documents"), ("uint8", "queries"))
    )
    assert small.cost.num_postings == whole.cost.num_postings
    assert whole.cost.index_megabytes - small.cost.index_megabytes == pytest.approx(3e-6 * whole.cost.num_postings)
    assert queries.cost.index_megabytes == whole.cost.index_megabytes
    assert small.metrics["Recall@1000"] == whole.metrics["Recall@1000"]


@pytest.mark.parametrize(("similarity", "first"), [("dot", 0.0), ("cosine", 1.0)])
def test_what_is_left_of_a_row_counts_as_a_whole_row_under_the_cosine(similarity: str, first: float) -> None:
    rows = {
        "wide": [0.0, 3.0, 2.0, 2.0, 2.0],  # of the terms beside the second, nothing is left
        "narrow": [2.0, 0.0, 0.0, 0.0, 0.0],
        "asked": [0.6, 0.8, 0.0, 0.0, 0.0],
    }
    texts = Collection(
        name="two",
        corpus={"d1": "wide", "d2": "narrow"},
        queries={"q": "asked"},
        qrels={"q": {"d1": 1}},
    )
    weights = {text: torch.tensor(row) / torch.tensor(row).norm() for text, row in rows.items()}
    vectors = encode_collection(GivenModel(weights, similarity), texts, Encoding())
    prunings = parsed("none", "top_k=1", "top_k=1+uint8")
    # Whole, the rows score 0.8 * 3 / sqrt(21) = 0.52 and 0.6. Of the first 3 / sqrt(21) is left: a cosine of 0.8.
    assert [row.metrics["P@1"] for row in sweep(vectors, prunings, metrics=["P@1"])] == [0.0, first, first]
    both = list(sweep(vectors, prunings, metrics=["P@1"], side="both"))
    assert [row.metrics["P@1"] for row in both] == [0.0, 1.0, 1.0]  # the query keeps its second term alone
    factors = 4 * 2 if similarity == "cosine" else 0  # bytes
    assert both[1].cost.index_megabytes - both[2].cost.index_megabytes == pytest.approx((3 * 2 - factors) / 1e6)


def test_vectors_that_were_kept_are_still_of_cosines(tmp_path: Path) -> None:
    vectors, texts = encoded(), collection()
    for similarity, expected in (("dot", False), ("cosine", True)):
        save_encoded(vectors, {"similarity": similarity}, tmp_path / similarity)
        kept = load_encoded(texts, {"similarity": similarity}, tmp_path / similarity)
        assert kept is not None
        assert kept.cosine is expected


def test_nothing_may_be_left() -> None:
    (row,) = sweep(encoded(), parsed("threshold=1000"))
    assert set(row.metrics.values()) == {0.0}
    assert (row.cost.num_postings, row.cost.postings_per_query, row.cost.document_terms) == (0, 0.0, 0.0)


def test_the_default_prunings_have_every_kind() -> None:
    chosen = default_prunings(SparseEmbeddings.from_dense(torch.linspace(0.01, 1, 100).reshape(4, 25)))
    assert {pruning.name for pruning in chosen} == {None, "top_k", "ratio", "mass", "threshold"}
    assert [str(pruning) for pruning in chosen if pruning.name == "threshold"] == [
        f"threshold={value}"
        for value in (0.1, 0.31, 0.5, 0.7, 0.91)  # 0.11 is just below that in float32
    ]
    assert len(set(chosen)) == len(chosen)
    assert not [pruning for pruning in default_prunings(SparseEmbeddings.empty(3)) if pruning.name == "threshold"]


@pytest.mark.parametrize("weight", [0.0996, 0.1, 0.11, 1.9999, 23456.0, 3e-7])
def test_default_thresholds_do_not_cut_weights_that_are_all_alike(weight: float) -> None:
    embeddings = SparseEmbeddings.from_dense(torch.full((2, 3), weight))
    (threshold,) = [pruning for pruning in default_prunings(embeddings) if pruning.name == "threshold"]
    assert threshold(embeddings).nnz == 6
    assert 0.9 * weight < threshold.value <= embeddings.values()[0].item()


@pytest.fixture(scope="module")
def rows() -> list[PrunedResult]:
    vectors = encoded()
    return list(sweep(vectors, default_prunings(vectors.documents), metrics=["nDCG@10", "MAP"]))


def test_tables(rows: list[PrunedResult]) -> None:
    table = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert [row["pruning"] for row in table] == [str(row.pruning) for row in rows]
    assert [float(row["MAP"]) for row in table] == [row.metrics["MAP"] for row in rows]
    assert [int(row["num_postings"]) for row in table] == [row.cost.num_postings for row in rows]
    lines = markdown_table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert len(set(map(len, lines))) == 1
    cells = [cell.strip() for cell in lines[2].strip("| ").split("|")]
    assert cells[:3] == ["none", f"{rows[0].metrics['nDCG@10']:.4f}", f"{rows[0].metrics['MAP']:.4f}"]
    assert lines[0].count("|") == lines[1].count("|") == 2 + len(table[0]) - 1


def test_no_rows_make_no_table() -> None:
    for table in (csv_table, markdown_table):
        with pytest.raises(ValueError, match="rows must not be empty"):
            table([])


def test_the_plot_is_a_png_of_its_size(rows: list[PrunedResult]) -> None:
    pytest.importorskip("matplotlib")
    image = plot_sweep(rows, "nDCG@10", title="random")
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", image[16:24]) == (1440, 600)
    assert plot_sweep(rows[:2], "nDCG@10", title="random") != image
    nothing = list(sweep(encoded(), parsed("none", "threshold=1000")))
    assert plot_sweep(nothing, "nDCG@10", title="random").startswith(image[:8])  # no logarithm of 0
    with pytest.raises(ValueError, match=r"no values of 'P@3' to plot, but of \['MAP', 'nDCG@10'\]"):
        plot_sweep(rows, "P@3", title="random")


def test_without_matplotlib(rows: list[PrunedResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"a plot needs matplotlib: pip install 'sparse-encoder\[plot\]'"):
        plot_sweep(rows, "nDCG@10", title="random")
