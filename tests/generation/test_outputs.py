"""Outputs answer by attribute, by key and by place; what is None is not there."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from sparse_encoder.generation import outputs
from sparse_encoder.generation.outputs import (
    CausalLanguageModelOutput,
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    Seq2SeqOutput,
)

CLASSES = (
    CausalLanguageModelOutput,
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    Seq2SeqOutput,
)


def test_fields_are_found_by_attribute_key_and_place() -> None:
    loss, logits, layer = torch.tensor(1.0), torch.zeros(2, 5, 17), torch.zeros(2, 5, 12)
    output = CausalLanguageModelOutput(loss=loss, logits=logits, hidden_states=(layer,))
    assert output.loss is output["loss"] is output[0] is loss
    assert output.logits is output["logits"] is output[1] is logits
    assert output[2] is output[-1] is output.hidden_states
    assert output[:2] == (loss, logits)
    assert output.to_tuple() == (loss, logits, (layer,))


def test_what_is_none_is_not_there() -> None:
    logits = torch.zeros(2, 5, 17)
    output = CausalLanguageModelOutput(logits=logits)
    assert output.loss is None
    assert output[0] is logits
    assert list(output) == list(output.keys()) == ["logits"]
    assert dict(output) == {"logits": logits}
    assert len(output) == 1
    assert "loss" not in output
    assert "logits" in output
    assert output.get("loss", 3) == 3
    assert output.get("logits") is logits
    with pytest.raises(KeyError, match="'loss' is not in this output, which holds \\['logits'\\]"):
        output["loss"]
    with pytest.raises(KeyError, match="keys"):
        output["keys"]
    with pytest.raises(IndexError):
        output[1]


def test_outputs_cannot_be_changed() -> None:
    output = GenerateDecoderOnlyOutput(sequences=torch.zeros(1, 3))
    with pytest.raises(FrozenInstanceError):
        output.sequences = torch.ones(1, 3)  # type: ignore[misc]
    with pytest.raises(TypeError, match="sequences"):
        GenerateDecoderOnlyOutput()  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", CLASSES)
def test_items_are_in_the_order_of_the_fields(kind: type[outputs.ModelOutput]) -> None:
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values = {name: (torch.tensor(place),) for place, name in enumerate(names)}
    output = kind(**dict(reversed(values.items())))
    assert output.items() == tuple(values.items())
    assert [int(value[0]) for value in output.values()] == list(range(len(names)))
