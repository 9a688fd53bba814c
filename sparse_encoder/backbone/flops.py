"""How many floating-point operations a step takes, without running it. Knows nothing of devices and speed.

Axes: B texts of a batch, T tokens, N parameters, H heads, K head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from sparse_encoder.backbone.adapters.layer import LowRank
from sparse_encoder.backbone.counting import num_parameters
from sparse_encoder.backbone.heads import VocabularyHead

if TYPE_CHECKING:
    from sparse_encoder.backbone.attention import Attention
    from sparse_encoder.backbone.layer import Layer
    from sparse_encoder.backbone.transformer import Transformer

MULTIPLY_ADD = 2
"""Operations of one product that is added to a sum."""
FORWARD_AND_BACKWARD = 3
"""A backward pass takes two products for each of the forward pass: for what came in, and for the weight."""


def operations_per_token(model: nn.Module, *, exclude_embeddings: bool = True, backward: bool = True) -> int:
    r"""Estimate the operations of one token.

    .. math:: 6 N, \; \text{or } 2 N \text{ without the backward pass}

    Source: Kaplan et al., 2020, https://arxiv.org/abs/2001.08361.

    Args:
        model: Any module, trained as a whole.
        exclude_embeddings: Leave out tables, which are looked up and not multiplied.
        backward: Whether the backward pass counts.
    """
    passes = FORWARD_AND_BACKWARD if backward else 1
    return MULTIPLY_ADD * passes * num_parameters(model, exclude_embeddings=exclude_embeddings)


def matrix_operations(model: nn.Module, backbone: Transformer, batches: Iterable[Tensor], *, backward: bool) -> int:
    """Count the operations of every matrix product of a batch, those of attention and of active adapters included.

    Products that a backward pass computes a second time (fused attention, gradient checkpointing) count once, and all
    weights as trained, also those below an adapter.

    Args:
        model: A backbone, perhaps with a head on every token.
        backbone: The backbone in it.
        batches: Token ids, (B, T) each.
        backward: Whether the backward pass counts.

    Raises:
        ValueError: If token ids are not of two axes.
    """
    total = 0
    for input_ids in batches:
        if input_ids.ndim != 2:
            raise ValueError(f"token ids must be of shape (texts, tokens), got {tuple(input_ids.shape)}")
        num_texts, num_tokens = input_ids.shape
        total += num_texts * (num_tokens * _products_per_token(model, backbone))
        total += num_texts * _attention_products(backbone, num_tokens)
        total += _place_products(backbone, num_texts, num_tokens)
    return MULTIPLY_ADD * total * (FORWARD_AND_BACKWARD if backward else 1)


def pair_operations(
    encoder: Transformer, decoder: Transformer, head: nn.Module, input_ids: Tensor, decoder_input_ids: Tensor
) -> int:
    """Count the operations of every matrix product of an encoder, of a decoder that looks at it, and of its head.

    Args:
        encoder: One stack.
        decoder: The other one.
        head: On every token of the decoder.
        input_ids: Of the encoder, (B, S).
        decoder_input_ids: Of the decoder, (B, T).

    Returns:
        Operations of the forward pass.

    Raises:
        ValueError: If token ids are not of two axes.
    """
    total = matrix_operations(encoder, encoder, [input_ids], backward=False)
    total += matrix_operations(decoder, decoder, [decoder_input_ids], backward=False)
    (num_texts, num_keys), num_tokens = input_ids.shape, decoder_input_ids.shape[1]
    products = num_texts * num_tokens * _head_weights(head)
    for step in decoder.config.steps:
        cross = cast("Layer", decoder.layers[step]).cross_attention
        assert cross is not None  # a decoder of a pair has it
        of_memory = _linear_weights(cross.k) + _linear_weights(cross.v)  # counted for each token of the decoder
        products += num_texts * (num_keys - num_tokens) * of_memory
        products += num_texts * 2 * num_tokens * num_keys * cross.output.in_features
    return total + MULTIPLY_ADD * products


def _products_per_token(model: nn.Module, backbone: Transformer) -> int:
    """Count what the weights of a model multiply: each layer as often as it runs, each decoder once."""
    layers = [cast("Layer", backbone.layers[step]) for step in backbone.config.steps]
    in_layers = [_linear_weights(layer) - _linear_weights(layer.attention.positions) for layer in layers]
    once = _linear_weights(model) - _linear_weights(backbone.layers)
    return sum(in_layers) + once + _head_weights(model)


def _head_weights(model: nn.Module) -> int:
    """Count what the tables of a model's heads multiply."""
    return sum(part.weight.numel() + _added(part) for part in model.modules() if isinstance(part, VocabularyHead))


def _linear_weights(module: nn.Module | None) -> int:
    parts = () if module is None else module.modules()
    return sum(part.weight.numel() + _added(part) for part in parts if isinstance(part, (nn.Linear, nn.Conv1d)))


def _added(module: nn.Module | None) -> int:
    """Count what the active adapters of a layer multiply beside its weight."""
    if not isinstance(module, LowRank) or module.is_merged:
        return 0
    return sum(module.lora_A[name].numel() + module.lora_B[name].numel() for name in module.active)


def _attention_products(backbone: Transformer, num_tokens: int) -> int:
    """Count the products of scores and of mixed values in one text: two of (T, K) by (K, T) for each head and layer."""
    layers = [cast("Layer", backbone.layers[step]) for step in backbone.config.steps]
    return sum(2 * num_tokens * num_tokens * layer.attention.output.in_features for layer in layers)


def _place_products(backbone: Transformer, num_texts: int, num_tokens: int) -> int:
    """Count what scoring contents against places takes: projections of R places, and T by R scores for each text."""
    if backbone.relative_positions is None:
        return 0
    num_rows = backbone.relative_positions.num_rows(num_tokens)
    terms = backbone.relative_positions.config.num_terms - 1
    layers = [cast("Layer", backbone.layers[step]) for step in backbone.config.steps]
    widths = sum(layer.attention.output.in_features for layer in layers)
    adapters = num_rows * sum(_added(each) for layer in layers for each in _place_projections(layer.attention))
    return terms * num_rows * widths * (backbone.config.hidden_size + num_texts * num_tokens) + adapters


def _place_projections(attention: Attention) -> list[nn.Module | None]:
    """Return what turns places into keys and queries: layers of their own, or those of the tokens."""
    positions = attention.positions
    if positions is None:
        return []
    own = not positions.config.shared_projections
    keys, queries = (positions.k, positions.q) if own else (attention.k, attention.q)
    return [
        part
        for part, is_there in (
            (keys, positions.config.content_to_position),
            (queries, positions.config.position_to_content),
        )
        if is_there
    ]
