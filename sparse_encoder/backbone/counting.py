"""How large a model is: parameters, bytes, and the tokens it is given. Knows no kind of model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from torch import Tensor, nn

INPUT_IDS = "input_ids"


def num_parameters(model: nn.Module, *, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
    """Count parameters; one that stands in two places counts once.

    Args:
        model: Any module.
        only_trainable: Leave out those that get no gradient.
        exclude_embeddings: Leave out the tables of every ``nn.Embedding``, also where they are tied to a decoder.
    """
    tables: set[int] = set()
    if exclude_embeddings:
        tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    counted = (each for each in model.parameters() if id(each) not in tables)
    return sum(each.numel() for each in counted if each.requires_grad or not only_trainable)


def memory_footprint(model: nn.Module, *, return_buffers: bool = True) -> int:
    """Return the bytes of the parameters, and of the buffers if asked; what stands in two places counts once.

    Args:
        model: Any module.
        return_buffers: Whether buffers count.
    """
    tensors = chain(model.parameters(), model.buffers() if return_buffers else ())
    return sum(each.numel() * each.element_size() for each in tensors)


def token_tensors(inputs: Mapping[str, object], main_name: str = INPUT_IDS) -> Iterator[Tensor]:
    """Yield the token ids of a batch: those of this name, and of further columns with it at their end, ``..._name``."""
    for name, value in inputs.items():
        if (name == main_name or name.endswith(f"_{main_name}")) and isinstance(value, Tensor):
            yield value


def count_tokens(inputs: Mapping[str, object], main_name: str = INPUT_IDS) -> int:
    """Count the token positions of a batch, padding included; names as in :func:`token_tensors`."""
    return sum(value.numel() for value in token_tensors(inputs, main_name))
