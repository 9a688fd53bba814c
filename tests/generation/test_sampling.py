"""Sampling from a table of logits."""

from __future__ import annotations

import pytest
import torch
from generate_helpers import TableModel, random_table

V = 11


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_seed_gives_the_same_text_and_another_seed_another() -> None:
    model = TableModel(random_table(V))
    prompt = torch.tensor([[3, 1], [2, 4]])
    texts = [model.generate(prompt, do_sample=True, generator=seeded(seed), max_new_tokens=9) for seed in (1, 1, 2)]
    assert texts[0].tolist() == texts[1].tolist()
    assert texts[0].tolist() != texts[2].tolist()


def test_torchs_own_generator_is_the_default_and_is_left_alone_by_another() -> None:
    model = TableModel(random_table(V))
    prompt = torch.tensor([[3, 1]])
    torch.manual_seed(7)
    first = model.generate(prompt, do_sample=True, max_new_tokens=9)
    torch.manual_seed(7)
    model.generate(prompt, do_sample=True, max_new_tokens=9, generator=seeded(0))
    second = model.generate(prompt, do_sample=True, max_new_tokens=9)
    assert first.tolist() == second.tolist()


def test_each_step_draws_once_for_all_rows() -> None:
    table = random_table(V)
    written = TableModel(table).generate(
        torch.tensor([[3], [2]]), do_sample=True, top_k=None, max_new_tokens=4, generator=seeded(5)
    )
    generator, ids = seeded(5), torch.tensor([[3], [2]])
    for _ in range(4):
        drawn = torch.multinomial(table[ids[:, -1]].softmax(-1), 1, generator=generator)
        ids = torch.cat([ids, drawn], dim=1)
    assert written.tolist() == ids.tolist()


def test_only_the_top_k_are_drawn_and_fifty_where_nobody_says_how_many() -> None:
    size = 60
    table = torch.zeros(size, size)
    table[:, :50] = 0.01 * torch.arange(50)  # the other ten are below
    table[:, 50:] = -0.5
    prompt = torch.zeros(64, 1, dtype=torch.int64)
    few = TableModel(table).generate(prompt, do_sample=True, top_k=3, max_new_tokens=5, generator=seeded(0))
    assert set(few[:, 1:].flatten().tolist()) == {47, 48, 49}
    default = TableModel(table).generate(prompt, do_sample=True, max_new_tokens=5, generator=seeded(0))
    assert default[:, 1:].max() < 50
    everything = TableModel(table).generate(prompt, do_sample=True, top_k=None, max_new_tokens=5, generator=seeded(0))
    assert everything[:, 1:].max() >= 50


def test_a_whole_number_is_a_temperature() -> None:
    model = TableModel(random_table(V))
    prompt = torch.tensor([[3, 1]])
    settings = {"do_sample": True, "max_new_tokens": 9}
    written = [model.generate(prompt, generator=seeded(1), temperature=value, **settings) for value in (2, 2.0)]
    assert written[0].tolist() == written[1].tolist()


def test_returned_sequences_of_a_text_stand_next_to_each_other() -> None:
    prompts = torch.tensor([[3, 1], [2, 4]])
    model = TableModel(random_table(V))
    written = model.generate(prompts, do_sample=True, num_return_sequences=3, max_new_tokens=2, generator=seeded(1))
    assert written[:, :2].tolist() == [[3, 1]] * 3 + [[2, 4]] * 3
    assert len({tuple(row) for row in written.tolist()}) > 2
    assert model.calls[0]["input_ids"].shape == (6, 2)


def test_a_finished_row_stays_finished_while_others_are_drawn() -> None:
    table = random_table(V)
    model = TableModel(table, eos_token_id=5, pad_token_id=9)
    written = model.generate(
        torch.ones(16, 1, dtype=torch.int64), do_sample=True, max_new_tokens=12, generator=seeded(3)
    )
    ended = 0
    for row in written.tolist():
        if 5 in row:
            behind = row[row.index(5) + 1 :]
            assert behind == [9] * len(behind)
            ended += bool(behind)
    assert ended


def test_several_sequences_need_sampling_or_beams() -> None:
    with pytest.raises(ValueError, match="num_return_sequences"):
        TableModel(random_table(V)).generate(torch.tensor([[1]]), num_return_sequences=2)


def test_setting_a_temperature_without_sampling_is_told() -> None:
    with pytest.warns(UserWarning, match=r"temperature.*do_sample"):
        TableModel(random_table(V)).generate(torch.tensor([[1]]), temperature=0.5, max_new_tokens=1)
