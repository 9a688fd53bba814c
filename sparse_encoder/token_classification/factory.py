"""``pipeline("token-classification", ...)``: what scripts for transformers call."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from sparse_encoder.token_classification.devices import Device
from sparse_encoder.token_classification.model import TokenClassificationModel
from sparse_encoder.token_classification.pipeline_parts import Source, find_parts
from sparse_encoder.token_classification.tagging_pipeline import TokenClassificationPipeline
from sparse_encoder.tokenizer import Tokenizer

TASKS = ("ner", "token-classification")


def pipeline(  # house: peer signature
    task: str = "token-classification",
    model: str | os.PathLike[str] | TokenClassificationModel | None = None,
    *,
    tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
    aggregation_strategy: str = "none",
    ignore_labels: Sequence[str] = ("O",),
    stride: int | None = None,
    batch_size: int | None = None,
    threshold: float = 0.0,
    device: Device | Sequence[Device] | None = None,
    legacy_subword: bool = False,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    token: bool | str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> TokenClassificationPipeline:
    """Make a pipeline that tags texts.

    Args:
        task: ``"token-classification"``, or ``"ner"``, which is the same.
        model: A folder, a repository, or a tagger.
        tokenizer: A tokenizer, or where it is; None is where the model is.
        aggregation_strategy: As in :class:`TokenClassificationPipeline`.
        ignore_labels: As in :class:`TokenClassificationPipeline`.
        stride: As in :class:`TokenClassificationPipeline`.
        batch_size: As in :class:`TokenClassificationPipeline`.
        threshold: As in :class:`TokenClassificationPipeline`.
        device: As in :class:`TokenClassificationPipeline`.
        legacy_subword: As in :class:`TokenClassificationPipeline`.
        dtype: Of the weights that are read.
        revision: Of a repository.
        token: For the hub.
        cache_dir: Where downloads are kept.
        local_files_only: Download nothing.

    Raises:
        ValueError: If the task is another, there is no model, a tagger comes without tokenizer or with options for
            reading it, or another option has no such value.
        LoadError: If files cannot be had.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose from {sorted(TASKS)}")
    if model is None:
        raise ValueError("a model must be named: pass a folder, a repository or a TokenClassificationModel")
    source = Source(dtype=dtype, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    tagger, own = find_parts(model, tokenizer, source)
    return TokenClassificationPipeline(
        tagger,
        own,
        aggregation_strategy=aggregation_strategy,
        ignore_labels=ignore_labels,
        stride=stride,
        batch_size=batch_size,
        threshold=threshold,
        device=device,
        legacy_subword=legacy_subword,
    )
