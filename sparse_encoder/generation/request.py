"""What a caller asks of `generate`, checked as far as no model is needed. Knows nothing of how it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.outputs import encoder_output
from sparse_encoder.generation.protocol import EncoderStates, GenerationCache

PrefixFunction = Callable[[int, Tensor], list[int]]

REFUSED = {
    "synced_gpus": "every process decodes its own rows here; leave it out, and gather sharded weights first",
    "assistant_model": "speculation with a second model is not part of this library; leave it out",
    "assistant_tokenizer": "speculation with a second model is not part of this library; leave it out",
    "negative_prompt_ids": "guidance without a classifier is not part of this library; leave it out",
    "negative_prompt_attention_mask": "guidance without a classifier is not part of this library; leave it out",
    "custom_generate": "code from a model's folder is never run; call your own function instead",
    "trust_remote_code": "code from a model's folder is never run; leave it out",
    "head_mask": "heads cannot be masked while text is written; prune them with model.prune_heads",
    "token_type_ids": "decoders have no token types; take it out of what the tokenizer returned",
}
"""Arguments of transformers' `generate` that are not taken, and what to do instead."""

DECODER_ARGUMENTS = ("input_ids", "attention_mask", "position_ids", "inputs_embeds", "past_key_values")
ENCODER_DECODER_ARGUMENTS = (
    "input_ids",
    "attention_mask",
    "inputs_embeds",
    "past_key_values",
    "decoder_input_ids",
    "decoder_attention_mask",
    "encoder_outputs",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """Hold the arguments of one call of `generate`; see :meth:`GenerationMixin.generate`."""

    inputs: Tensor | None
    generation_config: GenerationConfig | None
    logits_processor: Iterable[Any] | None
    stopping_criteria: Iterable[Any] | None
    prefix_allowed_tokens_fn: PrefixFunction | None
    streamer: Any  # anything with put and end
    tokenizer: Any  # anything that decodes
    generator: torch.Generator | None
    settings: Mapping[str, Any]
    """Fields of a generation config, and inputs of the model, by name."""

    def __post_init__(self) -> None:
        """Check types."""
        passed = self.generation_config
        if passed is not None and not isinstance(passed, GenerationConfig):
            raise TypeError(wrong_config(passed))
        for name in ("logits_processor", "stopping_criteria"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not isinstance(value, Iterable)):
                raise TypeError(f"{name} must be a list of callables, got {type(value).__name__}; wrap it in a list")
            for item in value or ():
                if not callable(item):
                    raise TypeError(f"{name} must hold callables, got {type(item).__name__}")
        if self.prefix_allowed_tokens_fn is not None and not callable(self.prefix_allowed_tokens_fn):
            kind = type(self.prefix_allowed_tokens_fn).__name__
            raise TypeError(f"prefix_allowed_tokens_fn must be a function of (batch_id, input_ids), got {kind}")
        if self.generator is not None and not isinstance(self.generator, torch.Generator):
            kind = type(self.generator).__name__
            raise TypeError(f"generator must be a torch.Generator, got {kind}; use torch.Generator().manual_seed(seed)")
        if self.streamer is not None and not (hasattr(self.streamer, "put") and hasattr(self.streamer, "end")):
            raise TypeError(f"streamer must have the methods put and end, got {type(self.streamer).__name__}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelArguments:
    """Hold the inputs of the model that a caller gave."""

    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    past_key_values: GenerationCache | None = None
    decoder_input_ids: Tensor | None = None
    decoder_attention_mask: Tensor | None = None
    encoder_outputs: EncoderStates | None = None

    def __post_init__(self) -> None:
        """Check types and numbers of axes."""
        for name in ("input_ids", "decoder_input_ids"):
            check_ids(name, getattr(self, name))
        for name in ("attention_mask", "decoder_attention_mask", "position_ids"):
            check_plane(name, getattr(self, name))
        if self.inputs_embeds is not None:
            check_tensor("inputs_embeds", self.inputs_embeds)
            if self.inputs_embeds.ndim != 3 or not self.inputs_embeds.is_floating_point():
                kind = f"{tuple(self.inputs_embeds.shape)} of {self.inputs_embeds.dtype}"
                raise ValueError(f"inputs_embeds must be floating point of shape (texts, tokens, width), got {kind}")
        if self.position_ids is not None and self.position_ids.dtype not in (torch.int64, torch.int32):
            given = self.position_ids.dtype
            raise TypeError(f"position_ids must hold places of dtype int64, got {given}; use position_ids.long()")
        cache = self.past_key_values
        if isinstance(cache, tuple | list):
            raise ValueError(
                "past_key_values must be a cache, got a tuple; use DynamicCache.from_tensors(past_key_values)"
            )
        if cache is not None and not hasattr(cache, "get_seq_length"):
            raise TypeError(f"past_key_values must be a cache such as DynamicCache, got {type(cache).__name__}")

    def to(self, device: torch.device) -> ModelArguments:
        """Return the same with every tensor on a device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}  # of many types
        moved = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return ModelArguments(**{**values, **moved})


def wrong_config(value: object) -> str:
    """Say what is wrong with what was given for a generation config, and what to do."""
    kind = type(value)
    told = f"generation_config must be a sparse_encoder.generation.GenerationConfig, got {kind.__module__}."
    if hasattr(value, "to_diff_dict"):
        repair = "use GenerationConfig.from_dict(other.to_diff_dict())"
    else:
        repair = "use GenerationConfig.from_dict(...)" if isinstance(value, dict) else "use GenerationConfig(...)"
    return f"{told}{kind.__qualname__}; {repair}"


def refuse(arguments: Mapping[str, object]) -> None:
    """Raise for arguments of the peer that this library does not take; None and False ask for nothing.

    Raises:
        ValueError: If one of them is given.
    """
    for name, value in arguments.items():
        if name in REFUSED and value is not None and value is not False:
            raise ValueError(f"{name} is not supported: {REFUSED[name]}")


def model_arguments(
    inputs: Tensor | None, given: Mapping[str, Any], *, is_encoder_decoder: bool, model_name: str
) -> ModelArguments:
    """Check and pack the inputs of a model.

    Args:
        inputs: What was given by place or as ``inputs``; it stands for ``input_ids``.
        given: What is no field of a generation config, by name.
        is_encoder_decoder: Whether the model has an encoder.
        model_name: For messages.

    Raises:
        ValueError: If names are unknown, both inputs are given or a shape is wrong.
        TypeError: If a value has the wrong type.
    """
    known = ENCODER_DECODER_ARGUMENTS if is_encoder_decoder else DECODER_ARGUMENTS
    refuse(given)
    present = {name: value for name, value in given.items() if value is not None and name not in REFUSED}
    unknown = sorted(present.keys() - set(known))
    if unknown:
        raise ValueError(
            f"generate does not know {unknown}: neither fields of a GenerationConfig nor inputs of {model_name}, "
            f"which are {list(known)}; look for typing errors"
        )
    if inputs is not None:
        if "input_ids" in present:
            raise ValueError("inputs and input_ids are two names of one argument; give one of them")
        present["input_ids"] = inputs
    if is_encoder_decoder and "input_ids" in present and "inputs_embeds" in present:
        raise ValueError("input_ids and inputs_embeds are both given; an encoder reads one of them")
    if "encoder_outputs" in present:
        present["encoder_outputs"] = encoder_output(present["encoder_outputs"])
    return ModelArguments(**present)


def check_tensor(name: str, value: object) -> None:
    """Raise a TypeError for anything but a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}; use torch.tensor({name})")


def check_plane(name: str, value: Tensor | None) -> None:
    """Raise for anything but a tensor of two axes.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it has more or fewer axes.
    """
    if value is None:
        return
    check_tensor(name, value)
    if value.ndim != 2:
        raise ValueError(f"{name} must have two axes, (texts, tokens), got shape {tuple(value.shape)}")


def check_ids(name: str, value: Tensor | None) -> None:
    """Raise for anything but token ids, (B, T), with B and T at least 1.

    Raises:
        TypeError: If it is no tensor of integers.
        ValueError: If its shape is wrong or it is empty.
    """
    check_plane(name, value)
    if value is None:
        return
    if value.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must hold token ids of dtype int64, got {value.dtype}; use {name}.long()")
    if not value.numel():
        raise ValueError(f"{name} must hold at least one token, got shape {tuple(value.shape)}; leave it out for bos")
