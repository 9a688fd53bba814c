"""With enough beams, beam search finds the best of all texts."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from generate_helpers import TableModel, random_table
from torch import Tensor

V, T = 4, 3


def all_texts(start: int, end: int | None) -> set[tuple[int, ...]]:
    """Return every text of up to T tokens that ends with the end token or has T of them."""
    texts = set()
    for tokens in product(range(V), repeat=T):
        stop = tokens.index(end) + 1 if end in tokens else T
        texts.add((start, *tokens[:stop]))
    return texts


def score(table: Tensor, text: tuple[int, ...], length_penalty: float) -> float:
    logs = table.log_softmax(-1)
    total = sum(float(logs[previous, token]) for previous, token in zip(text, text[1:], strict=False))
    return total / (len(text) - 1) ** length_penalty


@pytest.mark.parametrize("end", [None, 2])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_best_of_all_texts_are_found(length_penalty: float, end: int | None) -> None:
    table = random_table(V, seed=3, spread=1.5)
    model = TableModel(table) if end is None else TableModel(table, eos_token_id=end, pad_token_id=3)
    output = model.generate(
        torch.tensor([[1]]),
        num_beams=V**T,
        num_return_sequences=5,
        max_new_tokens=T,
        length_penalty=length_penalty,
        early_stopping="never",
        return_dict_in_generate=True,
        output_scores=True,
    )
    expected = sorted(((score(table, text, length_penalty), text) for text in all_texts(1, end)), reverse=True)[:5]
    found = []
    for row, value, rows in zip(output.sequences.tolist(), output.sequences_scores, output.beam_indices, strict=True):
        found.append((float(value), tuple(row[: 1 + int((rows >= 0).sum())])))
    assert [text for _, text in found] == [text for _, text in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
