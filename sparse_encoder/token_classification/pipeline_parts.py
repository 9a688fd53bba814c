"""The tagger and the tokenizer of a pipeline: read from a folder or the hub, or given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from sparse_encoder.checkpoint import fetch_model_folder
from sparse_encoder.token_classification.model import TokenClassificationModel
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.tokenizer_check import check_token_count

Place = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """How files are had, and what becomes of the weights."""

    dtype: torch.dtype | str | None = None
    """Of the weights; None is that of the file."""
    revision: str | None = None
    token: bool | str | None = None
    cache_dir: Place | None = None
    local_files_only: bool = False

    def folder(self, name_or_path: Place) -> Path:
        """Return the folder of a model, downloaded first if it is on the hub."""
        return fetch_model_folder(
            name_or_path,
            cache_folder=self.cache_dir,
            revision=self.revision,
            token=self.token,
            local_files_only=self.local_files_only,
        )


def read_parts(name_or_path: Place, source: Source) -> tuple[TokenClassificationModel, Tokenizer]:
    """Read a tagger and its tokenizer from one folder.

    Raises:
        LoadError: If files cannot be had, are damaged, or do not fit together.
    """
    folder = source.folder(name_or_path)
    model = TokenClassificationModel.from_pretrained(folder, dtype=source.dtype)
    tokenizer = Tokenizer.from_pretrained(folder)
    check_token_count(tokenizer.vocab_size, model.config.vocab_size, folder)
    return model, tokenizer


def find_parts(
    model: Place | TokenClassificationModel, tokenizer: object, source: Source
) -> tuple[TokenClassificationModel, Tokenizer]:
    """Return a tagger and its tokenizer.

    Args:
        model: A tagger, or where it is.
        tokenizer: A tokenizer, or where it is; None is where the model is.
        source: How files are had.

    Raises:
        TypeError: If the tokenizer is none.
        ValueError: If a tagger comes without tokenizer or with options for reading it, or the two do not fit.
        LoadError: If files cannot be had.
    """
    if not isinstance(model, TokenClassificationModel):
        if tokenizer is None:
            return read_parts(model, source)
        model = TokenClassificationModel.from_pretrained(source.folder(model), dtype=source.dtype)
    elif tokenizer is None:
        raise ValueError("a model that is there already needs its tokenizer; pass it, or the name of its folder")
    elif source != Source(local_files_only=source.local_files_only):
        raise ValueError("dtype, revision, token and cache_dir are for a model that is read; this one is there already")
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = Tokenizer.from_pretrained(source.folder(tokenizer))
    tokenizer = Tokenizer.of(tokenizer)
    check_token_count(tokenizer.vocab_size, model.config.vocab_size)
    return model, tokenizer
