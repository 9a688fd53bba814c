"""The public surface of SparseEncoder against the peer's: members, parameters, their order and defaults."""

from __future__ import annotations

import inspect
import warnings

import pytest
from torch import nn

from sparse_encoder import SparseEncoder, SparseEncoderModelCardData, util
from sparse_encoder.similarity import SimilarityFunction

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    import sentence_transformers.util as peer_util

# What belongs to transformers, to PEFT, to mergekit or to accelerate's device maps, and what is no use without them.
ABSENT = {
    "active_adapter", "active_adapters", "add_adapter", "check_peft_compatible_model", "delete_adapter",
    "disable_adapters", "enable_adapters", "get_adapter_state_dict", "has_peft_compatible_model", "load_adapter",
    "set_adapter", "merge", "clear_placement_cache", "model_card_data_class", "default_huggingface_organization",
    "SUPPORTED_SIMILARITY_FN_NAMES",
}  # fmt: skip

# Parameters whose default differs, and why.
OTHER_DEFAULTS = {"convert_to_tensor": "None stands for SparseEmbeddings, which answers like the tensor of True"}

METHODS = [
    name
    for name in dir(peer.SparseEncoder)
    if not name.startswith("_") and name not in ABSENT and not hasattr(nn.Sequential, name)
]


def parameters(function: object) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_every_member_is_there() -> None:
    missing = [name for name in METHODS if not hasattr(SparseEncoder, name)]
    assert missing == []


@pytest.mark.parametrize("name", ["__init__", "encode", "encode_query", "encode_document", *METHODS])
def test_parameters_have_the_peers_names_order_and_defaults(name: str) -> None:
    theirs, ours = getattr(peer.SparseEncoder, name), getattr(SparseEncoder, name)
    if not callable(theirs):
        assert isinstance(ours, property) == isinstance(theirs, property)
        return
    expected = [p for p in parameters(theirs).values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if name == "save_to_hub":
        expected = [p for p in expected if p.name not in ("organization", "commit_message")]  # of the older hub
        assert {p.name for p in expected} <= set(parameters(ours))
        return
    found = [p for p in parameters(ours).values() if p.name in {each.name for each in expected}]
    assert [p.name for p in found] == [p.name for p in expected]
    for mine, other in zip(found, expected, strict=True):
        if mine.name not in OTHER_DEFAULTS:
            assert mine.default == other.default, mine
        if other.kind is other.POSITIONAL_OR_KEYWORD:
            assert mine.kind is mine.POSITIONAL_OR_KEYWORD, mine


def test_names_of_similarities() -> None:
    allowed = peer.SparseEncoder.SUPPORTED_SIMILARITY_FN_NAMES
    assert SimilarityFunction.possible_values() == list(allowed)
    theirs = {name for name, each in peer.SimilarityFunction.__members__.items() if each.value in allowed}
    assert set(SimilarityFunction.__members__) == theirs


@pytest.mark.parametrize("name", [name for name in util.__all__ if hasattr(peer_util, name)])
def test_utilities_take_the_peers_arguments(name: str) -> None:
    assert list(parameters(getattr(util, name))) == list(parameters(getattr(peer_util, name)))


def test_fields_of_the_model_card() -> None:
    expected = list(parameters(peer.sparse_encoder.SparseEncoderModelCardData))
    assert list(parameters(SparseEncoderModelCardData)) == expected
