"""The transformer: token ids in, hidden states out. Knows nothing of text, pooling, training and files.

Axes: B texts of a batch, T tokens, P tokens of the past, S tokens of a memory, D hidden size, E embedding size,
H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.attention import (
    Attention,
    AttentionContext,
    HeadOptions,
    MemoryContext,
    attention_bias,
)
from sparse_encoder.backbone.cache import Decoding, EncoderDecoderCache
from sparse_encoder.backbone.checkpointing import Checkpointing
from sparse_encoder.backbone.config import LayerType, TransformerConfig
from sparse_encoder.backbone.convolution import Convolution
from sparse_encoder.backbone.disentangled import PositionScores, RelativePositions
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.embeddings import EmbeddingOptions, Embeddings
from sparse_encoder.backbone.feed_forward import FeedForward
from sparse_encoder.backbone.few_rows import with_steps
from sparse_encoder.backbone.head_masks import check_num_heads, head_mask_by_layer
from sparse_encoder.backbone.layer import CrossAttention, Layer
from sparse_encoder.backbone.normalization import RMSNorm
from sparse_encoder.backbone.pruning import apply_pruning
from sparse_encoder.backbone.record import Record
from sparse_encoder.backbone.relative_bias import RelativeBias
from sparse_encoder.backbone.rope import rotation
from sparse_encoder.backbone.tracing import is_traced


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
        self.final_dropout = Dropout(config.final_dropout) if config.final_dropout else None
        self.relative_bias = RelativeBias(config.relative_bias, config.num_heads) if config.relative_bias else None
        self.relative_positions = build_relative_positions(config)
        self.convolution = build_convolution(config)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether any layer is computed again in the backward pass."""
        return self.checkpointing is not None

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        decoding: Decoding | None = None,
        record: Record | None = None,
    ) -> Tensor:
        """Encode a batch, or the next tokens of one.

        Args:
            input_ids: Token ids, (B, T); None with ``inputs_embeds``.
            attention_mask: 1 for a token, 0 for padding, (B, T); with a cache (B, P + T), of its tokens too.
            token_type_ids: Token types, (B, T); None stands for zeros.
            position_ids: Places of the tokens, (T,) or (B, T); None counts them as the family does, from P on.
            head_mask: What attention heads are multiplied with, (H,), or (L, H) for each of L steps through a layer;
                heads keep their first numbers when others are pruned.
            inputs_embeds: Embeddings in place of token ids, (B, T, E); they are not scaled.
            decoding: The cache, and the memory of cross-attention.
            record: Takes hidden states and attention probabilities.

        Returns:
            Hidden states, (B, T, D). Those of padding are finite and mean nothing.

        Raises:
            ValueError: If shapes do not fit, a text is too long for the position table, token types are given to
                a family without, or what ``decoding`` holds does not go with the model.
        """
        decoding = Decoding() if decoding is None else decoding
        tokens = self._check_call(input_ids, attention_mask, token_type_ids=token_type_ids, inputs_embeds=inputs_embeds)
        past = self._past(tokens, attention_mask, decoding=decoding, position_ids=position_ids)
        hidden: Tensor = self.embeddings(
            input_ids, token_type_ids, position_ids, inputs_embeds=inputs_embeds, past=past
        )
        embedded = hidden
        contexts = self._contexts(hidden, attention_mask, position_ids=position_ids, past=past, decoding=decoding)
        cross = self._cross_context(hidden, decoding)
        head_masks = self._head_masks(head_mask, hidden.dtype)
        recompute = self.checkpointing if self.training and torch.is_grad_enabled() else None
        if recompute is not None and decoding.cache is not None:
            raise ValueError("a cache cannot go with gradient checkpointing in training; pass use_cache=False")
        record = Record() if record is None else record
        keep = record.attentions.append if record.keeps_attentions else None
        keep_cross = record.cross_attentions.append if record.keeps_attentions else None
        for step, index in enumerate(self.config.steps):
            record.keep_hidden(hidden)
            if self._leaves_out(decoding):
                continue
            layer = self.layers[index]
            context = contexts[self.config.layer_type(index)]._replace(
                head_mask=head_masks[step],
                step=step,
                keep=keep,
                cross=None if cross is None else cross._replace(step=step, keep=keep_cross),
            )
            hidden = layer(hidden, context) if recompute is None else recompute.run(step, layer, hidden, context)
            if step == 0 and self.convolution is not None:
                hidden = self.convolution(embedded, hidden, attention_mask)
        hidden = hidden if self.final_norm is None else self.final_norm(hidden)
        hidden = hidden if self.final_dropout is None else self.final_dropout(hidden)
        record.keep_hidden(hidden)
        return hidden

    def _leaves_out(self, decoding: Decoding) -> bool:
        """Draw whether a layer is left out; source: Fan et al., 2020, https://arxiv.org/abs/1909.11556."""
        share = self.config.layer_dropout
        return share > 0 and self.training and decoding.cache is None and bool(torch.rand(()) < share)

    def _head_masks(self, mask: Tensor | None, dtype: torch.dtype) -> Tensor | list[None]:
        """Split a mask of heads by step."""
        by_step = head_mask_by_layer(mask, len(self.config.steps), dtype)
        check_num_heads(by_step, self.config.num_heads)
        return by_step

    def _check_call(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        *,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Return token ids or embeddings, whichever are given."""
        if inputs_embeds is not None:
            if input_ids is not None:
                raise ValueError("give input_ids or inputs_embeds, not both")
            if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != self.config.word_size:
                wanted = f"(texts, tokens, {self.config.word_size})"
                raise ValueError(f"inputs_embeds must be of shape {wanted}, got {tuple(inputs_embeds.shape)}")
        elif input_ids is None:
            raise ValueError("give input_ids or inputs_embeds, got neither")
        elif input_ids.ndim != 2 or attention_mask.ndim != 2 or input_ids.shape[0] != attention_mask.shape[0]:
            raise ValueError(
                "input_ids and attention_mask must be of one shape (texts, tokens), "
                f"got {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
            )
        if token_type_ids is not None and not self.config.num_token_types:
            raise ValueError("this model has no token types, but token_type_ids were given; leave them out")
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        assert tokens is not None  # one of both is there
        return tokens

    def _past(self, tokens: Tensor, mask: Tensor, *, decoding: Decoding, position_ids: Tensor | None) -> int:
        """Return how many tokens came before, P, by what the mask has beyond the new ones."""
        past = mask.shape[1] - tokens.shape[1]
        if decoding.cache is None:
            if past != 0:
                shapes = f"got {tuple(tokens.shape[:2])} and {tuple(mask.shape)}"
                raise ValueError(f"input_ids and attention_mask must be of one shape (texts, tokens), {shapes}")
            self._check_length(tokens.shape[1])
            return 0
        if not self.config.causal:
            raise ValueError("a cache is for causal models; this one looks at later tokens too: pass use_cache=False")
        if not is_traced():
            kept = decoding.cache.get_seq_length()
            if past != kept:
                raise ValueError(
                    f"attention_mask must have a column for each of {kept} tokens in the cache and of "
                    f"{tokens.shape[1]} new ones, got {mask.shape[1]}"
                )
            self._check_length(mask.shape[1] if position_ids is None else tokens.shape[1])
        return past

    def _check_length(self, num_tokens: int) -> None:
        """Refuse more tokens than the position table has rows."""
        if self.embeddings.position is not None and num_tokens > self.config.max_tokens:
            raise ValueError(f"texts may have at most {self.config.max_tokens} tokens, got {num_tokens}; truncate them")

    def _contexts(
        self, hidden: Tensor, mask: Tensor, *, position_ids: Tensor | None, past: int, decoding: Decoding
    ) -> dict[LayerType, AttentionContext]:
        """Prepare what the layers of each type share."""
        config, num_tokens = self.config, hidden.shape[1]
        contexts: dict[LayerType, AttentionContext] = {}
        relative = None if self.relative_positions is None else self.relative_positions(num_tokens)
        columns = None if decoding.cache is None else decoding.cache.num_columns(mask.shape[1])
        for layer_type in {config.layer_type(layer) for layer in config.steps}:
            is_local = layer_type == "local"
            bias = attention_bias(
                mask,
                hidden.dtype,
                config.local_window if is_local else None,
                num_queries=num_tokens,
                num_columns=columns,
                causal=config.causal,
            )
            if self.relative_bias is not None:
                bias = self.relative_bias(bias, num_tokens, past)
            angles = None
            if config.position_kind == "rotary":
                places = position_ids
                if places is None:
                    places = torch.arange(past, past + num_tokens, device=hidden.device)
                theta = config.local_rotary_theta if is_local else config.rotary_theta
                stretch, scaling = config.rotary_stretch, config.rotary_scaling
                angles = rotation(places, config.head_size, theta, stretch=stretch, scaling=scaling)
            contexts[layer_type] = AttentionContext(bias, angles, relative=relative, cache=decoding.cache)
        return contexts

    def _cross_context(self, hidden: Tensor, decoding: Decoding) -> MemoryContext | None:
        """Prepare what cross-attention needs; None for a model without it."""
        memory, mask = decoding.memory, decoding.memory_mask
        cache = decoding.cache if isinstance(decoding.cache, EncoderDecoderCache) else None
        if not self.config.cross_attention:
            if memory is not None or cache is not None:
                raise ValueError("this model has no cross-attention: it takes neither a memory nor a cache with one")
            return None
        kept = None if cache is None else cache.memory(0)
        if memory is None and kept is None:
            raise ValueError(
                "cross-attention needs the hidden states of an encoder, and neither they nor a cache with "
                "what they gave are there"
            )
        if decoding.cache is not None and cache is None:
            raise ValueError(f"cross-attention needs an EncoderDecoderCache, got a {type(decoding.cache).__name__}")
        if mask is None:
            if kept is not None:
                num_tokens = kept.keys.shape[2]
            else:
                assert memory is not None
                num_tokens = memory.shape[1]
            mask = torch.ones(hidden.shape[0], num_tokens, dtype=torch.bool, device=hidden.device)
        return MemoryContext(attention_bias(mask, hidden.dtype), memory, cache)


def build_norm(config: TransformerConfig, size: int) -> nn.LayerNorm | RMSNorm:
    """Build a norm over the last axis, as wide as asked."""
    if config.norm_kind == "rms":
        return RMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.norm_bias)


def build_embeddings(config: TransformerConfig) -> Embeddings:
    """Build what turns token ids into hidden states."""
    size = config.word_size
    counted = config.position_kind == "after_padding"
    position = None
    if config.position_kind in ("absolute", "after_padding"):
        rows = config.max_positions + config.position_offset
        position = nn.Embedding(rows, size, padding_idx=config.pad_token_id if counted else None)
    norm_size = config.hidden_size if config.norm_after_projection else size
    return Embeddings(
        build_words(config) if config.own_words else None,
        position=position,
        token_type=nn.Embedding(config.num_token_types, size) if config.num_token_types else None,
        norm=build_norm(config, norm_size) if config.embedding_norm else None,
        dropout=config.embedding_dropout,
        projection=nn.Linear(size, config.hidden_size, bias=config.projection_bias)
        if config.project_embeddings or size != config.hidden_size
        else None,
        padding_id=config.pad_token_id if counted else None,
        options=EmbeddingOptions(
            norm_last=config.norm_after_projection,
            scale=config.embedding_scale,
            first_position=config.first_position,
        ),
    )


def build_words(config: TransformerConfig) -> nn.Embedding:
    """Build the table of words."""
    return nn.Embedding(
        config.vocab_size, config.word_size, padding_idx=config.pad_token_id if config.pad_row_is_zero else None
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


def build_attention(config: TransformerConfig, attn_implementation: str, *, crosses: bool = False) -> Attention:
    """Build the attention of a layer, or that to a memory, which knows no places."""
    positions = None if crosses or config.disentangled is None else config.disentangled
    return Attention(
        config.hidden_size,
        config.num_heads,
        bias=config.attention_bias,
        fused_qkv=config.fused_qkv and not crosses,
        dropout=config.attention_dropout,
        implementation=attn_implementation,
        positions=PositionScores(positions, config.hidden_size) if positions else None,
        heads=HeadOptions(
            num_kv_heads=config.num_kv_heads,
            head_size=config.head_width,
            scale=config.attention_scale,
            norm_eps=config.norm_eps if config.query_key_norm else None,
            output_bias=config.attention_output_bias,
        ),
    )


def build_layer(config: TransformerConfig, layer: int, attn_implementation: str) -> Layer:
    """Build one layer."""
    cross = None
    if config.cross_attention:
        attention = build_attention(config, attn_implementation, crosses=True)
        cross = CrossAttention(attention, build_norm(config, config.hidden_size))
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
    built = Layer(
        build_attention(config, attn_implementation),
        feed_forward,
        attention_norm=build_norm(config, config.hidden_size) if layer or config.first_attention_norm else None,
        feed_forward_norm=build_norm(config, config.hidden_size),
        pre_norm=config.pre_norm,
        attention_dropout=config.attention_output_dropout,
        feed_forward_dropout=config.feed_forward_output_dropout,
        cross=cross,
    )
    built.guards_float16 = config.guards_float16
    if config.causal:
        with_steps(built)
    return built
