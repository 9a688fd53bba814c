"""Whether a model is still what its files hold, so that its adapter can be written without it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparse_encoder.backbone.adapters.files import has_adapter
from sparse_encoder.backbone.dtypes import DTYPE_KEYS
from sparse_encoder.backbone.loading.load import load_plainly
from sparse_encoder.backbone.loading.origin import CAUSAL_KEY
from sparse_encoder.checkpoint import LoadError

if TYPE_CHECKING:
    from sparse_encoder.backbone.pretrained import PretrainedModel

logger = logging.getLogger(__name__)


def is_as_stored(model: PretrainedModel, tensors: Mapping[str, Tensor]) -> bool:
    """Say whether loading a model by its name alone gives this one again, but for adapters, direction and the dtype.

    The direction of a decoder is written with the adapter.

    The files are read for it, which takes as long as loading.

    Args:
        model: The model.
        tensors: Its own without adapters, by our names, or some of them.
    """
    source = model.source
    if source is None or source.name is None or has_adapter(source.folder):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles: it was said when the model was loaded
            said = model.hf_config.get(CAUSAL_KEY) if model.family.is_decoder else None
            stored = load_plainly(type(model), source.folder, is_causal=said)
    except (LoadError, OSError, TypeError, ValueError) as reason:
        logger.info("%s cannot be loaded by its name alone: %s", source.name, reason)
        return False
    if stored.config != model.config or _settings(stored) != _settings(model):
        return False
    return _are_equal(tensors, stored.state_dict())


def _settings(model: PretrainedModel) -> dict[str, object]:
    return {key: value for key, value in model.hf_config.items() if key not in DTYPE_KEYS}


def _are_equal(tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> bool:
    """Compare tensors in the dtypes of the first; those that were put on the disk to save memory are as they were."""
    return all(
        name in stored
        and tensor.shape == stored[name].shape
        and (tensor.is_meta or torch.equal(tensor.detach().cpu(), stored[name].to(tensor.dtype)))
        for name, tensor in tensors.items()
    )
