"""Other encoders that are asked about the texts of a batch; they are not trained, and not saved with the loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.losses.base import full_precision
from sparse_encoder.losses.checks import check_positive
from sparse_encoder.losses.scores import Similarity
from sparse_encoder.similarity import as_matrix, dot_score

Encoder = Any  # with .encode(texts), or a module from features to embeddings
Columns = list[dict[str, Tensor]]


class Guide:
    """Ask another encoder for embeddings of the texts of a batch.

    An encoder with ``encode`` is given texts, which the tokenizer of the trained model makes of its token ids: without
    what was cut off, and as that tokenizer writes them. It may have ``encode_query`` and ``encode_document``, which
    then are for the first column and for the others. Any other module is given the features, and so must share the
    tokenizer.

    Args:
        encoder: Gives embeddings of any width: rows that :mod:`sparse_encoder.similarity` takes.
        model: The trained model, whose tokenizer turns ids into texts.

    Raises:
        TypeError: If the encoder has no ``encode`` and is no module.
        ValueError: If texts are needed and the model has no tokenizer.
    """

    def __init__(self, encoder: Encoder, model: nn.Module) -> None:
        self.reads_texts = callable(getattr(encoder, "encode", None))
        if not self.reads_texts and not isinstance(encoder, nn.Module):
            raise TypeError(f"a guide must have encode() or be a module, got {type(encoder).__name__}")
        tokenizer = getattr(model, "tokenizer", None)
        if self.reads_texts and tokenizer is None:
            raise ValueError("a guide that encodes texts needs a model with a tokenizer, which decodes them")
        self.encoder = encoder
        self.tokenizer: Any = tokenizer  # of any library
        if isinstance(encoder, nn.Module):
            encoder.eval()

    @torch.no_grad()
    def embed(self, columns: Columns) -> list[Tensor]:
        """Return the embeddings of each column, (B, W) each, on the device of the features, without gradients."""
        return [self._embed_column(column, position) for position, column in enumerate(columns)]

    def _embed_column(self, column: dict[str, Any], position: int) -> Tensor:
        device = next(value.device for value in column.values() if isinstance(value, Tensor))
        if not self.reads_texts:
            self.encoder.to(device)
            embeddings: Tensor = self.encoder(dict(column))["sentence_embedding"]
            return full_precision(embeddings)
        name = "encode_query" if position == 0 else "encode_document"
        encode = getattr(self.encoder, name, None) or self.encoder.encode
        rows = as_matrix(encode(self._texts(column), show_progress_bar=False))
        dense = rows if isinstance(rows, Tensor) else rows.to_dense()
        return full_precision(dense.to(device))

    def _texts(self, column: dict[str, Any]) -> list[str]:
        """Decode the texts of a column, without padding and special tokens."""
        ids = column["input_ids"].tolist()
        mask = column["attention_mask"].tolist() if "attention_mask" in column else [[1] * len(row) for row in ids]
        tokens = [list(compress(row, kept)) for row, kept in zip(ids, mask, strict=True)]
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts


def min_max_per_query(scores: Tensor) -> Tensor:
    """Bring the scores of each query to the range from 0 to 1, (B, N); equal ones become 0, and NaN stays."""
    lowest, highest = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    spread = highest - lowest
    return (scores - lowest) / spread.masked_fill(spread == 0, 1.0)


def ensemble_scores(
    scores: Sequence[Tensor], weights: Sequence[float] | None = None, *, score_scale: float = 30.0
) -> Tensor:
    r"""Make one teacher out of several, whatever the ranges of their scores.

    .. math:: \text{score\_scale} \cdot \frac{\sum_t w_t \, \text{minmax}(y_t)}{\sum_t w_t}

    Source: Geng et al., 2024, https://arxiv.org/abs/2411.04403.

    Args:
        scores: Of each teacher, (B, N) each; normalised for each query.
        weights: Of each teacher, above 0; all the same if there are none.
        score_scale: The largest score that comes out if the teachers agree.

    Returns:
        Scores, (B, N).

    Raises:
        TypeError: If a weight is not a number.
        ValueError: If there is no teacher, they scored different documents, or not every one has a weight above 0.
    """
    if not scores or len({each.shape for each in scores}) > 1 or scores[0].dim() != 2:
        raise ValueError(f"teachers must score the same documents, (B, N) each, got {[tuple(s.shape) for s in scores]}")
    given = [1.0] * len(scores) if weights is None else list(weights)
    _check_weights(given, len(scores))
    mixed = torch.stack([weight * min_max_per_query(each) for weight, each in zip(given, scores, strict=True)])
    return mixed.sum(dim=0) * (score_scale / sum(given))


class TeacherEnsemble:
    """Score all queries of a batch with all of its documents, by one teacher or several.

    Each teacher compares by its own ``similarity`` if it has one, else by the dot product.

    Args:
        teachers: Encoders, as :class:`Guide` takes them.
        model: The trained model.
        weights: Of each teacher, above 0; all the same if there are none.
        score_scale: The largest score that comes out if the teachers agree; ``None`` leaves the scores as they are,
            which only one teacher alone allows.

    Raises:
        TypeError: As of :class:`Guide`, and if a weight is not a number.
        ValueError: As of :class:`Guide`; if there is no teacher, or not every one has a weight above 0; if several
            teachers are not to be normalised.
    """

    def __init__(
        self,
        teachers: Sequence[Encoder],
        model: nn.Module,
        weights: Sequence[float] | None = None,
        *,
        score_scale: float | None = 30.0,
    ) -> None:
        if not teachers:
            raise ValueError("an ensemble needs at least one teacher, got none")
        if score_scale is None and len(teachers) > 1:
            raise ValueError(f"scores of {len(teachers)} teachers must be normalised; give a score_scale")
        self.weights = [1.0] * len(teachers) if weights is None else list(weights)
        _check_weights(self.weights, len(teachers))
        self.guides = [Guide(each, model) for each in teachers]
        self.score_scale = score_scale

    @torch.no_grad()
    def scores(self, columns: Columns) -> Tensor:
        """Return the scores of a batch.

        Args:
            columns: Features of queries and of k columns of documents, B texts each.

        Returns:
            Scores of every query with the documents of all columns, the first column's first, (B, k * B).

        Raises:
            ValueError: If there is no column of documents, or a teacher answers with anything infinite or NaN.
        """
        if len(columns) < 2:
            raise ValueError(f"a teacher needs at least 2 columns, a query and a document, got {len(columns)}")
        found = []
        for position, guide in enumerate(self.guides):
            queries, *documents = embeddings = guide.embed(columns)
            compare: Similarity = getattr(guide.encoder, "similarity", dot_score)
            scores = compare(queries, torch.cat(documents)).to(queries.device)
            check_answers(f"teacher {position}, {type(guide.encoder).__name__},", embeddings, scores)
            found.append(scores)
        if self.score_scale is None:
            return found[0]
        return ensemble_scores(found, self.weights, score_scale=self.score_scale)


def check_answers(who: str, embeddings: Sequence[Tensor], scores: Tensor | None = None) -> None:
    """Check what another encoder says of a batch, of which nothing, or something wrong, would be learnt silently.

    This waits for the device, which is short beside the encoder's own run.

    Args:
        who: Names the encoder.
        embeddings: Of each column, (B, W) each.
        scores: Made of them, (B, N); where they are sound, the embeddings are.

    Raises:
        ValueError: If anything is infinite or NaN.
    """
    judged = embeddings if scores is None else [scores]
    if all(bool(each.isfinite().all()) for each in judged):
        return
    for column, rows in enumerate(embeddings):
        if not rows.isfinite().all():
            raise ValueError(f"{who} is not finite in row {_first_bad_row(rows)} of column {column}")
    assert scores is not None  # something was not finite
    raise ValueError(f"{who} is not finite in the scores of row {_first_bad_row(scores)}")


def _first_bad_row(rows: Tensor) -> int:
    return int((~rows.isfinite()).any(dim=1).nonzero()[0])


def _check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count:
        raise ValueError(f"there are {count} teachers and {len(weights)} weights")
    for weight in weights:
        check_positive("the weight of a teacher", weight)
