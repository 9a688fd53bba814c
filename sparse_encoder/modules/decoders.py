"""What a decoder, a model made to write, needs as the backbone of an encoder, and how the peer spells such a module.

sentence-transformers 6.2 has no ``fill-mask`` for decoders. What it calls ``text-generation`` gives the same logits if
it keeps those of all tokens, so that is what is written; in memory the task is ``fill-mask`` for every backbone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.backbone.adapters.names import HEAD, file_names
from sparse_encoder.backbone.families.family import HEAD_WEIGHT
from sparse_encoder.backbone.loading.origin import CAUSAL_KEY as CAUSAL_KEY
from sparse_encoder.backbone.loading.origin import CONFIG_NAME
from sparse_encoder.checkpoint import read_json_object
from sparse_encoder.tokenizer_options import LOGITS_TO_KEEP, PEER_TASK

logger = logging.getLogger(__name__)

BIDIRECTIONAL = "bidirectional"

Kwargs = Mapping[str, Any]  # Any: options by name


def check_task(task: str, model: PretrainedModel) -> None:
    """Refuse the peer's task for decoders on an encoder.

    Raises:
        ValueError: If the backbone is none.
    """
    if task == PEER_TASK and not model.family.is_decoder:
        raise ValueError(f"transformer_task {PEER_TASK!r} is for decoders, not for a {model.architecture}: 'fill-mask'")


def with_direction(model_kwargs: Kwargs, config_kwargs: Kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Turn the option ``bidirectional`` of a backbone into the key of its configuration, with which it is saved.

    Args:
        model_kwargs: Options of the backbone.
        config_kwargs: Values of its configuration.

    Returns:
        Both; the first without the option.

    Raises:
        TypeError: If it is neither True nor False.
        ValueError: If the configuration is to say the opposite.
    """
    rest, values = dict(model_kwargs), dict(config_kwargs)
    asked = rest.pop(BIDIRECTIONAL, None)
    if asked is None:
        return rest, values
    if not isinstance(asked, bool):
        raise TypeError(f"{BIDIRECTIONAL} must be True or False, got {asked!r:.80}")
    if values.setdefault(CAUSAL_KEY, not asked) is not (not asked):
        raise ValueError(f"{BIDIRECTIONAL}={asked} and {CAUSAL_KEY}={values[CAUSAL_KEY]!r:.80} contradict each other")
    return rest, values


def direction_to_save(model: PretrainedModel) -> dict[str, Any]:
    """Return what a module's file says of the direction of a decoder with an adapter, if its base has the other.

    sentence-transformers cannot be told: the configuration of the base is all it knows of the direction. With this it
    refuses the folder (``unexpected keyword argument 'bidirectional'``) in place of computing other vectors.
    """
    source = model.source
    if not (model.has_adapters and model.family.is_decoder) or source is None:
        return {}
    path = source.folder / CONFIG_NAME
    if not path.is_file() or read_json_object(path).get(CAUSAL_KEY, True) is model.config.causal:
        return {}
    return {"model_kwargs": {BIDIRECTIONAL: not model.config.causal}}


def written_for_peer(config: Kwargs) -> dict[str, Any]:
    """Spell the configuration of a module whose backbone is a decoder with a head as sentence-transformers does."""
    processing: Kwargs = config.get("processing_kwargs") or {}
    text = {**processing.get("text", {}), LOGITS_TO_KEEP: 0}
    return {**config, "transformer_task": PEER_TASK, "processing_kwargs": {**processing, "text": text}}


def warn_of_idle_head(model: PretrainedModel) -> None:
    """Say so in the log if a decoder with adapters keeps the head that was made to score the next token."""
    if not (model.family.is_decoder and model.has_head) or model.get_parameter(HEAD_WEIGHT).requires_grad:
        return
    if any(name.startswith(f"{HEAD}.") and each.requires_grad for name, each in model.named_parameters()):
        return
    table = file_names(model)[HEAD_WEIGHT].removesuffix(".weight")
    logger.warning(
        "the adapter does not train %s, which was made to score the next token and not terms; give "
        "LoraConfig(..., modules_to_save=[%r]) for all of it, or name it in target_modules too for low-rank changes",
        table,
        table,
    )
