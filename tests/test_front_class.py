"""``sparse_encoder.SparseEncoder`` is one class, empty without torch and an ordinary one of torch with it."""

from __future__ import annotations

import inspect
import pickle
from abc import ABC
from pathlib import Path
from unittest import mock

import pytest
from model_helpers import write_masked_language_model
from process_helpers import run_python
from serving_helpers import run_without_torch
from torch import nn

from sparse_encoder import SparseEncoder, front
from sparse_encoder.model import SparseEncoder as RealEncoder


@pytest.fixture
def model(tmp_path: Path) -> SparseEncoder:
    return SparseEncoder(str(write_masked_language_model(tmp_path)), device="cpu")


def test_a_call_makes_an_instance_of_the_real_class(model: SparseEncoder) -> None:
    assert type(model) is RealEncoder
    assert isinstance(model, SparseEncoder)
    assert isinstance(model, SparseEncoder | None)
    assert not isinstance(nn.Linear(1, 1), SparseEncoder)
    assert issubclass(type(model), SparseEncoder)
    assert not issubclass(nn.Module, SparseEncoder)


def test_it_is_the_class_of_its_module(model: SparseEncoder) -> None:
    assert SparseEncoder is RealEncoder
    assert type(model) is SparseEncoder
    assert issubclass(SparseEncoder, nn.Module) and issubclass(SparseEncoder, nn.Sequential)
    assert (SparseEncoder.__module__, SparseEncoder.__qualname__) == ("sparse_encoder.model", "SparseEncoder")
    assert inspect.getsource(SparseEncoder).startswith("class SparseEncoder(OnnxMethods, ModuleSequence")
    assert type(SparseEncoder.__new__(SparseEncoder)) is SparseEncoder
    assert isinstance(mock.Mock(spec=SparseEncoder), SparseEncoder)
    match model:
        case SparseEncoder():
            found = True
    assert found


def test_a_class_made_of_it_is_made_of_the_real_one(tmp_path: Path) -> None:
    class Mixin(ABC):  # noqa: B024
        extra = 3

    class Mine(SparseEncoder, Mixin):
        def encode_query(self, inputs: str) -> object:  # type: ignore[override]
            return "mine", super().encode_query(inputs)

    assert Mine.__mro__[1] is RealEncoder
    assert issubclass(Mine, SparseEncoder) and issubclass(Mine, RealEncoder)
    mine = Mine(str(write_masked_language_model(tmp_path)), device="cpu")
    assert mine.encode_query("rain")[0] == "mine"
    assert mine.extra == 3
    with pytest.raises(ValueError, match="'onnx' for Mine; SparseEncoder itself has 'onnx' too"):
        Mine(str(tmp_path), backend="onnx")


def test_a_class_made_of_it_may_name_it_in_super_and_take_keywords(tmp_path: Path) -> None:
    class Tagged:
        def __init_subclass__(cls, tag: str) -> None:
            super().__init_subclass__()
            cls.tag = tag

    class Mine(SparseEncoder, Tagged, tag="q"):
        def __init__(self, other: SparseEncoder) -> None:
            super(SparseEncoder, self).__init__(list(other))
            self.prompts, self.max_active_dims = {}, None

    assert Mine.tag == "q"
    model = SparseEncoder(str(write_masked_language_model(tmp_path)), device="cpu")
    assert [*Mine(model)] == [*model]


def test_attributes_and_patches_are_those_of_the_real_class(model: SparseEncoder) -> None:
    before = RealEncoder.__dict__["encode"]
    with mock.patch.object(SparseEncoder, "encode", return_value="patched"):
        assert model.encode("rain") == "patched"
    assert RealEncoder.__dict__["encode"] is before
    SparseEncoder.added = 3  # type: ignore[attr-defined]
    assert RealEncoder.added == 3  # type: ignore[attr-defined]
    del SparseEncoder.added  # type: ignore[attr-defined]
    assert not hasattr(RealEncoder, "added")


def test_signature_and_pickles(model: SparseEncoder) -> None:
    assert str(inspect.signature(SparseEncoder)).startswith("(model_name_or_path: 'str | None' = None, *, modules")
    assert pickle.loads(pickle.dumps(SparseEncoder)) is SparseEncoder
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is RealEncoder
    assert again.encode("rain").equal(model.encode("rain"))


def test_both_backends_have_the_same_arguments() -> None:
    served = [*inspect.signature(front.open_onnx).parameters]
    assert [name for name in served if name != "tokenizer_kwargs"] == [*inspect.signature(RealEncoder).parameters]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvino"}, r"unknown backend 'openvino'; choose from \['onnx', 'torch'\]"),
        ({"backend": "onnx"}, "give the name or path"),
        ({"backend": "onnx", "modules": []}, "modules is for backend='torch'"),
        ({"backend": [1]}, r"unknown backend \[1\]"),
    ],
)
def test_bad_backends_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseEncoder(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_wrong_keyword_is_one_of_the_class(backend: str) -> None:
    with pytest.raises(TypeError, match=r"SparseEncoder.__init__\(\) got an unexpected keyword argument 'nothing'"):
        SparseEncoder("folder", backend=backend, nothing=1)  # type: ignore[call-arg]


LIGHT = """
import functools, inspect, pickle, sys
from typing import Optional, Union
from sparse_encoder import SparseEncoder

wanted = Optional[SparseEncoder], Union[SparseEncoder, int], SparseEncoder | None, list[SparseEncoder]
assert {SparseEncoder: 1}[SparseEncoder] == 1 and hash(SparseEncoder) and SparseEncoder == SparseEncoder

@functools.singledispatch
def kind(value): return "other"

@kind.register
def _(value: SparseEncoder): return "encoder"

assert not isinstance(3, SparseEncoder) and not issubclass(int, SparseEncoder)
assert SparseEncoder.__doc__.startswith("Turn texts") and SparseEncoder.__name__ == "SparseEncoder"
def signature():
    return [(each.name, each.kind, each.default) for each in inspect.signature(SparseEncoder).parameters.values()]

told = signature()
assert pickle.loads(pickle.dumps(SparseEncoder)) is SparseEncoder
early = [name for name in ("torch", "numpy", "scipy") if name in sys.modules]
assert kind(3) == "other"
"""


def test_what_it_is_can_be_asked_without_loading_anything() -> None:
    program = "print(early)\nassert set(dir(SparseEncoder)) >= {'encode', 'state_dict'} and 'torch' in sys.modules"
    assert run_python(LIGHT + program) == "[]"


def test_it_is_the_same_class_after_it_was_filled() -> None:
    program = """
before, doc = SparseEncoder, SparseEncoder.__doc__
class Mine(SparseEncoder): pass
import torch, sparse_encoder.model as home
assert home.SparseEncoder is before and issubclass(before, torch.nn.Sequential) and Mine.__mro__[1] is before
assert SparseEncoder.__doc__ == doc and signature() == told
assert type(before).__name__ == "ABCMeta" and pickle.loads(pickle.dumps(before)) is before
print(kind(Mine.__new__(Mine)))
"""
    assert run_python(LIGHT + program) == "encoder"


def test_where_torch_was_imported_first_it_is_full_at_once() -> None:
    program = (
        "import torch; from sparse_encoder import SparseEncoder; print(issubclass(SparseEncoder, torch.nn.Module))"
    )
    assert run_python(program) == "True"


def test_without_torch_it_tells_what_it_can() -> None:
    program = """
assert {"encode", "decode", "providers"} <= set(dir(SparseEncoder))
assert not hasattr(SparseEncoder, "__something__")
try:
    SparseEncoder.state_dict
except ImportError:
    print("refused")
"""
    assert run_without_torch(LIGHT + program) == "refused"
