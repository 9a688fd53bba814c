"""The public surface of both trainers against the peers': members, parameters, their order and defaults."""

from __future__ import annotations

import inspect
import warnings

import pytest
from torch import nn

from sparse_encoder.training import SparseEncoderTrainer, Trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")

INNER = "the loop of the peer calls it; this library's loop has steps of its own"
ABSENT = {
    "autocast_smart_context_manager": "compute_loss_context_manager has it",
    "create_accelerator_and_postprocess": INNER,
    "end": "of its progress in notebooks",
    "floating_point_ops": "state.total_flos is counted from tokens and parameters",
    "get_batch_samples": INNER,
    "get_cp_size": "there is no context parallelism",
    "get_sp_size": "there is no sequence parallelism",
    "get_tp_size": "there is no tensor parallelism",
    "init_hf_repo": "the first push makes the repository",
    "loss_is_scaled_for_ga": INNER,
    "metrics_format": "log_metrics does it",
    "store_flos": INNER,
}
OF_THE_CLASS = {"prediction_step"}
OTHER_PARAMETERS: dict[str, set[str]] = {}

PAIRS = [(peer.SparseEncoderTrainer, SparseEncoderTrainer), (transformers.Trainer, Trainer)]
METHODS = [
    (theirs, ours, name)
    for theirs, ours in PAIRS
    for name in ("__init__", *dir(theirs))
    if (name == "__init__" or not name.startswith("_")) and callable(getattr(theirs, name)) and hasattr(ours, name)
]


def parameters(function: object) -> list[inspect.Parameter]:
    found = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [each for each in found if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL) and each.name != "self"]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_every_member_is_there(theirs: type, ours: type) -> None:
    missing = {name for name in dir(theirs) if not name.startswith("_") and not hasattr(ours, name)}
    assert missing - ABSENT.keys() - OF_THE_CLASS == set()
    assert {"train", "evaluate", "predict", "compute_loss", "get_batch_sampler"} & set(dir(theirs)) <= set(dir(ours))


@pytest.mark.parametrize(("theirs", "ours", "name"), METHODS)
def test_parameters_have_the_peers_names_order_and_defaults(theirs: type, ours: type, name: str) -> None:
    known = OTHER_PARAMETERS.get(name, set())
    expected = [each for each in parameters(getattr(theirs, name)) if each.name not in known]
    if isinstance(getattr(theirs, name), type):
        return
    found = [each for each in parameters(getattr(ours, name)) if each.name in {other.name for other in expected}]
    assert [each.name for each in found] == [each.name for each in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.default == other.default, mine
        if other.kind is other.POSITIONAL_OR_KEYWORD:
            assert mine.kind is mine.POSITIONAL_OR_KEYWORD, mine


def test_decayed_parameters_are_the_peers() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.norm, self.head = nn.Embedding(5, 3), nn.LayerNorm(3), nn.Linear(3, 2)
            self.final_norm = nn.Linear(3, 3)

    model = Model()
    theirs = transformers.Trainer.get_decay_parameter_names(None, model)
    ours = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    assert sorted(ours) == sorted(theirs) == ["head.weight", "words.weight"]
