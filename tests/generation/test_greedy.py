"""Greedy search over a table of logits."""

from __future__ import annotations

import pytest
import torch
from generate_helpers import TableModel, random_table
from torch import Tensor

from sparse_encoder.generation import GenerationConfig
from sparse_encoder.generation.outputs import GenerateDecoderOnlyOutput

V = 11
END = 5


def chain(order: list[int]) -> Tensor:
    """Return a table in which each token of an order is followed by the next one, for certain."""
    table = torch.zeros(V, V)
    for token, following in zip(order, [*order[1:], order[0]], strict=True):
        table[token, following] = 9.0
    return table


def written_by_hand(table: Tensor, prompt: list[int], new_tokens: int) -> list[int]:
    text = list(prompt)
    for _ in range(new_tokens):
        text.append(int(table[text[-1]].argmax()))
    return text


def test_the_most_likely_token_is_written() -> None:
    table = random_table(V)
    written = TableModel(table).generate(torch.tensor([[3, 1]]), max_new_tokens=6)
    assert written.tolist() == [written_by_hand(table, [3, 1], 6)]


def test_the_first_of_equal_tokens_is_written() -> None:
    written = TableModel(torch.zeros(V, V)).generate(torch.tensor([[3]]), max_new_tokens=2)
    assert written.tolist() == [[3, 0, 0]]


def test_a_row_ends_with_an_end_token_and_is_filled_with_padding() -> None:
    model = TableModel(chain([1, 2, 3, END, 7]), eos_token_id=END, pad_token_id=9)
    written = model.generate(torch.tensor([[1], [3]]), max_new_tokens=6)
    assert written.tolist() == [[1, 2, 3, END], [3, END, 9, 9]]


def test_padding_is_the_first_end_token_where_none_is_named() -> None:
    model = TableModel(chain([1, 2, 3, END, 7]), eos_token_id=[END, 8])
    mask = torch.ones(2, 1)
    written = model.generate(torch.tensor([[1], [3]]), attention_mask=mask, max_new_tokens=6)
    assert written.tolist() == [[1, 2, 3, END], [3, END, END, END]]


def test_every_end_token_of_a_list_ends() -> None:
    model = TableModel(chain([1, 2, 3, 4, 6]), eos_token_id=[2, 6], pad_token_id=0)
    written = model.generate(torch.tensor([[1], [3]]), max_new_tokens=9)
    assert written.tolist() == [[1, 2, 0], [3, 4, 6]]


def test_an_end_token_in_the_prompt_ends_nothing() -> None:
    model = TableModel(chain([1, 2, 3, END, 7]), eos_token_id=END, pad_token_id=0)
    written = model.generate(torch.tensor([[END, 7]]), max_new_tokens=3)
    assert written.tolist() == [[END, 7, 1, 2, 3]]


def test_without_end_tokens_the_text_goes_on_to_its_length() -> None:
    written = TableModel(chain([1, 2, 3])).generate(torch.tensor([[1]]), max_length=6)
    assert written.tolist() == [[1, 2, 3, 1, 2, 3]]  # max_length counts the prompt


def test_rows_ended_by_a_criterion_alone_go_on_until_all_have_ended() -> None:
    def ends_at_three(ids: Tensor, scores: object) -> Tensor:
        return ids[:, -1] == 3

    model = TableModel(chain([1, 2, 3, 4, 6]))
    written = model.generate(torch.tensor([[1], [2]]), stopping_criteria=[ends_at_three], max_new_tokens=9)
    assert written.tolist() == [[1, 2, 3], [2, 3, 4]]


def test_a_criterion_may_answer_for_all_rows_at_once() -> None:
    model = TableModel(chain([1, 2, 3, 4, 6]))
    written = model.generate(torch.tensor([[1], [2]]), stopping_criteria=[lambda ids, scores: ids.shape[1] == 3])
    assert written.tolist() == [[1, 2, 3], [2, 3, 4]]


def test_twenty_tokens_are_written_when_nobody_says_how_many() -> None:
    assert TableModel(chain([1, 2])).generate(torch.tensor([[1, 2, 1]])).shape == (1, 23)


def test_twenty_tokens_end_where_the_positions_end() -> None:
    model = TableModel(chain([1, 2]))
    model.config.max_positions = 8
    assert model.generate(torch.tensor([[1, 2, 1]])).shape == (1, 8)


def test_a_stored_length_counts_the_prompt() -> None:
    assert TableModel(chain([1, 2]), max_length=20).generate(torch.tensor([[1, 2, 1]])).shape == (1, 20)


def test_max_new_tokens_win_over_max_length() -> None:
    with pytest.warns(UserWarning, match="max_new_tokens=2 and max_length=9 are both set"):
        written = TableModel(chain([1, 2])).generate(torch.tensor([[1, 2]]), max_new_tokens=2, max_length=9)
    assert written.shape == (1, 4)


def test_a_text_does_not_end_before_its_least_length() -> None:
    table = chain([1, END, 2])
    model = TableModel(table, eos_token_id=END, pad_token_id=0)
    prompt = torch.tensor([[1]])
    assert model.generate(prompt, max_new_tokens=6).tolist() == [[1, END]]
    for least in ({"min_new_tokens": 3}, {"min_length": 4}):  # the latter counts the prompt
        assert END not in model.generate(prompt, max_new_tokens=6, **least)[0, :4]


def test_least_lengths_mean_nothing_without_end_tokens() -> None:
    model = TableModel(chain([1, 2, 3]))
    assert model.generate(torch.tensor([[1]]), max_new_tokens=2, min_new_tokens=1).tolist() == [[1, 2, 3]]


def test_a_least_length_beyond_the_greatest_is_told() -> None:
    with pytest.warns(UserWarning, match="min_new_tokens=9 asks for at least 10 tokens, and max_length=3"):
        TableModel(chain([1, 2])).generate(torch.tensor([[1]]), max_new_tokens=2, min_new_tokens=9)


def test_min_new_tokens_win_over_min_length() -> None:
    model = TableModel(chain([1, END, 2]), eos_token_id=END, pad_token_id=0)
    with pytest.warns(UserWarning, match="min_new_tokens=1 and min_length=6 are both set"):
        written = model.generate(torch.tensor([[END]]), max_new_tokens=8, min_new_tokens=1, min_length=6)
    assert written.tolist() == [[END, 2, 1, END]]


def test_a_begin_token_stands_for_a_missing_prompt() -> None:
    assert TableModel(chain([1, 2, 3]), bos_token_id=2).generate(max_new_tokens=2).tolist() == [[2, 3, 1]]


def test_a_begin_token_is_taken_for_each_row_of_a_mask() -> None:
    model = TableModel(chain([1, 2, 3]), bos_token_id=2)
    assert model.generate(attention_mask=torch.ones(3, 1), max_new_tokens=1).tolist() == [[2, 3]] * 3


def test_everything_asked_for_is_kept() -> None:
    table = random_table(V)
    output = TableModel(table).generate(
        torch.tensor([[3, 1]]),
        max_new_tokens=3,
        repetition_penalty=1.5,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert isinstance(output, GenerateDecoderOnlyOutput)
    assert output.scores is not None
    assert output.logits is not None
    assert len(output.scores) == len(output.logits) == 3
    first = table[1]
    torch.testing.assert_close(output.logits[0], first[None])
    penalised = torch.where(first < 0, first * 1.5, first / 1.5)
    expected = first.clone()
    expected[[3, 1]] = penalised[[3, 1]]
    torch.testing.assert_close(output.scores[0], expected[None])
    assert int(output.scores[0].argmax()) == int(output.sequences[0, 2])
    assert output.past_key_values.get_seq_length() == 4  # the last token was never read


def test_a_processor_that_writes_into_its_input_does_not_change_the_kept_logits() -> None:
    def bans_two(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, 2] = -torch.inf
        return scores

    table = chain([1, 2, 3])
    output = TableModel(table.clone()).generate(
        torch.tensor([[1]]),
        logits_processor=[bans_two],
        max_new_tokens=1,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert output.sequences.tolist() == [[1, 0]]
    torch.testing.assert_close(output.logits[0], table[1:2])
    assert output.scores[0][0, 2] == -torch.inf


def test_logits_of_sixteen_bits_are_processed_in_thirty_two() -> None:
    output = TableModel(random_table(V).bfloat16()).generate(
        torch.tensor([[1]]), max_new_tokens=1, return_dict_in_generate=True, output_scores=True, output_logits=True
    )
    assert output.scores[0].dtype == output.logits[0].dtype == torch.float32


def test_what_is_not_asked_for_is_not_kept() -> None:
    output = TableModel(random_table(V)).generate(torch.tensor([[1]]), max_new_tokens=1, return_dict_in_generate=True)
    assert output.keys() == ("sequences", "past_key_values")


def test_settings_come_from_the_call_then_the_config_then_the_model_then_the_default() -> None:
    model = TableModel(chain([1, 2, 3]), max_new_tokens=5, eos_token_id=9, pad_token_id=0)
    prompt = torch.tensor([[1]])
    assert model.generate(prompt).shape == (1, 6)
    passed = GenerationConfig(max_new_tokens=4)
    assert model.generate(prompt, passed).shape == (1, 5)
    with pytest.warns(UserWarning, match=r"generation_config and \['max_new_tokens'\] are both given"):
        assert model.generate(prompt, passed, max_new_tokens=3).shape == (1, 4)
    assert TableModel(chain([1, 2, 3])).generate(prompt).shape == (1, 21)


def test_no_config_is_changed() -> None:
    model = TableModel(chain([1, 2, 3]), bos_token_id=1)
    passed = GenerationConfig(max_new_tokens=4, eos_token_id=9)
    before = passed.to_dict(), model.generation_config.to_dict()
    model.generate(torch.tensor([[1], [2]]), passed, attention_mask=torch.ones(2, 1))
    with pytest.warns(UserWarning, match="are both given"):
        model.generate(torch.tensor([[1]]), passed, num_beams=2, do_sample=True)
    assert (passed.to_dict(), model.generation_config.to_dict()) == before


def test_a_streamer_gets_the_prompt_then_each_token_then_the_end() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def put(self, value: Tensor) -> None:
            self.heard.append(value.tolist())

        def end(self) -> None:
            self.heard.append("end")

    keeper = Keeper()
    TableModel(chain([1, 2, 3])).generate(torch.tensor([[3, 1]]), streamer=keeper, max_new_tokens=2)
    assert keeper.heard == [[[3, 1]], [2], [3], "end"]


def test_text_ends_at_a_string() -> None:
    class Letters:
        def decode(self, ids: list[int]) -> str:
            return "".join(chr(97 + token) for token in ids)

    model = TableModel(chain([1, 2, 3, 4]))
    written = model.generate(torch.tensor([[1]]), stop_strings="cd", tokenizer=Letters(), max_new_tokens=9)
    assert written.tolist() == [[1, 2, 3]]


def test_text_ends_when_the_time_is_over() -> None:
    written = TableModel(chain([1, 2, 3, 4])).generate(torch.tensor([[1]]), max_time=0.0, max_new_tokens=9)
    assert written.tolist() == [[1, 2]]


def test_nothing_is_recorded_for_gradients_and_results_can_be_used_with_them() -> None:
    table = random_table(V).requires_grad_()
    output = TableModel(table).generate(
        torch.tensor([[1]]), max_new_tokens=1, return_dict_in_generate=True, output_scores=True
    )
    scores = output.scores[0]
    assert not scores.requires_grad
    weight = torch.ones(V, requires_grad=True)
    (scores * weight).sum().backward()
    torch.testing.assert_close(weight.grad, scores[0])


def test_tokens_can_be_read_with_gradients() -> None:
    """They are made in inference mode, and leave it as ordinary tensors."""
    for settings in ({}, {"num_beams": 2}):
        tokens = TableModel(random_table(V)).generate(torch.tensor([[1]]), max_new_tokens=3, **settings)
        assert not tokens.is_inference()
        words = torch.nn.Embedding(V, 2)
        words(tokens).sum().backward()
        assert words.weight.grad is not None
        assert words.weight.grad.sum() == 2 * tokens.numel()


def test_what_a_caller_may_keep_is_made_outside_inference_mode() -> None:
    kept: list[Tensor] = []

    def keeps(ids: Tensor, scores: Tensor) -> Tensor:
        kept.extend((ids, scores))
        return scores

    TableModel(random_table(V)).generate(torch.tensor([[1]]), max_new_tokens=2, logits_processor=[keeps])
    output = TableModel(random_table(V)).generate(torch.tensor([[1]]), max_new_tokens=2, return_dict_in_generate=True)
    assert len(kept) == 4
    assert not any(tensor.is_inference() for tensor in (*kept, output.sequences))


def test_rows_are_independent() -> None:
    table = random_table(V, spread=3.0)
    model = TableModel(table, eos_token_id=END, pad_token_id=9)
    prompts = torch.tensor([[3, 1], [2, 4], [7, 8]])
    together = model.generate(prompts, max_new_tokens=7)
    for row, prompt in zip(together, prompts, strict=True):
        alone = model.generate(prompt[None], max_new_tokens=7)[0]
        assert row[: len(alone)].tolist() == alone.tolist()
        assert (row[len(alone) :] == 9).all()
