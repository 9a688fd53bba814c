"""What a pipeline takes: streams, datasets, devices, offsets of the caller's; and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_classification_helpers import IdTagger, config, tagger, tokenizer

from sparse_encoder.backbone.families import read_config
from sparse_encoder.cli.main import main
from sparse_encoder.token_classification import TokenClassificationModel, TokenClassificationPipeline, pipeline
from sparse_encoder.token_classification import scoring as scoring_module
from sparse_encoder.token_classification.tagging_pipeline import CHUNK_TEXTS

TEXT = "Zoe works at Sylvain . a Sylvain works"
tagging = partial(TokenClassificationPipeline, tagger(), tokenizer(model_max_length=16), ignore_labels=[])


class Rows:
    """A dataset of torch: a length and items by number, and no iterator."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:  # noqa: ANN401 - as given
        return self.rows[number]


def test_datasets_and_generators() -> None:
    texts = ["a", "Zoe works", ""]
    assert tagging()(Rows(texts)) == tagging()(texts)
    words = [["a"], ["Zoe", "works"], []]
    assert tagging()(Rows(words), is_split_into_words=True) == tagging()(words, is_split_into_words=True)
    labels = tagging().label_words(words)
    assert [len(row) for row in labels] == [1, 2, 0]
    assert tagging().label_words(row for row in words) == labels
    assert tagging().label_words(Rows(words)) == labels
    with pytest.raises(TypeError, match="inputs must be a text or texts, got str"):
        tagging().label_words("Zoe works")


def test_a_generator_is_read_as_its_results_are() -> None:
    drawn = 0

    def texts() -> Iterator[str]:
        nonlocal drawn
        for _ in range(3 * CHUNK_TEXTS):
            drawn += 1
            yield "a"

    stream = tagging()(texts())
    assert drawn == 0
    next(stream)
    assert drawn == CHUNK_TEXTS


def test_errors_of_a_generator_count_from_its_beginning() -> None:
    stream = tagging()(iter(["a"] * (CHUNK_TEXTS + 7) + [3]))
    with pytest.raises(TypeError, match=rf"inputs\[{CHUNK_TEXTS + 7}\] must be a text, got int"):
        list(stream)


@pytest.mark.parametrize("as_stream", [False, True])
def test_there_is_one_bar_for_all_texts(capsys: pytest.CaptureFixture[str], as_stream: bool) -> None:
    texts = [TEXT * 3, *["a"] * (CHUNK_TEXTS + 20)]
    found = tagging()(iter(texts) if as_stream else texts, show_progress_bar=True)
    assert len(list(found)) == len(texts)
    told = capsys.readouterr().err
    assert told.count("\n") == 1  # a bar that ends begins a line
    assert f"{len(texts)}text" in told if as_stream else f"{len(texts)}/{len(texts)}" in told


def test_numbers_and_names_of_devices() -> None:
    model = tagger()
    for device in (-1, "cpu", "-1", torch.device("cpu"), [-1], ["cpu", -1]):
        assert tagging(device=device)._scorer.devices[0] == torch.device("cpu")
    for wrong in ("gpu", "cuda:99", 99, "99", -2, "meta", ["cpu", "gpu"], torch.device("meta")):
        with pytest.raises(ValueError, match="there is no device .* on this machine; choose from 'cpu', -1 for it"):
            TokenClassificationPipeline(model, tokenizer(), device=wrong)  # type: ignore[arg-type]
    for kind in (True, 1.5, [None]):
        with pytest.raises(TypeError, match="a device must be a name, a number or a torch.device"):
            TokenClassificationPipeline(model, tokenizer(), device=[kind])  # type: ignore[list-item]


def test_accelerators_have_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparse_encoder.token_classification import devices

    monkeypatch.setattr(devices, "_accelerator", lambda: ("cuda", 2))
    cpu = torch.device("cpu")
    assert devices.devices_of(0, cpu) == [torch.device("cuda:0")]
    assert devices.devices_of(["1", "cuda", -1], cpu) == [torch.device("cuda:1"), torch.device("cuda"), cpu]
    with pytest.raises(ValueError, match="there is no device '2' on this machine; choose from .*'cuda:1', 0 to 1"):
        devices.devices_of(2, cpu)


def test_the_command_line_refuses_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tagger().save_pretrained(tmp_path)
    tokenizer(model_max_length=16).save_pretrained(tmp_path)
    (tmp_path / "texts").write_text("Zoe\n")
    for device in ("gpu", "99"):
        assert main(["ner", "predict", str(tmp_path), str(tmp_path / "texts"), "--device", device]) == 2
        assert "there is no device" in capsys.readouterr().err


def test_every_device_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    plain = scoring_module.probabilities

    def spying(model: torch.nn.Module, features: dict[str, torch.Tensor]) -> torch.Tensor:
        used.append(id(model))
        return plain(model, features)

    monkeypatch.setattr(scoring_module, "probabilities", spying)
    several = tagging(device=["cpu", "cpu", "cpu"], batch_size=2)
    texts = [TEXT[:length] for length in range(1, 13)]
    several(texts)
    replicas = [id(each) for each in several._scorer.replicas]
    assert len(set(replicas)) == 3
    assert sorted(used.count(each) for each in replicas) == [2, 2, 2]


def test_the_limit_of_the_model_holds() -> None:
    own = tokenizer(model_max_length=64)  # more than the model's 16 positions
    found = TokenClassificationPipeline(tagger(), own, ignore_labels=[])(TEXT * 3)
    assert found[-1]["end"] == len(TEXT) * 3
    model = IdTagger(["O", "B-PER"], {4: 1}, own.vocab_size)
    TokenClassificationPipeline(model, own)(TEXT * 3)  # type: ignore[arg-type]
    assert max(width for _, width in model.shapes) == 16


def test_a_folder_takes_all_options(tmp_path: Path) -> None:
    tagger().save_pretrained(tmp_path)
    tokenizer(model_max_length=16).save_pretrained(tmp_path)
    options: dict[str, Any] = {
        "aggregation_strategy": "max",
        "ignore_labels": ["B-PER"],
        "stride": 3,
        "batch_size": 2,
        "threshold": 0.3,
        "device": ["cpu", "cpu"],
        "legacy_subword": True,
    }
    for made in (
        TokenClassificationPipeline.from_pretrained(tmp_path, **options),
        pipeline("ner", tmp_path, **options),
        pipeline("token-classification", tagger(), tokenizer=tmp_path, **options),
    ):
        assert made.how.strategy == "max"
        assert made.how.ignore_labels == ("B-PER",)
        assert made.how.legacy_subword
        assert (made.stride, made.batch_size, made.how.threshold) == (3, 2, 0.3)
        assert len(made._scorer.devices) == 2
    assert pipeline("ner", tmp_path, dtype="bfloat16").model.dtype == torch.bfloat16


def test_what_a_factory_refuses(tmp_path: Path) -> None:
    for options, message in [
        ({"task": "fill-mask", "model": tmp_path}, r"unknown task 'fill-mask'; choose from \['ner', 'token-class"),
        ({}, "a model must be named"),
        ({"model": tagger()}, "needs its tokenizer"),
        ({"model": tagger(), "tokenizer": tokenizer(), "dtype": "float16"}, "for a model that is read"),
        ({"model": tagger(), "tokenizer": tokenizer(), "revision": "main"}, "for a model that is read"),
    ]:
        with pytest.raises(ValueError, match=message):
            pipeline(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pipeline("ner", tagger(), tokenizer=3)  # type: ignore[arg-type]
    small = {**config(), "vocab_size": 5}
    with pytest.raises(ValueError, match="the tokenizer has 12 tokens"):
        pipeline("ner", TokenClassificationModel(read_config(small), small), tokenizer=tokenizer())


def test_offsets_may_be_arrays() -> None:
    pairs = [(0, 0), (0, 1), (0, 0)]
    wanted = tagging()("a", offset_mapping=pairs)
    assert (wanted[0]["start"], wanted[0]["end"]) == (0, 1)
    assert tagging()("a", offset_mapping=np.array(pairs)) == wanted
    assert tagging()("a", offset_mapping=torch.tensor(pairs)) == wanted
    assert tagging()(["a"], offset_mapping=np.array([pairs])) == [wanted]
    assert type(tagging()("a", offset_mapping=np.array(pairs))[0]["start"]) is int


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([(0, 0), (0, 1), (0, 0), (0, 1)], "a pair for each of the 3 tokens, special ones too, got 4"),
        ([(0, 0), (5, 90), (0, 0)], r"between 0 and 1, got \(5, 90\) for token 1"),
        ([(0, 0), (-5, 1), (0, 0)], r"between 0 and 1, got \(-5, 1\) for token 1"),
        ([(0, 0), (1, 0), (0, 0)], r"got \(1, 0\) for token 1"),
    ],
)
def test_offsets_that_do_not_fit(offsets: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tagging()("a", offset_mapping=offsets)


def test_options_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match="delimiter must be a text, got int: 3"):
        tagging()(["a", "b"], is_split_into_words=True, delimiter=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stride must be between 0 and 13, so that windows move on, got 500"):
        tagging(legacy_subword=True, aggregation_strategy="simple", stride=500)
