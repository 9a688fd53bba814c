"""Make a SPLADE model of a decoder (Llama, Mistral, Qwen, GPT-2): let it look both ways, and train low-rank changes.

The pairs are JSON lines with the keys ``query`` and ``document``. Without ``--model`` a tiny Llama of random weights is
made of their texts, which shows the way and needs no download. What is saved is the adapter, which names its base and
says that each token sees all others. A base in a folder must be named again where the adapter is loaded:
``SparseEncoder("trained/model", model_kwargs={"base_model": "path/to/decoder"})``. With ``--merge`` it is one model of
both, which sentence-transformers loads too.

    python examples/train_decoder_splade.py pairs.jsonl --model path/to/decoder --output trained
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss


def write_tiny_llama(folder: Path, texts: list[str]) -> None:
    """Write a Llama of random weights and a tokenizer trained on some texts."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=500, special_tokens=["<|end|>"], show_progress=False)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    MaskedLanguageModel.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|end|>", "eos_token": "<|end|>"}))


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", help="a folder or a hub name")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--begin-token", action="store_true", help="keep the begin token before texts")
    parser.add_argument("--merge", action="store_true", help="save one model and no adapter")
    options = parser.parse_args(arguments)

    rows = Dataset.from_json(str(options.pairs)).select_columns(["query", "document"])
    if options.model is None:
        write_tiny_llama(options.output / "tiny", [*rows["query"], *rows["document"]])
    model = SparseEncoder(
        options.model or str(options.output / "tiny"),
        model_kwargs={"bidirectional": True},
        processor_kwargs={"add_bos_token": options.begin_token},
    )
    model.max_seq_length = min(128, model.max_seq_length)
    backbone = model[0].auto_model
    model.add_adapter(
        LoraConfig(
            r=options.rank,
            lora_alpha=2 * options.rank,
            target_modules="all-linear",
            modules_to_save=[
                "lm_head"
            ],  # which was made for the next token; words that are tied to it stay as they are
        )
    )
    loss = SpladeLoss(
        model,
        loss=SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-4,
        query_regularizer_weight=3e-4,
    )
    training = SparseEncoderTrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=0.1,
        logging_steps=max(1, options.steps // 10),
        save_strategy="no",
    )
    trainer = SparseEncoderTrainer(model=model, args=training, train_dataset=rows, loss=loss)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss: {losses[0]:.3f} -> {losses[-1]:.3f}")
    if options.merge:
        backbone.merge_and_unload()
    model.save_pretrained(str(options.output / "model"))


if __name__ == "__main__":
    main()
