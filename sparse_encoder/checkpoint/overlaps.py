"""Tensors that share memory: which of them hold each other's numbers. Knows nothing of files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor


def refuse_overlaps(tensors: Mapping[str, Tensor]) -> None:
    """Make sure that no number is in two tensors; views of one memory beside each other are fine.

    Args:
        tensors: Plain tensors by name.

    Raises:
        RuntimeError: If two tensors have a number in common: a file would hold it twice, and what reads the file would
            not know that they are one.
    """
    sharing: defaultdict[tuple[torch.device, int], list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if tensor.numel() and not tensor.is_meta and tensor.layout == torch.strided:
            sharing[tensor.device, tensor.untyped_storage().data_ptr()].append(name)
    for names in sharing.values():
        if len(names) > 1:
            _refuse_overlap({name: tensors[name] for name in names})


def _refuse_overlap(views: Mapping[str, Tensor]) -> None:
    """Mark the numbers of each view in a table of the bytes they begin at, unless they lie apart anyway."""
    spans = sorted((*_span(view), name) for name, view in views.items())
    if all(left[1] <= right[0] for left, right in zip(spans, spans[1:], strict=False)):
        return
    first = next(iter(views.values()))
    if any(view.dtype != first.dtype for view in views.values()):
        raise _shared(list(views))
    owners = torch.zeros(first.untyped_storage().nbytes() // first.element_size(), dtype=torch.bool)
    for name, view in views.items():
        place = owners.as_strided(view.shape, view.stride(), view.storage_offset())
        if place.any():
            raise _shared([name, *(other for other in views if other != name)])
        place.fill_(True)


def _span(view: Tensor) -> tuple[int, int]:
    """Return the first byte of a view and the one behind its last."""
    reach = sum((int(size) - 1) * int(stride) for size, stride in zip(view.shape, view.stride(), strict=True))
    begin = int(view.storage_offset()) * view.element_size()
    return begin, begin + (reach + 1) * view.element_size()


def _shared(names: list[str]) -> RuntimeError:
    return RuntimeError(
        f"{sorted(names)} share memory, and the model does not say that they are tied; give each its own by .clone(),"
        " or leave one of them out"
    )
