"""Losses of sparse codes of dense embeddings: rebuild the embedding, and rank. They read an autoencoder's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_encoder.losses.base import EmbeddingLoss, check_not_negative, full_precision
from sparse_encoder.losses.checks import check_ranking_loss
from sparse_encoder.losses.multiple_negatives import SparseMultipleNegativesRankingLoss

DENSE, AUXILIARY = "sentence_embedding_backbone", "decoded_embedding_aux"
DECODED_K, DECODED_4K, WITHOUT_BIAS = "decoded_embedding_k", "decoded_embedding_4k", "decoded_embedding_k_pre_bias"
REBUILT = (DENSE, DECODED_K, DECODED_4K, AUXILIARY, WITHOUT_BIAS)
"""What the loss reads of an autoencoder's outputs; the auxiliary one may be None."""

SHARE_OF_4K = 1 / 8


class CSRReconstructionLoss(nn.Module):
    r"""Rebuild dense embeddings from the k and the 4 k largest latents, and what is left of them from dead ones.

    With x the dense embedding, its reconstructions, and e what the k largest leave over of x, before the bias,

    .. math:: \text{mse}(x, \hat x_k) + \tfrac{1}{8} \text{mse}(x, \hat x_{4k}) + \beta \,\text{nmse}(e, \hat x_{aux})

    where nmse is divided by the mse of the mean over the batch (by 1 if that is 0). Each term is the mean over columns,
    and they come back by name: ``reconstruction_loss_k``, ``reconstruction_loss_4k``, ``reconstruction_loss_aux``.

    Source: Wen et al., 2025, https://arxiv.org/abs/2503.01776. Unlike the peer's, it also works alone.

    Args:
        model: An encoder that ends in a :class:`sparse_encoder.modules.SparseAutoEncoder`.
        beta: Weight of the auxiliary term, not negative.

    Raises:
        TypeError: If ``beta`` is not a number.
        ValueError: If it is negative.
    """

    def __init__(self, model: nn.Module, beta: float = 1.0) -> None:
        super().__init__()
        check_not_negative("beta", beta)
        self.model = model
        self.beta = beta

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run the model on the columns of one batch and compare what it rebuilds; labels are not used."""
        return self.compute_loss_from_embeddings([self.model(column) for column in sentence_features])

    def compute_loss_from_embeddings(self, outputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:  # tensors, None
        """Compare what was rebuilt with the embeddings.

        Args:
            outputs: Of the model, for each column: :data:`REBUILT`, (B, D) each.

        Returns:
            The terms, scalars by name.

        Raises:
            ValueError: If there is no column, or the outputs are not those of an autoencoder.
        """
        if not outputs:
            raise ValueError("CSRReconstructionLoss needs at least 1 column, got 0")
        if missing := [name for name in REBUILT if name not in outputs[0]]:
            raise ValueError(
                f"CSRReconstructionLoss needs a model that ends in a SparseAutoEncoder; its outputs lack {missing}"
            )
        with torch.autocast(outputs[0][DENSE].device.type, enabled=False):
            terms = torch.stack([self._terms(column) for column in outputs]).mean(dim=0)  # (3,)
        k, of_4k, auxiliary = terms.unbind()
        return {
            "reconstruction_loss_k": k,
            "reconstruction_loss_4k": of_4k * SHARE_OF_4K,
            "reconstruction_loss_aux": auxiliary * self.beta,
        }

    def _terms(self, output: Mapping[str, Any]) -> Tensor:  # as above
        """Return the three terms of one column, not weighted, (3,)."""
        rebuilt = {name: None if output[name] is None else full_precision(output[name]) for name in REBUILT}
        dense, decoded, decoded_4k = rebuilt[DENSE], rebuilt[DECODED_K], rebuilt[DECODED_4K]
        without_bias, auxiliary = rebuilt[WITHOUT_BIAS], rebuilt[AUXILIARY]
        assert dense is not None and decoded is not None and decoded_4k is not None and without_bias is not None
        k = functional.mse_loss(decoded, dense)
        left = torch.zeros_like(k) if auxiliary is None else relative_error(auxiliary, dense - without_bias.detach())
        return torch.stack([k, functional.mse_loss(decoded_4k, dense), left])

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"beta": self.beta}


class CSRLoss(nn.Module):
    r"""Train a sparse code of dense embeddings to rebuild them and to rank.

    .. math:: \text{reconstruction} + \gamma \cdot \text{base}

    The terms come back by name: those of :class:`CSRReconstructionLoss` and ``base_loss``, or the base loss's own.
    Columns and labels: as the base loss needs them.

    Source: Wen et al., 2025, https://arxiv.org/abs/2503.01776.

    Args:
        model: An encoder that ends in a :class:`sparse_encoder.modules.SparseAutoEncoder`.
        loss: The ranking loss; ``None`` is :class:`SparseMultipleNegativesRankingLoss`.
        beta: Weight of the auxiliary reconstruction, not negative.
        gamma: Weight of the ranking loss, not negative.

    Raises:
        TypeError: If a weight is not a number.
        ValueError: If a weight is negative, or ``loss`` does not compute from embeddings.
    """

    def __init__(
        self, model: nn.Module, loss: EmbeddingLoss | None = None, beta: float = 0.1, gamma: float = 1.0
    ) -> None:
        super().__init__()
        check_not_negative("gamma", gamma)
        self.model = model
        self.reconstruction_loss = CSRReconstructionLoss(model, beta)
        self.loss = SparseMultipleNegativesRankingLoss(model) if loss is None else loss
        check_ranking_loss(self.loss)
        self.beta = beta
        self.gamma = gamma

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run the model once on each column of one batch; returns the weighted terms, scalars by name."""
        columns = list(sentence_features)
        if isinstance(self.loss, EmbeddingLoss):
            self.loss.look_at(columns)
        outputs = [self.model(column) for column in columns]
        losses = self.reconstruction_loss.compute_loss_from_embeddings(outputs)
        embeddings = [full_precision(output["sentence_embedding"]) for output in outputs]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            base = self.loss.compute_loss_from_embeddings(embeddings, labels)
        terms = base if isinstance(base, dict) else {"base_loss": base}
        return losses | {name: term * self.gamma for name, term in terms.items()}

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return {"beta": self.beta, "gamma": self.gamma, "loss": type(self.loss).__name__}

    @property
    def citation(self) -> str:
        """BibTeX entry of the paper."""
        return """
@misc{wen2025matryoshka,
    title={Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation},
    author={Tiansheng Wen and Yifei Wang and Zequn Zeng and Zhong Peng and Yudi Su and Xinyang Liu and Bo Chen
        and Hongwei Liu and Stefanie Jegelka and Chenyu You},
    year={2025},
    eprint={2503.01776},
    archivePrefix={arXiv},
    primaryClass={cs.LG},
    url={https://arxiv.org/abs/2503.01776},
}
"""


def relative_error(rebuilt: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error in units of what the mean over the batch would make.

    Args:
        rebuilt: (B, D).
        wanted: (B, D).

    Returns:
        Scalar tensor; the plain squared error if all rows are the same.
    """
    spread = functional.mse_loss(wanted.mean(dim=0, keepdim=True).expand_as(wanted), wanted)
    is_constant = (spread == 0) | (wanted == wanted[:1]).all()
    return functional.mse_loss(rebuilt, wanted) / torch.where(is_constant, torch.ones_like(spread), spread)
