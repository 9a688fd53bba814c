"""A small encoder with only what a trainer touches, and data for it."""

from __future__ import annotations

import inspect
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import Tensor, nn

from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments

Anything = Any  # a setting, a stand-in, a dataset
TOKENS, HIDDEN, VOCABULARY = 97, 12, 17


class TinyEncoder(nn.Module):
    """Words, hashed to tokens, through an embedding, dropout and a projection; the largest logit of each term."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(HIDDEN, VOCABULARY)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @property
    def device(self) -> torch.device:
        return self.words.weight.device

    def preprocess(
        self, texts: Sequence[str], prompt: str | None = None, task: str | None = None, max_length: int = 8
    ) -> dict[str, Any]:
        rows = [[zlib.crc32(w.encode()) % (TOKENS - 1) + 1 for w in f"{prompt or ''}{text}".split()] for text in texts]
        rows = [row[:max_length] for row in rows]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        if self.training:
            self.calls += 1
        hidden = self.dropout(self.norm(self.words(features["input_ids"])))  # (B, T, D)
        logits = self.project(hidden).masked_fill(features["attention_mask"].unsqueeze(2) == 0, -torch.inf)
        return {**features, "sentence_embedding": logits.amax(dim=1).relu().log1p()}

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()},
            Path(folder) / "model.safetensors",
        )
        (Path(folder) / "config.json").write_text(json.dumps({"dropout": self.dropout.p}))


def tiny_encoder(*, dropout: float = 0.0, seed: int = 3) -> TinyEncoder:
    torch.manual_seed(seed)
    return TinyEncoder(dropout=dropout)


def pairs(count: int) -> Dataset:
    return Dataset.from_dict(
        {
            "anchor": [f"what is number {i} of the {i % 7} lot" for i in range(count)],
            "positive": [f"number {i} is a thing that {i % 5} people keep in lot {i % 7}" for i in range(count)],
        }
    )


def splade_loss(model: nn.Module, **weights: float) -> SpladeLoss:
    weights = {"document_regularizer_weight": 3e-3, "query_regularizer_weight": 5e-3, **weights}
    return SpladeLoss(model, loss=SparseMultipleNegativesRankingLoss(model), **weights)


def arguments(folder: Path | str, **options: Anything) -> SparseEncoderTrainingArguments:
    options = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    return SparseEncoderTrainingArguments(str(folder), **options)


def trainer(
    folder: Path | str, model: Anything = None, *, rows: Anything = None, **options: Anything
) -> SparseEncoderTrainer:
    """Make a trainer on 10 pairs with a SpladeLoss; options of the trainer by their names, the rest are settings."""
    own = [*inspect.signature(SparseEncoderTrainer).parameters][3:]
    given = {name: options.pop(name) for name in own if name in options}
    given.setdefault("loss", splade_loss)
    model = tiny_encoder() if model is None else model
    return SparseEncoderTrainer(model, arguments(folder, **options), pairs(10) if rows is None else rows, **given)


def digest(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def rows_of(run: SparseEncoderTrainer) -> list[dict[str, float]]:
    """Return the log without what depends on the clock."""
    clock = ("_runtime", "_per_second")
    return [{k: v for k, v in row.items() if not k.endswith(clock)} for row in run.state.log_history]
