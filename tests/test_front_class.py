"""``sparse_encoder.SparseEncoder`` is used as the class that it stands for."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import typing
from abc import ABC
from pathlib import Path
from unittest import mock

import pytest
from model_helpers import write_masked_language_model
from torch import nn

from sparse_encoder import SparseEncoder, front
from sparse_encoder.model import SparseEncoder as RealEncoder

ROOT = Path(__file__).parents[1]


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


def test_it_is_equal_to_the_real_class() -> None:
    assert SparseEncoder == RealEncoder
    assert RealEncoder == SparseEncoder
    assert hash(SparseEncoder) == hash(RealEncoder)
    assert {RealEncoder: 1}[SparseEncoder] == 1
    assert SparseEncoder != nn.Module
    assert repr(SparseEncoder) == repr(RealEncoder)
    assert typing.get_args(typing.Optional[SparseEncoder])[0] == RealEncoder  # noqa: UP045  (what it must not break)


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
    with pytest.raises(ValueError, match="sparse_encoder.SparseEncoder has 'onnx' too"):
        Mine(str(tmp_path), backend="onnx")


def test_attributes_and_patches_are_those_of_the_real_class(model: SparseEncoder) -> None:
    assert SparseEncoder.encode is RealEncoder.encode
    assert SparseEncoder.__init__ is RealEncoder.__init__
    assert SparseEncoder.__doc__ == RealEncoder.__doc__
    assert set(dir(SparseEncoder)) == set(dir(RealEncoder))
    before = RealEncoder.__dict__["encode"]
    with mock.patch.object(SparseEncoder, "encode", return_value="patched"):
        assert model.encode("rain") == "patched"
    assert RealEncoder.__dict__["encode"] is before
    SparseEncoder.added = 3  # type: ignore[attr-defined]
    assert RealEncoder.added == 3  # type: ignore[attr-defined]
    del SparseEncoder.added  # type: ignore[attr-defined]
    assert not hasattr(RealEncoder, "added")


def test_signature_and_pickles(model: SparseEncoder) -> None:
    assert inspect.signature(SparseEncoder) == inspect.signature(RealEncoder)
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
    ],
)
def test_bad_backends_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseEncoder(**options)  # type: ignore[arg-type]


def test_importing_it_and_asking_what_it_is_load_nothing() -> None:
    program = (
        "import sys; from sparse_encoder import SparseEncoder; isinstance(3, SparseEncoder); SparseEncoder.__name__; "
        "SparseEncoder | None; print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
