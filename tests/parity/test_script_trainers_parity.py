"""Training scripts that bring parts of transformers: its parser, enums, models and collators, with our trainers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import VOCABULARY, bert_config, write_tokenizer

from sparse_encoder.samplers import BatchSamplers
from sparse_encoder.training import SparseEncoderTrainingArguments, Trainer, TrainingArguments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")

Anything = Any  # a setting or a model


def parsed(kind: type, *words: str) -> Anything:
    (args,) = transformers.HfArgumentParser((kind,)).parse_args_into_dataclasses(args=list(words))
    return args


def test_a_command_line_is_parsed_into_our_arguments() -> None:
    args = parsed(
        SparseEncoderTrainingArguments,
        *("--output_dir", "out", "--learning_rate", "0.0005", "--bf16", "--fp16", "false", "--report_to", "none"),
        *("--prompts", '{"query": "find: "}', "--batch_sampler", "no_duplicates"),
        *("--router_mapping", '{"question": "query"}', "--learning_rate_mapping", '{"Static": 0.001}'),
    )
    assert (args.output_dir, args.learning_rate, args.bf16, args.fp16) == ("out", 0.0005, True, False)
    assert (args.prompts, args.router_mapping) == ({"query": "find: "}, {"question": "query"})
    assert (args.batch_sampler, args.learning_rate_mapping) == (BatchSamplers.NO_DUPLICATES, {"Static": 0.001})
    assert parsed(TrainingArguments, "--output_dir", "out", "--warmup_steps", "0.1").warmup_steps == 0.1
    assert TrainingArguments("out").label_names is None  # the parser has changed the types of the fields
    with pytest.raises(ValueError, match="router_mapping must be a dict or a JSON object, got 'question'"):
        parsed(SparseEncoderTrainingArguments, "--router_mapping", "question")


def test_enums_of_transformers_are_taken_and_equal_ours() -> None:
    utils = transformers.trainer_utils
    args = TrainingArguments("out", eval_strategy=utils.IntervalStrategy.STEPS, hub_strategy=utils.HubStrategy.END)
    assert args.eval_strategy == utils.IntervalStrategy.STEPS == "steps"
    assert args.hub_strategy == utils.HubStrategy.END
    assert args.save_strategy == utils.SaveStrategy.STEPS


def arguments(folder: Path, **options: Anything) -> TrainingArguments:
    defaults = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01}
    return TrainingArguments(str(folder), use_cpu=True, **{**defaults, **options})


def masked_model() -> Anything:
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**bert_config(), "attn_implementation": "eager"})
    return transformers.BertForMaskedLM(config)


def rows(count: int) -> list[dict[str, list[int]]]:
    ids = np.random.default_rng(0).integers(5, len(VOCABULARY), (count, 6)).tolist()
    return [{"input_ids": each, "labels": each} for each in ids]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_of_transformers_with_tied_weights_is_resumed_to_the_bit(tmp_path: Path, checkpointing: bool) -> None:
    options = {
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
    }
    run = Trainer(masked_model(), arguments(tmp_path, **options), train_dataset=rows(8))
    run.train()
    resumed = Trainer(masked_model(), arguments(tmp_path, **options), train_dataset=rows(8))
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert resumed.model.cls.predictions.decoder.weight is resumed.model.bert.embeddings.word_embeddings.weight
    for name, each in run.model.state_dict().items():
        assert torch.equal(each, resumed.model.state_dict()[name]), name
    again = transformers.BertForMaskedLM.from_pretrained(tmp_path / "checkpoint-4")
    assert torch.equal(again.state_dict()["cls.predictions.bias"], run.model.state_dict()["cls.predictions.bias"])


def test_collators_of_transformers_make_the_batches(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=1)
    texts = ["rain and sun", "bread of flour and water in the oven", "tree", "cat and dog and bird"]
    data = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]
    run = Trainer(masked_model(), arguments(tmp_path / "out"), data_collator=collator, train_dataset=data)
    run.train()
    assert run.state.global_step == 4
    assert (tmp_path / "out" / "checkpoint-4" / "tokenizer.json").is_file()  # the collator's
