"""SpladeLoss for batches whose activations do not fit into memory; knows how the model runs, not what is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from sparse_encoder.losses.base import EmbeddingLoss, Regularizer, embed
from sparse_encoder.losses.mini_batches import MiniBatchSize, mini_batches
from sparse_encoder.losses.splade import SpladeLoss


class CachedSpladeLoss(SpladeLoss):
    """Compute a :class:`SpladeLoss` with the activations of one mini-batch at a time.

    The model runs on mini-batches and keeps their embeddings only. The loss is that of the whole batch; when its
    gradient has come to the embeddings, each mini-batch is run again, with the same draws of dropout, and takes its
    part of the gradient on to the parameters. So values and gradients are those of SpladeLoss, at the price of a second
    forward. What the loss itself keeps, such as the scores of all pairs, is not cut.

    Unlike in the peer, each term carries its own gradient and no term is read from the device.

    Source: Gao et al., 2021, https://arxiv.org/abs/2101.06983.

    Args:
        model: As in :class:`SpladeLoss`, and so are the other arguments up to ``use_document_regularizer_only``.
        loss: As above.
        document_regularizer_weight: As above.
        query_regularizer_weight: As above.
        document_regularizer: As above.
        query_regularizer: As above.
        document_regularizer_threshold: As above.
        query_regularizer_threshold: As above.
        use_document_regularizer_only: As above.
        mini_batch_size: Most texts of a mini-batch.
        mini_batch_num_tokens: Most tokens of a mini-batch, padding left out, in place of a number of texts.
        show_progress_bar: Show how many mini-batches of a column have been embedded.
        target_document_dims: As in :class:`SpladeLoss`.
        target_query_dims: As in :class:`SpladeLoss`.

    Raises:
        TypeError: If the size of mini-batches is not an integer; and as in :class:`SpladeLoss`.
        ValueError: If the size of mini-batches is below 1; and as in :class:`SpladeLoss`.
    """

    def __init__(  # house: peer signature
        self,
        model: nn.Module,
        loss: EmbeddingLoss,
        document_regularizer_weight: float | None = None,
        query_regularizer_weight: float | None = None,
        document_regularizer: Regularizer | None = None,
        query_regularizer: Regularizer | None = None,
        document_regularizer_threshold: float | None = None,
        query_regularizer_threshold: float | None = None,
        use_document_regularizer_only: bool = False,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        *,
        target_document_dims: float | None = None,
        target_query_dims: float | None = None,
    ) -> None:
        super().__init__(
            model,
            loss,
            document_regularizer_weight,
            query_regularizer_weight,
            document_regularizer,
            query_regularizer,
            document_regularizer_threshold,
            query_regularizer_threshold,
            use_document_regularizer_only,
            target_document_dims=target_document_dims,
            target_query_dims=target_query_dims,
        )
        self.mini_batches = MiniBatchSize(texts=mini_batch_size, tokens=mini_batch_num_tokens)
        self.show_progress_bar = show_progress_bar

    def embed_column(self, column: dict[str, Tensor]) -> Tensor:
        """Embed one column mini-batch by mini-batch, keeping no activations; returns term weights, (B, V)."""
        parts = mini_batches(column, self.mini_batches)
        shown = tqdm(parts, desc="Embed mini-batches", disable=not self.show_progress_bar)
        return torch.cat([self._embed_again_later(part) for part in shown])

    def _embed_again_later(self, features: dict[str, Any]) -> Tensor:  # tensors, and what is said of all texts
        """Embed a mini-batch, now and once more when its gradient comes; returns term weights, (texts, V)."""
        if not torch.is_grad_enabled():
            return embed(self.model, dict(features))
        names = [name for name, value in features.items() if isinstance(value, Tensor)]

        def run(*tensors: Tensor) -> Tensor:
            return embed(self.model, {**features, **dict(zip(names, tensors, strict=True))})

        # Tensors as arguments tell whose random state has to be kept: that of their device.
        embeddings: Tensor = checkpoint(run, *(features[name] for name in names), use_reentrant=False)
        return embeddings

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        sizes = {"mini_batch_size": self.mini_batches.texts, "mini_batch_num_tokens": self.mini_batches.tokens}
        return super().get_config_dict() | sizes

    @property
    def citation(self) -> str:
        """BibTeX entries of the papers."""
        return (
            """
@misc{gao2021scaling,
    title={Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup},
    author={Luyu Gao and Yunyi Zhang and Jiawei Han and Jamie Callan},
    year={2021},
    eprint={2101.06983},
    archivePrefix={arXiv},
    primaryClass={cs.LG},
    url={https://arxiv.org/abs/2101.06983},
}
""".rstrip()
            + super().citation
        )
