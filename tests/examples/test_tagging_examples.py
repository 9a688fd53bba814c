"""The examples that tag: a loop in one and two processes, and one pass that tags and searches."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from example_helpers import EXAMPLES, example
from tagged_sentences import tagged_sentences
from token_classification_helpers import write_encoder
from tokenizers import ByteLevelBPETokenizer

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    EntityMetrics,
    TokenClassificationModel,
    get_label_names,
    load_conll,
    tokenize_and_align_labels,
    write_conll,
)
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.training import Trainer, TrainingArguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tagging")
    words, tags = tagged_sentences(160, seed=1, part=0)
    write_conll(folder / "train.txt", words, tags)
    write_conll(folder / "test.txt", *tagged_sentences(31, seed=2, part=0))  # uneven for two processes
    write_encoder(folder / "model", words, kind=MaskedLanguageModel, vocab_size=500)
    return folder


def loop_options(folder: Path, output: str) -> list[str]:
    files = [str(folder / "train.txt"), str(folder / "test.txt"), "--model", str(folder / "model")]
    return [*files, "--output", str(folder / output), "--epochs", "5", "--learning-rate", "1e-2", "--cpu"]


def scores_in(told: str, *, epoch: int = 5) -> dict[str, float]:
    last = re.findall(rf"epoch {epoch}: (.*)", told)[-1]
    return {name: float(value) for name, value in (part.rsplit(" ", 1) for part in last.split(", "))}


@pytest.mark.filterwarnings("ignore:the weights of .* do not fit")  # the classifier is new
def test_a_loop_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("train_tagger_loop").main([*loop_options(folder, "alone"), "--batch-size", "8"])
    scores = scores_in(capsys.readouterr().out)
    assert scores["f1"] > 0.8
    assert scores["sentences"] == 31
    assert TokenClassificationModel.from_pretrained(folder / "alone").num_labels == 7


@pytest.mark.filterwarnings("ignore:the weights of .* do not fit")  # the classifier is new
def test_the_loop_and_the_trainer_reach_the_same_score(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights, rows, metric and updates, the batches in another order: F1 within 0.05 of each other."""
    longer = ["--batch-size", "8", "--epochs", "8", "--learning-rate", "5e-3"]
    example("train_tagger_loop").main([*loop_options(folder, "beside"), *longer])
    looped = scores_in(capsys.readouterr().out, epoch=8)
    columns = {"tokens": 0, "ner_tags": -1}
    train = load_conll(folder / "train.txt", columns=columns)
    names = get_label_names(train)
    test = load_conll(folder / "test.txt", columns=columns, label_names={"ner_tags": names})
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    torch.manual_seed(42)
    model = TokenClassificationModel.from_pretrained(folder / "model", id2label=names)
    prepare = partial(tokenize_and_align_labels, tokenizer=tokenizer, label_names=names, max_length=32)
    rows = [data.map(prepare, batched=True, remove_columns=data.column_names) for data in (train, test)]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=8,
            learning_rate=5e-3,
            weight_decay=0.01,
            max_grad_norm=0.0,
            per_device_train_batch_size=8,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=EntityMetrics(names),
    )
    trainer.train()
    trained = trainer.evaluate()
    assert trainer.state.global_step == 8 * 20
    assert looped["f1"] > 0.8
    assert trained["eval_f1"] == pytest.approx(looped["f1"], abs=0.05)
    assert trained["eval_accuracy"] == pytest.approx(looped["accuracy"], abs=0.02)


def test_two_processes_count_every_sentence_once(folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(EXAMPLES / "train_tagger_loop.py"), *loop_options(folder, "two"), "--batch-size", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    scores = scores_in(done.stdout)
    assert scores["sentences"] == 31
    assert scores["f1"] > 0.8


def test_one_pass_tags_and_searches(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("tag_and_search")
    documents = [" ".join(words) for words in tagged_sentences(12, seed=5, part=0)[0]]
    (tmp_path / "documents").write_text("\n".join(documents))
    options = ["--model", str(folder / "model"), "--query", documents[3], "--epochs", "8", "--learning-rate", "3e-2"]
    module.main(
        [
            str(tmp_path / "documents"),
            str(folder / "train.txt"),
            *options,
            "--checkpoints",
            str(tmp_path),
            "--top-k",
            "1",
        ]
    )
    told = capsys.readouterr().out.splitlines()
    assert documents[3] in told
    assert re.fullmatch(r" +[\d.]+  .*\[.*\]", told[-1])
    encoder = SparseEncoder(str(folder / "model"))
    tagger = TokenClassificationModel.from_backbone(encoder[0].auto_model, id2label=["O", "B-X", "I-X"]).eval()
    calls: list[int] = []
    tagger.backbone.register_forward_hook(lambda *_: calls.append(1))
    vectors, names = module.encode_and_tag(encoder, tagger, documents)
    assert calls == [1]
    assert len(names) == 12
    assert vectors.allclose(encoder.encode_document(documents), atol=1e-5)
    in_batches, same = module.encode_and_tag(encoder, tagger, documents, batch_size=5)
    assert len(calls) == 2 + 3
    assert same == names
    assert in_batches.allclose(vectors, atol=1e-5)


def test_byte_level_models_tag_the_tokens_they_search(folder: Path, tmp_path: Path) -> None:
    module = example("tag_and_search")
    documents = [" ".join(words) for words in tagged_sentences(7, seed=6, part=0)[0]]
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(documents, vocab_size=320, special_tokens=["<pad>", "<mask>"], show_progress=False)
    config = json.loads((folder / "model" / "config.json").read_text())
    model = MaskedLanguageModel.from_config({**config, "vocab_size": made.get_vocab_size(), "pad_token_id": 0})
    model.save_pretrained(tmp_path)
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pad>", "mask_token": "<mask>"}')
    encoder = SparseEncoder(str(tmp_path))
    tagger = TokenClassificationModel.from_backbone(encoder[0].auto_model, id2label=["O", "B-X", "I-X"]).eval()
    short = ["Ada sings", "Oslo .", "It rained in Lima ,"]
    vectors, names = module.encode_and_tag(encoder, tagger, short)
    assert vectors.allclose(encoder.encode_document(short), atol=1e-5)
    torch.nn.init.zeros_(tagger.head.classifier.weight)
    tagger.head.classifier.bias.data = torch.tensor([0.0, 1.0, 0.0])  # every word begins a name
    assert module.encode_and_tag(encoder, tagger, short)[1][0] == ["Ada (X)", "sings (X)"]


def test_what_cannot_be_tagged_and_searched_is_told(folder: Path) -> None:
    module = example("tag_and_search")
    encoder = SparseEncoder(str(folder / "model"))
    tagger = TokenClassificationModel.from_backbone(encoder[0].auto_model, id2label=["O", "B-X", "I-X"]).eval()
    with pytest.raises(ValueError, match="document 1 has 42 tokens, the model takes 32; cut it"):
        module.encode_and_tag(encoder, tagger, ["in", "in " * 40])
    encoder.prompts["document"] = "text: "
    with pytest.raises(ValueError, match="a model without prompts"):
        module.encode_and_tag(encoder, tagger, ["in"])
    with pytest.raises(ValueError, match=r"Transformer and SpladePooling is needed, got \['Transformer'\]"):
        module.parts_of(SparseEncoder(modules=[encoder[0]]))
