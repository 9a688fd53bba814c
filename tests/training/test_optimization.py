from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from sparse_encoder.backbone.flops import operations_per_token
from sparse_encoder.training.optimization.groups import (
    decayed_names,
    find_group,
    learning_rates_of,
    named_parameter,
    parameter_groups,
    searchable_names,
)


class Scale(nn.Module):
    """A norm of another class, told by the name it is held under."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.dense = nn.Linear(3, 4)
        self.first = nn.LayerNorm(4)
        self.norm = Scale()
        self.final_norm = Scale()
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)
        self.tied = self.words


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Part()
        self.temperature = nn.Parameter(torch.ones(()))


def names_of(groups: list[dict[str, object]], module: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [[names[id(each)] for each in group["params"]] for group in groups]  # type: ignore[attr-defined]


def test_groups_are_decayed_and_not_decayed() -> None:
    loss = Loss()
    groups = parameter_groups(loss, weight_decay=0.1, learning_rates={})
    assert names_of(groups, loss) == [
        ["temperature", "model.words.weight", "model.dense.weight"],
        ["model.dense.bias", "model.first.weight", "model.first.bias", "model.norm.weight", "model.final_norm.weight"],
    ]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_empty_groups_are_left_out() -> None:
    groups = parameter_groups(nn.Linear(2, 3, bias=False), weight_decay=0.1, learning_rates={})
    assert len(groups) == 1


def test_patterns_get_groups_of_their_own_and_the_first_counts(caplog: pytest.LogCaptureFixture) -> None:
    loss = Loss()
    with caplog.at_level(logging.WARNING):
        groups = parameter_groups(loss, weight_decay=0.1, learning_rates={r"dense\.": 0.5, "weight$": 0.25})
    assert names_of(groups, loss) == [
        ["temperature"],
        ["model.first.bias"],
        ["model.dense.weight"],
        ["model.dense.bias"],
        ["model.words.weight"],
        ["model.first.weight", "model.norm.weight", "model.final_norm.weight"],
    ]
    assert [group.get("lr") for group in groups] == [None, None, 0.5, 0.5, 0.25, 0.25]
    assert "['model.dense.weight']" in caplog.text


def test_patterns_may_name_the_class_of_a_module() -> None:
    loss = Loss()
    groups = parameter_groups(loss, weight_decay=0.0, learning_rates={r"Embedding\.*": 0.5})
    assert names_of(groups, loss)[-1] == ["model.words.weight"]
    assert searchable_names(loss)["model.norm.weight"] == [
        "model.norm.weight",
        "Loss.model.norm.weight",
        "Part.norm.weight",
        "Scale.weight",
    ]


@pytest.mark.parametrize("pattern", ["decoder", "frozen"])
def test_a_pattern_that_finds_nothing_trained_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=f"'{pattern}' of learning_rate_mapping finds no trained parameter"):
        parameter_groups(Loss(), weight_decay=0.0, learning_rates={pattern: 0.1})


def test_decay_is_as_in_the_peer() -> None:
    helpers = pytest.importorskip("transformers.trainer_pt_utils")
    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    loss = Loss()
    theirs = helpers.get_parameter_names(loss, [nn.LayerNorm], patterns)
    assert decayed_names(loss) == set(theirs) & dict(loss.named_parameters()).keys()


def test_parameters_of_embeddings_are_not_counted_as_work() -> None:
    part = Part()
    weights = sum(each.numel() for each in part.parameters()) - 5 * 3
    assert operations_per_token(part) == 6 * weights


def test_losses_by_dataset_and_plain_models_are_grouped() -> None:
    losses = nn.ModuleDict({"first": Loss(), "second": nn.Linear(2, 3)})
    groups = parameter_groups(losses, weight_decay=0.1, learning_rates={"^second": 0.5})
    assert names_of(groups, losses)[-2:] == [["second.weight"], ["second.bias"]]
    assert len(names_of(groups, losses)[0]) == 3
    model = Part()
    groups = parameter_groups(model, weight_decay=0.1, learning_rates={})
    assert names_of(groups, model)[0] == ["words.weight", "dense.weight"]


def test_losses_that_share_a_model_train_it_once() -> None:
    model = Part()
    losses = nn.ModuleDict({name: nn.ModuleDict({"model": model}) for name in ("a", "b")})
    groups = parameter_groups(losses, weight_decay=0.0, learning_rates={})
    trained = [id(each) for group in groups for each in group["params"]]
    assert len(trained) == len(set(trained)) == len([each for each in model.parameters() if each.requires_grad])


def test_a_group_is_found_by_identity() -> None:
    model = Part()
    optimizer = torch.optim.SGD(parameter_groups(model, weight_decay=0.1, learning_rates={"words": 0.5}), lr=0.1)
    assert find_group(optimizer, model.words.weight)["lr"] == 0.5
    assert find_group(optimizer, model.first.bias) is optimizer.param_groups[1]
    with pytest.raises(ValueError, match="in no group of the optimizer"):
        find_group(optimizer, model.frozen.weight)
    assert learning_rates_of(optimizer) == [0.1, 0.1, 0.5]


def test_a_parameter_is_found_by_name() -> None:
    model = Part()
    assert named_parameter(model, "dense.bias") is model.dense.bias
    with pytest.raises(ValueError, match=r"no parameter 'dens'; there are \['words.weight', 'dense.weight'"):
        named_parameter(model, "dens")
