"""What a model tells of itself: size, work, memory, dtype, device, masks. Knows neither files nor text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_encoder.backbone import counting, masks, memory_hooks
from sparse_encoder.backbone.casts import Mask, Tree, to_bf16, to_fp16, to_fp32
from sparse_encoder.backbone.compiled import CompileConfig
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.flops import matrix_operations, operations_per_token
from sparse_encoder.backbone.transformer import Transformer

logger = logging.getLogger(__name__)

_COMPILED = "_compiled_call"
_MAY_BE_PADDING = ("bos_token_id", "eos_token_id", "sep_token_id")


class CountedModel(nn.Module):
    """Tell how large a model is and how much work it does; one base of a pretrained model."""

    backbone: Transformer
    main_input_name: ClassVar[str] = counting.INPUT_IDS
    """The feature that holds the tokens."""
    _told_of_no_tokens = False

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count parameters; tied ones count once.

        Args:
            only_trainable: Leave out those that get no gradient.
            exclude_embeddings: Leave out the tables of every embedding, also where a decoder shares one.
        """
        return counting.num_parameters(self, only_trainable=only_trainable, exclude_embeddings=exclude_embeddings)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of the parameters and, if ``return_buffers``, of the buffers."""
        return counting.memory_footprint(self, return_buffers=return_buffers)

    def estimate_tokens(self, inputs: Mapping[str, object]) -> int:
        """Count the token positions of a batch, padding included; 0 with a warning, once, if it has no token ids.

        Args:
            inputs: The tokens by :attr:`main_input_name`, (B, T), or several columns of them, ``..._input_ids``; and
                whatever else.
        """
        name = self.main_input_name
        count = counting.count_tokens(inputs, name)
        if not count and not any(True for _ in counting.token_tensors(inputs, name)) and not self._told_of_no_tokens:
            logger.warning("the inputs have no %s, so their tokens count as 0", name)
            self._told_of_no_tokens = True
        return count

    def floating_point_ops(
        self,
        inputs: Mapping[str, object],
        exclude_embeddings: bool = True,
        *,
        count_products: bool = False,
        backward: bool = True,
    ) -> int:
        r"""Say how many floating-point operations a batch takes.

        By default the usual estimate, :math:`6 \cdot \text{tokens} \cdot \text{parameters}`, without attention's
        quadratic term. With ``count_products`` every matrix product is counted, those of attention too, as
        ``torch.utils.flop_counter`` counts them in a model of plain attention (``attn_implementation="eager"``); fused
        attention computes its scores a second time in the backward pass, which is not counted.

        Args:
            inputs: As in :meth:`estimate_tokens`.
            exclude_embeddings: Leave the tables out of the estimate.
            count_products: Count products instead of parameters.
            backward: Whether the backward pass counts too.

        Raises:
            ValueError: If ``count_products`` is asked for with embeddings, which multiply nothing.
        """
        if not count_products:
            each = operations_per_token(self, exclude_embeddings=exclude_embeddings, backward=backward)
            return self.estimate_tokens(inputs) * each
        if not exclude_embeddings:
            raise ValueError("count_products counts products, and embeddings have none: leave exclude_embeddings true")
        self.estimate_tokens(inputs)  # warns if there are none
        batches = list(counting.token_tensors(inputs, self.main_input_name))
        return matrix_operations(self, self.backbone, batches, backward=backward)

    def add_memory_hooks(self) -> None:
        """Measure what each module's forward pass adds to memory, as ``module.mem_rss_diff`` in bytes."""
        memory_hooks.add_memory_hooks(self)

    def reset_memory_hooks_state(self) -> None:
        """Start the measurements of :meth:`add_memory_hooks` again from zero."""
        memory_hooks.reset_memory_hooks_state(self)


class ModelFacts(CountedModel):
    """Tell what a model is and does besides; one base of a pretrained model."""

    config: TransformerConfig
    hf_config: dict[str, Any]  # Any: parsed JSON
    _told_of_padding = False

    @property
    def device(self) -> torch.device:
        """Of the first parameter that is in memory; of a model that is all on the disk, the CPU, where it computes."""
        devices = (each.device for each in self.parameters())
        spread = getattr(self, "hf_device_map", None) is not None
        return next((each for each in devices if each.type != "meta"), torch.device("cpu" if spread else "meta"))

    @property
    def dtype(self) -> torch.dtype:
        """Of the first floating parameter."""
        return next(each.dtype for each in self.parameters() if each.is_floating_point())

    @classmethod
    def can_generate(cls) -> bool:
        """Say whether this kind of model writes text: whether it has ``generate``."""
        return callable(getattr(cls, "generate", None))

    def dequantize(self) -> None:
        """Refuse: no model of this library holds quantized weights.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"the model is not quantized: its weights are {self.dtype}")

    def get_parameter_or_buffer(self, target: str) -> Any:  # noqa: ANN401 - extra state is of any type
        """Return a parameter, else a buffer, else the extra state of a module.

        Args:
            target: Its full name, such as ``"backbone.embeddings.word.weight"`` or ``"part._extra_state"``.

        Raises:
            AttributeError: If there is none of this name.
        """
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        for tensors in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            for found, tensor in tensors:
                if found == name:
                    return tensor
        if name == "_extra_state" and type(module).get_extra_state is not nn.Module.get_extra_state:
            return module.get_extra_state()
        raise AttributeError(f"{target!r} is neither a parameter nor a buffer nor the extra state of a module")

    def get_compiled_call(self, compile_config: object | None = None) -> Callable[..., Any]:
        """Return this model's call through ``torch.compile``: the same object until another config is given.

        Args:
            compile_config: Its options: a :class:`CompileConfig`, or any object with the same attributes, such as that
                of transformers; ``None`` for the defaults.

        Raises:
            TypeError: If it lacks one of these attributes.
        """
        chosen = CompileConfig.of(compile_config)
        kept: tuple[CompileConfig, Callable[..., Any]] | None = self.__dict__.get(_COMPILED)
        if kept is None or kept[0] != chosen:
            compiled = torch.compile(self.__call__, **chosen.arguments())
            kept = self.__dict__[_COMPILED] = (chosen, compiled)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled: a copy compiles its own."""
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != _COMPILED}

    def warn_if_padding_and_no_attention_mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Warn, once, if token ids seem to be padded and there is no mask; waits for the device until then.

        Args:
            input_ids: Token ids, (B, T); only the first and last column are looked at.
            attention_mask: Given, there is nothing to warn of.
        """
        pad = self.config.pad_token_id
        if attention_mask is not None or pad is None or self._told_of_padding:
            return
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
            return
        if not bool((input_ids[:, [0, -1]] == pad).any()):
            return
        same = [name for name in _MAY_BE_PADDING if self.hf_config.get(name) == pad]
        doubt = f"; it is {' and '.join(same)} too, so they may be no padding after all" if same else ""
        logger.warning(
            "input_ids begin or end with pad_token_id %d and there is no attention_mask, so padding is read as text: "
            "give an attention_mask%s",
            pad,
            doubt,
        )
        self._told_of_padding = True

    def mask_or_ones(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return a mask, (B, T); without one it is all ones, and padding is warned of, once.

        Args:
            input_ids: Token ids, (B, T).
            attention_mask: 1 for a token, 0 for padding, (B, T); None takes all for tokens.
        """
        if attention_mask is not None:
            return attention_mask
        self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        return torch.ones_like(input_ids)

    def get_extended_attention_mask(
        self,
        attention_mask: Tensor,
        input_shape: Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Turn a mask of ones and zeros into a bias on attention scores, as other libraries' layers take it.

        Args:
            attention_mask: 1 where a token may be seen, (B, P + T) or (B, T, P + T).
            input_shape: Texts and tokens, B and T.
            device: Where the bias is made; by default where the mask is.
            dtype: Of the bias; by default the model's.

        Returns:
            Bias that is 0 or the least finite number, (B, 1, 1, T) or (B, 1, T, P + T).

        Raises:
            ValueError: If the mask has neither two nor three axes, or fewer columns than tokens.
        """
        mask = attention_mask if device is None else attention_mask.to(device)
        is_decoder = bool(self.hf_config.get("is_decoder", False))
        return masks.extended_attention_mask(mask, input_shape, dtype=dtype or self.dtype, is_decoder=is_decoder)

    def invert_attention_mask(self, encoder_attention_mask: Tensor) -> Tensor:
        """Turn the mask of an encoder's tokens, (B, T) or (B, S, T), into a bias, (B, 1, 1, T) or (B, 1, S, T).

        Raises:
            ValueError: If the mask has neither two nor three axes.
        """
        return masks.inverted_attention_mask(encoder_attention_mask, dtype=self.dtype)

    def to_bf16(self, params: Tree | None = None, mask: Mask | None = None) -> dict[str, Any]:
        """Return this model's tensors, or other named ones, cast to bfloat16; nothing is changed in place.

        Args:
            params: A state dict, perhaps nested; by default the model's.
            mask: What is cast: true or false by the same names, or a function of the key path; ``None`` for all.

        Raises:
            KeyError: If mask and tree have different names.
            ValueError: If the mask says yes and no to two names of one tensor.
        """
        return to_bf16(self.state_dict() if params is None else params, mask)

    def to_fp16(self, params: Tree | None = None, mask: Mask | None = None) -> dict[str, Any]:
        """Cast to float16, warning of values beyond 65,504; otherwise as :meth:`to_bf16`."""
        return to_fp16(self.state_dict() if params is None else params, mask)

    def to_fp32(self, params: Tree | None = None, mask: Mask | None = None) -> dict[str, Any]:
        """Cast to float32; otherwise as :meth:`to_bf16`."""
        return to_fp32(self.state_dict() if params is None else params, mask)
