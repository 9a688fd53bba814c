"""Losses by name of the dataset, and which model they run; knows no loss's maths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

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


def put_model_into_loss(loss: nn.Module, model: nn.Module, others: Iterable[nn.Module] = ()) -> None:
    """Make a loss, and the losses it is made of, run this model, perhaps wrapped, in the place of the one they hold.

    Other encoders in it, such as teachers, are left alone, and so is what encoders are made of.

    Args:
        loss: Its ``model`` is replaced, and that of each loss in it that has the same one, or one of ``others``.
        model: To be run.
        others: Models that it stands for, as they were before.
    """
    given = getattr(loss, "model", None)
    known = [each for each in (given, model, *others) if isinstance(each, nn.Module)]
    if isinstance(given, nn.Module) and given is not model:
        loss.model = model
    for name, child in list(loss.named_children()):
        if name != "model" and not _is_encoder(child, known):
            _replace_model(child, model, known)


def checked_terms(value: object, loss: nn.Module) -> dict[str, Tensor]:
    """Return what a loss has returned as scalars by name; one alone is called ``loss``.

    A term that is called ``loss`` itself becomes ``loss_term``, as the sum has that name.

    Args:
        value: Of the loss.
        loss: For the message.

    Raises:
        TypeError: If it is neither a scalar tensor nor a dict of them.
        ValueError: If it is empty, or a tensor is not a scalar.
    """
    what = type(loss).__name__
    if isinstance(value, Tensor):
        terms: Mapping[Any, Any] = {"loss": value}  # checked below
    elif isinstance(value, Mapping):
        terms = {"loss_term" if name == "loss" else name: term for name, term in value.items()}
    else:
        raise TypeError(f"{what} must return a scalar tensor or a dict of them, got {type(value).__name__}")
    if not terms:
        raise ValueError(f"{what} must return at least one term, got an empty dict")
    for name, term in terms.items():
        if not isinstance(term, Tensor):
            raise TypeError(f"{what} must return tensors, got {type(term).__name__} for {name!r}")
        if term.numel() != 1:
            raise ValueError(f"{what} must return scalars, got a tensor {tuple(term.shape)} for {name!r}")
    return {str(name): term.reshape(()) for name, term in terms.items()}


def _replace_model(part: nn.Module, model: nn.Module, known: list[nn.Module]) -> None:
    """Put a model in the place of the known ones in a loss within a loss."""
    held = getattr(part, "model", None)
    if held is not model and any(held is each for each in known):
        part.model = model
    for name, child in list(part.named_children()):
        if name != "model" and not _is_encoder(child, known):
            _replace_model(child, model, known)


def _is_encoder(part: nn.Module, known: list[nn.Module]) -> bool:
    """Return whether a part is a model, whose own parts are no losses."""
    return hasattr(part, "preprocess") or any(part is each for each in known)


def _module(made: object, what: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise ValueError(f"{what} must be a module, got {type(made).__name__}")
    return made
