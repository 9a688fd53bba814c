"""The transformer: token ids in, hidden states out. Knows nothing of text, pooling, training and files.

Axes: B texts of a batch, T tokens, D hidden size, E embedding size, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.attention import Attention, AttentionContext, attention_bias
from sparse_encoder.backbone.checkpointing import Checkpointing
from sparse_encoder.backbone.config import LayerType, TransformerConfig
from sparse_encoder.backbone.convolution import Convolution
from sparse_encoder.backbone.disentangled import PositionScores, RelativePositions
from sparse_encoder.backbone.embeddings import Embeddings
from sparse_encoder.backbone.feed_forward import FeedForward
from sparse_encoder.backbone.head_masks import check_num_heads, head_mask_by_layer
from sparse_encoder.backbone.layer import Layer
from sparse_encoder.backbone.pruning import apply_pruning
from sparse_encoder.backbone.relative_bias import RelativeBias
from sparse_encoder.backbone.rope import rotation


class Transformer(nn.Module):
    """Encode batches of token ids.

    Args:
        config: Which transformer; families differ by nothing else.
        attn_implementation: ``"sdpa"`` for torch's fused kernels, ``"eager"`` for the plain formula.
    """

    def __init__(self, config: TransformerConfig, *, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.checkpointing: Checkpointing | None = None
        """Which layers are computed again in the backward pass instead of keeping their activations; in training."""
        self.embeddings = build_embeddings(config)
        self.layers = nn.ModuleList(
            build_layer(config, layer, attn_implementation) for layer in range(config.num_layers)
        )
        apply_pruning(self.layers, config.pruned_heads)
        self.final_norm = build_norm(config, config.hidden_size) if config.pre_norm else None
        self.relative_bias = RelativeBias(config.relative_bias, config.num_heads) if config.relative_bias else None
        self.relative_positions = build_relative_positions(config)
        self.convolution = build_convolution(config)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether any layer is computed again in the backward pass."""
        return self.checkpointing is not None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
    ) -> Tensor:
        """Encode a batch.

        Args:
            input_ids: Token ids, (B, T).
            attention_mask: 1 for a token, 0 for padding, (B, T).
            token_type_ids: Token types, (B, T); None stands for zeros.
            position_ids: Places of the tokens, (T,) or (B, T); None counts them as the family does.
            head_mask: What attention heads are multiplied with, (H,), or (L, H) for each of L steps through a layer;
                heads keep their first numbers when others are pruned.

        Returns:
            Hidden states, (B, T, D). Those of padding are finite and mean nothing.

        Raises:
            ValueError: If shapes do not fit, a text is too long for the position table, or token types are given to
                a family without.
        """
        self._check_call(input_ids, attention_mask, token_type_ids)
        hidden: Tensor = self.embeddings(input_ids, token_type_ids, position_ids)
        embedded = hidden
        contexts = self._contexts(input_ids, attention_mask, position_ids, hidden.dtype)
        head_masks = self._head_masks(head_mask, hidden.dtype)
        recompute = self.checkpointing if self.training and torch.is_grad_enabled() else None
        for step, index in enumerate(self.config.steps):
            layer = self.layers[index]
            context = contexts[self.config.layer_type(index)]._replace(head_mask=head_masks[step])
            hidden = layer(hidden, context) if recompute is None else recompute.run(step, layer, hidden, context)
            if step == 0 and self.convolution is not None:
                hidden = self.convolution(embedded, hidden, attention_mask)
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def _head_masks(self, mask: Tensor | None, dtype: torch.dtype) -> Tensor | list[None]:
        """Split a mask of heads by step."""
        by_step = head_mask_by_layer(mask, len(self.config.steps), dtype)
        check_num_heads(by_step, self.config.num_heads)
        return by_step

    def _check_call(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> None:
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise ValueError(
                "input_ids and attention_mask must be of one shape (texts, tokens), "
                f"got {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
            )
        if token_type_ids is not None and not self.config.num_token_types:
            raise ValueError("this model has no token types, but token_type_ids were given; leave them out")
        if self.embeddings.position is not None and input_ids.shape[1] > self.config.max_tokens:
            raise ValueError(
                f"texts may have at most {self.config.max_tokens} tokens, got {input_ids.shape[1]}; truncate them"
            )

    def _contexts(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None, dtype: torch.dtype
    ) -> dict[LayerType, AttentionContext]:
        """Prepare what the layers of each type share."""
        config = self.config
        contexts: dict[LayerType, AttentionContext] = {}
        relative = None if self.relative_positions is None else self.relative_positions(input_ids.shape[1])
        for layer_type in {config.layer_type(layer) for layer in config.steps}:
            is_local = layer_type == "local"
            bias = attention_bias(attention_mask, dtype, config.local_window if is_local else None)
            if self.relative_bias is not None:
                bias = self.relative_bias(bias)
            angles = None
            if config.position_kind == "rotary":
                places = self.embeddings.positions(input_ids) if position_ids is None else position_ids
                theta = config.local_rotary_theta if is_local else config.rotary_theta
                angles = rotation(places, config.head_size, theta, stretch=config.rotary_stretch)
            contexts[layer_type] = AttentionContext(bias, angles, relative=relative)
        return contexts


def build_norm(config: TransformerConfig, size: int) -> nn.LayerNorm:
    """Build a norm over the last axis, as wide as asked."""
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.norm_bias)


def build_embeddings(config: TransformerConfig) -> Embeddings:
    """Build what turns token ids into hidden states."""
    size = config.word_size
    counted = config.position_kind == "after_padding"
    position = None
    if config.position_kind in ("absolute", "after_padding"):
        rows = config.max_positions + config.position_offset
        position = nn.Embedding(rows, size, padding_idx=config.pad_token_id if counted else None)
    return Embeddings(
        nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id),
        position=position,
        token_type=nn.Embedding(config.num_token_types, size) if config.num_token_types else None,
        norm=build_norm(config, config.hidden_size if config.norm_after_projection else size),
        norm_last=config.norm_after_projection,
        dropout=config.embedding_dropout,
        projection=nn.Linear(size, config.hidden_size, bias=config.projection_bias)
        if config.project_embeddings or size != config.hidden_size
        else None,
        padding_id=config.pad_token_id if counted else None,
    )


def build_relative_positions(config: TransformerConfig) -> RelativePositions | None:
    """Build the table of places that attention scores, for a transformer that does."""
    if config.disentangled is None:
        return None
    norm = build_norm(config, config.hidden_size) if config.disentangled.norm else None
    return RelativePositions(config.disentangled, config.hidden_size, norm)


def build_convolution(config: TransformerConfig) -> Convolution | None:
    """Build the convolution beside the first layer, for a transformer that has one."""
    if config.convolution is None:
        return None
    return Convolution(config.convolution, config.hidden_size, build_norm(config, config.hidden_size))


def build_layer(config: TransformerConfig, layer: int, attn_implementation: str) -> Layer:
    """Build one layer."""
    attention = Attention(
        config.hidden_size,
        config.num_heads,
        bias=config.attention_bias,
        fused_qkv=config.fused_qkv,
        dropout=config.attention_dropout,
        implementation=attn_implementation,
        positions=PositionScores(config.disentangled, config.hidden_size) if config.disentangled else None,
    )
    feed_forward = FeedForward(
        config.hidden_size,
        config.intermediate_size,
        activation=config.activation,
        gated=config.gated,
        gate_layout=config.gate_layout,
        bias=config.feed_forward_bias,
        down_bias=config.down_bias,
        dropout=config.feed_forward_dropout,
    )
    return Layer(
        attention,
        feed_forward,
        attention_norm=build_norm(config, config.hidden_size) if layer or config.first_attention_norm else None,
        feed_forward_norm=build_norm(config, config.hidden_size),
        pre_norm=config.pre_norm,
        attention_dropout=config.attention_output_dropout,
        feed_forward_dropout=config.feed_forward_output_dropout,
    )
