from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_encoder.checkpoint.overlaps import refuse_overlaps

BASE = torch.arange(40.0).reshape(4, 10)


@pytest.mark.parametrize(
    "views",
    [
        {"a": BASE[:2], "b": BASE[2:]},
        {"a": BASE[:, :3], "b": BASE[:, 3:]},  # their bytes interleave
        {"a": BASE[:, ::2], "b": BASE[:, 1::2]},
        {"a": BASE[:2], "b": BASE[2:].view(torch.int32)},
        {"a": torch.empty(0), "b": torch.empty(0)},
        {"a": BASE, "b": BASE.clone()},
        {"a": torch.ones(3, device="meta"), "b": torch.ones(3, device="meta")},
    ],
)
def test_tensors_beside_each_other_are_fine_and_stay_as_they_are(views: dict[str, Tensor]) -> None:
    refuse_overlaps(views)
    assert torch.equal(BASE, torch.arange(40.0).reshape(4, 10))


@pytest.mark.parametrize(
    "views",
    [
        {"b": BASE, "a": BASE},
        {"b": BASE, "a": BASE.T},
        {"b": BASE[:3], "a": BASE[2:]},
        {"b": BASE[:, :4], "a": BASE[:, 3:]},
        {"b": BASE, "a": BASE[1, 1]},
        {"b": BASE[:, :5], "a": BASE[:, 5:].view(torch.int32)},  # cannot be told, so refused
    ],
)
def test_a_number_in_two_tensors_is_an_error_that_names_both(views: dict[str, Tensor]) -> None:
    with pytest.raises(RuntimeError, match=r"\['a', 'b'\] share memory, and the model does not say that they are tied"):
        refuse_overlaps({**views, "other": torch.ones(3)})
