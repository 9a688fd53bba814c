"""The books of beam search against those of transformers, over a table of logits that both read: the full product."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from generate_helpers import TableModel, random_table
from torch import Tensor

transformers = pytest.importorskip("transformers")

V = 11
PROMPTS = torch.tensor([[1, 2], [3, 4], [6, 8]])
ENDS: tuple[tuple[float, list[int]], ...] = ((0.0, [5, 7]), (1.5, [5]), (3.0, [5, 7]), (3.0, [5]))
"""What is added to the logits of token 5, and the tokens that end a text."""


class PeerTableConfig(transformers.PretrainedConfig):
    model_type = "table"


class PeerTable(transformers.PreTrainedModel, transformers.GenerationMixin):
    """Give ``table[last token]`` as logits."""

    config_class = PeerTableConfig

    def __init__(self, table: Tensor) -> None:
        config = PeerTableConfig(vocab_size=V, num_hidden_layers=1, num_attention_heads=1, hidden_size=2)
        super().__init__(config)
        self.table = torch.nn.Parameter(table, requires_grad=False)

    def forward(  # house: peer signature
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,  # noqa: ANN401
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> Any:  # noqa: ANN401
        return transformers.modeling_outputs.CausalLMOutputWithPast(logits=self.table[input_ids[:, -1:]])


def assert_same_search(table: Tensor, settings: dict[str, Any]) -> None:
    peer = PeerTable(table)
    for do_sample in (False, True):
        asked = {**settings, "do_sample": do_sample, "top_k": 0} if do_sample else settings
        torch.manual_seed(3)
        ours = TableModel(table).generate(PROMPTS, **asked)
        torch.manual_seed(3)
        theirs = peer.generate(PROMPTS, **asked)
        assert ours.sequences.tolist() == theirs.sequences.tolist(), asked
        assert torch.equal(ours.sequences_scores, theirs.sequences_scores), asked
        assert torch.equal(ours.beam_indices, theirs.beam_indices), asked
        assert len(ours.scores) == len(theirs.scores), asked
        assert all(torch.equal(mine, yours) for mine, yours in zip(ours.scores, theirs.scores, strict=True)), asked


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 3, 4])
def test_the_books_are_the_same(num_beams: int, length_penalty: float) -> None:
    for early_stopping, (bias, ends) in product((False, True, "never"), ENDS):
        table = random_table(V, seed=num_beams)
        table[:, 5] += bias
        settings = {
            "num_beams": num_beams,
            "num_return_sequences": 2,
            "length_penalty": length_penalty,
            "early_stopping": early_stopping,
            "eos_token_id": ends,
            "pad_token_id": 9,
            "max_new_tokens": 8,
            "return_dict_in_generate": True,
            "output_scores": True,
        }
        assert_same_search(table, settings)


def test_the_books_are_the_same_without_end_tokens_and_with_three_beams() -> None:
    for length_penalty, returned in ((0.0, 1), (2.0, 3)):
        settings = {
            "num_beams": 3,
            "num_return_sequences": returned,
            "length_penalty": length_penalty,
            "pad_token_id": 9,
            "max_new_tokens": 5,
            "return_dict_in_generate": True,
            "output_scores": True,
        }
        assert_same_search(random_table(V, seed=9), settings)
