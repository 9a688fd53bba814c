"""Which devices a pipeline runs on: the numbers and names that callers may give."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Device = str | int | torch.device
"""A name as ``"cpu"`` or ``"cuda:1"``, or a number: -1 is the CPU, 0 the first accelerator."""


def devices_of(given: Device | Sequence[Device] | None, default: torch.device) -> list[torch.device]:
    """Return the devices that are meant.

    Args:
        given: One or several; None means ``default``.
        default: Where the model is.

    Raises:
        TypeError: If one is neither a name nor a number.
        ValueError: If there is none, or one that this machine does not have.
    """
    if given is None:
        return [default]
    places = [given] if isinstance(given, str | int | torch.device) else list(given)
    if not places:
        raise ValueError("device must be a device or several, got an empty list")
    return [_device(place) for place in places]


def _device(given: Device) -> torch.device:
    if isinstance(given, bool) or not isinstance(given, str | int | torch.device):
        raise TypeError(
            f"a device must be a name, a number or a torch.device, got {type(given).__name__}: {given!r:.80}"
        )
    kind, count = _accelerator()
    number = given if isinstance(given, int) else _number(given) if isinstance(given, str) else None
    if number is not None:
        given = "cpu" if number == -1 else f"{kind or 'accelerator'}:{number}"
    try:
        found = torch.device(given)
    except RuntimeError:
        found = torch.device("meta")
    fits = found.type == "cpu" or (found.type == kind and (found.index is None or found.index < count))
    if not fits:
        known = ["'cpu'", "-1 for it"]
        known += [f"'{kind}:{place}'" for place in range(count)] + [f"0 to {count - 1} for them"] if count else []
        shown = given if number is None else number
        raise ValueError(f"there is no device {str(shown)!r} on this machine; choose from {', '.join(known)}")
    return found


def _number(name: str) -> int | None:
    """Return the number that a name is, as one on a command line."""
    return int(name) if name.isascii() and name.removeprefix("-").isdigit() else None


def _accelerator() -> tuple[str | None, int]:
    """Return the kind of accelerator that is there, and how many."""
    if not torch.accelerator.is_available():
        return None, 0
    found = torch.accelerator.current_accelerator()
    return (None, 0) if found is None else (found.type, torch.accelerator.device_count())
