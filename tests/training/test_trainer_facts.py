"""What a trainer tells of its batches and parameters, and the older name of its processing class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from training_helpers import pairs, tiny_encoder, trainer

from sparse_encoder.training import SparseEncoderTrainer


class Tokens:
    """Anything that may be saved beside a model."""

    def save_pretrained(self, folder: str) -> None:
        (Path(folder) / "tokens.txt").write_text("tokens")


def test_a_tokenizer_is_the_processing_class_under_its_older_name(tmp_path: Path) -> None:
    tokens = Tokens()
    with pytest.warns(FutureWarning, match="tokenizer is now called processing_class"):
        run = trainer(tmp_path, tokenizer=tokens)
    assert run.processing_class is tokens
    assert run.callback_handler.context["processing_class"] is tokens
    with pytest.raises(ValueError, match="tokenizer is the older name of processing_class; give one of them"):
        trainer(tmp_path, tokenizer=tokens, processing_class=tokens)


def test_rows_are_counted(tmp_path: Path) -> None:
    run = trainer(tmp_path, rows=pairs(10), gradient_accumulation_steps=3)
    assert run.num_examples(run.get_train_dataloader()) == 10
    assert run.get_total_train_batch_size(run.args) == 12
    assert run.set_initial_training_values(run.args, run.get_train_dataloader()).num_train_samples == 30

    class Batches:  # no dataset, but a length
        def __len__(self) -> int:
            return 5

    assert run.num_examples(Batches()) == 20  # type: ignore[arg-type]
    stream = pairs(10).to_iterable_dataset()
    with pytest.raises(TypeError):
        run.num_examples(DataLoader(stream))  # type: ignore[arg-type]


def test_norms_and_biases_are_not_decayed(tmp_path: Path) -> None:
    model = tiny_encoder()
    model.extra_norm = torch.nn.RMSNorm(3)
    run: SparseEncoderTrainer = trainer(tmp_path, model)
    assert run.get_decay_parameter_names(model) == ["words.weight", "project.weight"]
