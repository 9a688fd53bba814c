"""The settings of the peer: every field exists here, and takes the value that the peer has by default."""

from __future__ import annotations

import warnings
from dataclasses import MISSING, Field, fields
from typing import Any

import pytest

from sparse_encoder import SparseEncoderTrainingArguments
from sparse_encoder.training import TrainingArguments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")

ABSENT: dict[str, str] = {}  # field of the peer: why there is none here
OTHER_DEFAULTS = {
    "gradient_checkpointing": "None of the peer is false, here too",
    "ddp_broadcast_buffers": "None of the peer becomes false there, here too",
    "prediction_loss_only": "false becomes true there, here too",
    "project": "the name of this library, not of a company",
}
METHODS_ABSENT = {
    "ddp_timeout_delta": "devices.py makes it of ddp_timeout",
    "default_optim": "optim has it",
    "is_torch_greater_or_equal_than_2_8": "an inner matter",
}
PAIRS = [
    (peer.SparseEncoderTrainingArguments, SparseEncoderTrainingArguments),
    (transformers.TrainingArguments, TrainingArguments),
]


def default(field: Field[Any]) -> Any:  # noqa: ANN401  (of any field)
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_every_field_is_here_with_its_default(theirs: type, ours: type) -> None:
    own = {each.name: default(each) for each in fields(ours)}
    expected = {each.name: default(each) for each in fields(theirs)}
    assert expected.keys() - own.keys() == ABSENT.keys()
    differing = {name for name, value in expected.items() if name in own and own[name] != value}
    assert differing <= OTHER_DEFAULTS.keys()


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_the_defaults_of_the_peer_may_be_given(theirs: type, ours: type) -> None:
    values = {each.name: default(each) for each in fields(theirs) if each.init and each.name not in ABSENT}
    given, plain = ours(**values), ours()
    assert {name: value for name, value in given.to_dict().items() if name != "project"} == {
        name: value for name, value in plain.to_dict().items() if name != "project"
    }


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_the_settings_of_the_peer_may_be_given_as_it_has_made_them(theirs: type, ours: type) -> None:
    made = theirs("out")
    values = {each.name: getattr(made, each.name) for each in fields(theirs) if each.init and each.name not in ABSENT}
    given, plain = ours(**values), ours("out")
    for name, value in plain.to_dict().items():
        if name not in ("project", "disable_tqdm", "activation_checkpointing"):
            assert given.to_dict()[name] == value, name
    values["accelerator_config"] = {"split_batches": True}
    with pytest.raises(ValueError, match="accelerator_config must be None"):
        ours(**values)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_every_method_and_property_is_here(theirs: type, ours: type) -> None:
    missing = {name for name in dir(theirs) if not name.startswith("_") and not hasattr(ours(), name)}
    setters = {name for name in missing if name.startswith("set_")}
    assert missing - setters - {each.name for each in fields(theirs)} <= METHODS_ABSENT.keys()


def test_a_ratio_of_warm_up_is_rounded_as_the_peer_does() -> None:
    for ratio in (0.01, 0.07, 0.1, 1 / 3, 0.5, 0.999):
        mine, other = TrainingArguments("out", warmup_ratio=ratio), transformers.TrainingArguments("out")
        other.warmup_steps = ratio
        for steps in (1, 2, 7, 10, 99, 100, 1000):
            assert mine.get_warmup_steps(steps) == other.get_warmup_steps(steps), (ratio, steps)
