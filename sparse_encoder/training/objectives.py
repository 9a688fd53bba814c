"""Losses by name of the dataset, and which model they run; knows no loss's maths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from sparse_encoder.training.data.datasets import TrainingData

LossFactory = Callable[[Any], nn.Module]  # of the model, whatever its class
GivenLoss = nn.Module | LossFactory | Mapping[str, nn.Module | LossFactory]


class Losses(nn.Module):
    """Hold losses by name of the dataset, so that they are moved, trained and saved together.

    A name may hold dots or be empty, which names of modules may not; they are written as ``%2E`` and ``%``.

    Args:
        losses: Some may be the same.
    """

    def __init__(self, losses: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, loss in losses.items():
            self._modules[name.replace("%", "%25").replace(".", "%2E") or "%"] = loss


def build_losses(given: GivenLoss, model: nn.Module) -> nn.Module | dict[str, nn.Module]:
    """Make of what was given as loss a module, or modules by name.

    Args:
        given: Modules, or functions that make them from the model, one of them or several by name.
        model: Handed to the functions.

    Raises:
        ValueError: If it is something else, or a function returns something else.
    """
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, Mapping):
        if not given:
            raise ValueError("loss is an empty dict; give a loss for each dataset")
        built = {name: build_losses(each, model) for name, each in given.items()}
        return {name: _module(loss, f"the loss of {name!r}") for name, loss in built.items()}
    if not callable(given):
        raise ValueError(
            "loss must be a module, a function that makes one from the model, or a dict of them by dataset, "
            f"got {type(given).__name__}"
        )
    return _module(given(model), "the loss function's result")


def check_losses(losses: Mapping[str, object], data: TrainingData) -> None:
    """Check that every dataset has a loss; losses without a dataset do no harm.

    Raises:
        ValueError: If there is only one dataset without a name, or a dataset has no loss.
    """
    if not data.is_mapping:
        raise ValueError(f"losses by dataset, {sorted(losses)}, need {data.name} to be a dict of datasets by name")
    if missing := sorted(set(data.parts) - set(losses)):
        raise ValueError(f"{data.name} has datasets without a loss, {missing}; there are losses for {sorted(losses)}")


def loss_of(loss: nn.Module | Mapping[str, nn.Module], dataset_name: str | None) -> nn.Module:
    """Return the loss of a batch.

    Raises:
        ValueError: If there is a loss for each dataset, and none for this one.
    """
    if isinstance(loss, nn.Module):
        return loss
    if dataset_name is None or dataset_name not in loss:
        raise ValueError(f"a batch of the dataset {dataset_name!r} has no loss; there are losses for {sorted(loss)}")
    return loss[dataset_name]


def put_model_into_loss(loss: nn.Module, model: nn.Module) -> None:
    """Make a loss, and the losses it is made of, run this model, perhaps wrapped, in the place of the one they hold."""
    if getattr(loss, "model", None) is model:
        return
    for name, child in list(loss.named_children()):
        if name == "model":
            loss.model = model
        else:
            put_model_into_loss(child, model)


def _module(made: object, what: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise ValueError(f"{what} must be a module, got {type(made).__name__}")
    return made
