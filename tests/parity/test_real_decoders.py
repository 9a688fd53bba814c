"""Decoders with real weights write what transformers writes: stories of a Llama, genera of microbes of a GPT-2."""

from __future__ import annotations

import io
import shutil
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from real_checkpoints import PROMPT, PROMPT_IDS, write_microbes, write_stories
from safetensors.torch import load_file
from torch import Tensor

from sparse_encoder.generation import CausalLanguageModel, TextIteratorStreamer, TextStreamer
from sparse_encoder.tokenizer import Tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("transformers")

pytestmark = [pytest.mark.fixture, pytest.mark.filterwarnings("ignore")]
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the sunshine."
WRONG_STORY = "Once upon a time, there was a big bear named Benny was a very big bear."
MICROBES = [2, 10, 20, 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(tmp_path_factory.mktemp("real") / "stories")


@pytest.fixture(scope="module")
def ours(folder: Path) -> CausalLanguageModel:
    return CausalLanguageModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:  # noqa: ANN401 - the peer's model
    return peer.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def microbes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_microbes(tmp_path_factory.mktemp("real") / "microbes")


def prompt() -> Tensor:
    return torch.tensor([PROMPT_IDS])


def two_prompts(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return a long and a short prompt, the short one padded on the left."""
    rows = [tokenizer.encode(text) for text in ("The old man walked to the sea and", "Tom has a red")]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "pad_token_id": 0}  # type: ignore[dict-item]


@pytest.mark.slow
def test_two_hundred_tokens_of_a_story(
    folder: Path,
    ours: CausalLanguageModel,
    theirs: Any,  # noqa: ANN401 - the peer's model
    tokenizer: Tokenizer,
) -> None:
    assert tokenizer.encode(PROMPT) == PROMPT_IDS
    written = ours.generate(prompt(), max_new_tokens=200, do_sample=False)
    assert written.tolist() == theirs.generate(prompt(), max_new_tokens=200, do_sample=False).tolist()
    assert written.shape == (1, 205)
    text = tokenizer.decode(written[0].tolist(), skip_special_tokens=True)
    assert text.startswith(STORY)
    assert text == peer.AutoTokenizer.from_pretrained(folder).decode(written[0], skip_special_tokens=True)
    assert ours.load_report is not None and not ours.load_report.ignored


def test_rows_in_another_order_load_and_tell_another_story(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The trap of this fixture: what loads cleanly may still be wrong, and only the text shows it."""
    model = CausalLanguageModel.from_pretrained(write_stories(tmp_path / "wrong", permuted=False)).eval()
    written = model.generate(prompt(), max_new_tokens=24, do_sample=False)
    text = tokenizer.decode(written[0].tolist(), skip_special_tokens=True)
    assert text.startswith(WRONG_STORY[:60]) and not text.startswith(STORY[:40])


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
        {"num_beams": 4, "early_stopping": True, "no_repeat_ngram_size": 3},
        {"repetition_penalty": 1.3, "min_new_tokens": 15},
    ],
    ids=lambda options: "-".join(options),
)
def test_beams_and_penalties(
    options: dict[str, Any],
    ours: CausalLanguageModel,
    theirs: Any,  # noqa: ANN401 - the peer's model
    tokenizer: Tokenizer,
) -> None:
    given = {**two_prompts(tokenizer), **options, "max_new_tokens": 20, "do_sample": False}
    assert ours.generate(**given).tolist() == theirs.generate(**given).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 20},
        {"top_p": 0.8, "temperature": 0.7, "num_return_sequences": 2},
        {"num_beams": 2, "temperature": 1.5},
    ],
    ids=lambda options: "-".join(options),
)
def test_sampling_under_one_seed(
    options: dict[str, Any],
    ours: CausalLanguageModel,
    theirs: Any,  # noqa: ANN401 - the peer's model
    tokenizer: Tokenizer,
) -> None:
    given = {**two_prompts(tokenizer), **options, "max_new_tokens": 12, "do_sample": True}
    torch.manual_seed(7)
    expected = theirs.generate(**given)
    torch.manual_seed(7)
    assert ours.generate(**given).tolist() == expected.tolist()
    torch.manual_seed(8)
    seeded = ours.generate(**given, generator=torch.Generator().manual_seed(7))
    assert seeded.tolist() == expected.tolist()


def test_scores_of_a_story(ours: CausalLanguageModel, theirs: Any) -> None:  # noqa: ANN401 - the peer's model
    given = {"max_new_tokens": 40, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    found, expected = ours.generate(prompt(), **given), theirs.generate(prompt(), **given)
    torch.testing.assert_close(torch.stack(found.scores), torch.stack(expected.scores), atol=1e-4, rtol=1e-4)
    steps = ours.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
    peers = theirs.compute_transition_scores(expected.sequences, expected.scores, normalize_logits=True)
    torch.testing.assert_close(steps, peers, atol=1e-4, rtol=1e-4)
    assert steps.shape == (1, 40) and bool((steps < 0).all())


def test_a_story_is_streamed(ours: CausalLanguageModel, tokenizer: Tokenizer) -> None:
    whole = tokenizer.decode(
        ours.generate(prompt(), max_new_tokens=40, do_sample=False)[0].tolist(), skip_special_tokens=True
    )
    with redirect_stdout(io.StringIO()) as printed:
        ours.generate(
            prompt(),
            max_new_tokens=40,
            do_sample=False,
            streamer=TextStreamer(tokenizer, skip_special_tokens=True),
        )
    assert printed.getvalue().removesuffix("\n") == whole.removesuffix("\n")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60.0, skip_special_tokens=True)
    given = {"max_new_tokens": 40, "do_sample": False, "streamer": streamer}
    writer = Thread(target=ours.generate, args=(prompt(),), kwargs=given)
    writer.start()
    pieces = list(streamer)
    writer.join()
    assert len([piece for piece in pieces if piece]) > 20
    assert (PROMPT + "".join(pieces)).split() == whole.split()


def test_genera_of_microbes(microbes: Path, tmp_path: Path) -> None:
    model = CausalLanguageModel.from_pretrained(microbes).eval()
    assert model.load_report is not None
    assert len(model.load_report.used) == 101 and not model.load_report.ignored
    ids = torch.tensor([MICROBES])
    with torch.no_grad():
        logits = model(ids).logits[0]
        expected = peer.AutoModelForCausalLM.from_pretrained(microbes).eval()(ids).logits[0]
    assert logits.argmax(dim=1).tolist() == [964, 910, 910, 2629]
    torch.testing.assert_close(logits[-1, :4], torch.tensor([6.4124, 6.3778, 8.9565, 2.3582]), rtol=0, atol=1e-3)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved["transformer.h.0.attn.c_attn.weight"].shape == (256, 768)  # columns first, as it came
    again, info = peer.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(ids).logits[0], expected, rtol=0, atol=0)
    shutil.copy(microbes / "generation_config.json", tmp_path / "saved")
    given = {"max_new_tokens": 30, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert model.generate(ids, **given).tolist() == again.generate(ids, **given).tolist()


def test_stories_saved_are_opened_by_transformers(
    ours: CausalLanguageModel,
    theirs: Any,  # noqa: ANN401 - the peer's model
    tmp_path: Path,
) -> None:
    ours.save_pretrained(tmp_path)
    again, info = peer.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        assert torch.equal(again.eval()(prompt()).logits, theirs(prompt()).logits)
