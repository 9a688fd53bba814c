"""Train one SPLADE model in several processes, on one machine or many; the launcher says how many and where.

The pairs are JSON lines with the keys ``query`` and ``document``. The script is the same for every launcher:

    python examples/train_distributed.py pairs.jsonl --model path/to/checkpoint --output trained
    torchrun --standalone --nproc-per-node 2 examples/train_distributed.py pairs.jsonl ...
    accelerate launch --multi_gpu --num_processes 2 examples/train_distributed.py pairs.jsonl ...
    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 examples/train_distributed.py pairs.jsonl ...

``--batch-size`` is that of one process. The last two need ``--cpu`` on a machine without GPUs; the very last one shares
the model's parameters out among the processes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-steps", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)

    model = SparseEncoder(options.model)
    loss = SpladeLoss(
        model,
        loss=SparseMultipleNegativesRankingLoss(model, gather_across_devices=True),  # negatives of all processes
        document_regularizer_weight=3e-5,
        query_regularizer_weight=5e-5,
    )
    training = SparseEncoderTrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        logging_steps=20,
        save_steps=200,
        save_total_limit=2,
        use_cpu=options.cpu,
    )
    rows = Dataset.from_json(str(options.pairs)).select_columns(["query", "document"])
    trainer = SparseEncoderTrainer(model=model, args=training, train_dataset=rows, loss=loss)
    trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model(str(options.output / "model"))  # in every process; the first one writes
    if trainer.is_world_process_zero():
        updates = f"{trainer.state.global_step} updates of a {type(model).__name__}"  # an FSDP... if it was shared out
        print(f"{trainer.accelerator.num_processes} processes, {updates}")


if __name__ == "__main__":
    main()
