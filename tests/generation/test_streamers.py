"""Streamers give out what no later token can change; all parts together are the whole text."""

from __future__ import annotations

import asyncio
import threading
from queue import Empty

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_encoder.generation import AsyncTextIteratorStreamer, BaseStreamer, TextIteratorStreamer, TextStreamer


class Bytes:
    """One token for each byte of UTF-8; 256 is special, and a blank at the start of a text is lost, as in Llama's."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        pieces = [b"<s>" if each == 256 else bytes([each]) for each in ids if not (skip_special_tokens and each == 256)]
        text = b"".join(pieces).decode(errors="replace")
        return text.removeprefix(" ")


class Kept(TextStreamer):
    """Keep the parts."""

    @property
    def parts(self) -> list[tuple[str, bool]]:
        kept: list[tuple[str, bool]] = self.__dict__.setdefault("kept", [])
        return kept

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.parts.append((text, stream_end))


def parts_of(text: str, prompt: str = "") -> list[str]:
    streamer = Kept(Bytes())
    streamer.put(torch.tensor([list(prompt.encode())], dtype=torch.long))
    for byte in text.encode():
        streamer.put(torch.tensor([byte]))
    streamer.end()
    assert [ends for _, ends in streamer.parts] == [False] * (len(streamer.parts) - 1) + [True]
    return [part for part, _ in streamer.parts]


def test_words_are_written_when_they_are_whole() -> None:
    assert parts_of("ab cd e", "x y") == ["x ", "", "", "yab ", "", "", "cd ", "", "e"]


def test_a_line_is_written_at_once() -> None:
    assert parts_of("ab\ncd") == ["", "", "", "ab\n", "", "", "cd"]
    assert parts_of("a\n b\n\nc") == ["", "", "a\n", " ", "", "b\n", "\n", "", "c"]


def test_chinese_characters_are_words_and_bytes_of_one_are_not() -> None:
    assert parts_of("a中文b") == ["", "", "", "", "a中", "", "", "文", "", "b"]
    assert parts_of("é à") == ["", "", "", "é ", "", "", "à"]
    assert parts_of("한") == ["", "", "", "", "한"]


def test_prompts_are_skipped_and_so_are_special_tokens() -> None:
    streamer = Kept(Bytes(), skip_prompt=True, skip_special_tokens=True)
    for _ in range(2):  # it can be used again
        streamer.put(torch.tensor([[256, 97, 32]]))
        streamer.put(torch.tensor([98]))
        streamer.put(torch.tensor([256]))
        streamer.end()
    assert "".join(part for part, _ in streamer.parts) == "bb"
    streamer = Kept(Bytes())
    streamer.put(torch.tensor([256, 32]))
    assert streamer.parts == [("<s> ", False)]


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    streamer = TextStreamer(Bytes())
    streamer.put(torch.tensor([[97, 32, 98]]))
    assert capsys.readouterr().out == "a "
    streamer.end()
    assert capsys.readouterr().out == "b\n"
    streamer.end()  # with nothing left
    assert capsys.readouterr().out == "\n"


def test_one_row_only() -> None:
    for wrong in (torch.zeros(2, 3, dtype=torch.long), torch.zeros(1, 1, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match="a streamer takes one row, got tokens of shape"):
            TextStreamer(Bytes()).put(wrong)
    with pytest.raises(TypeError, match="tokenizer must have the method decode, got str"):
        TextStreamer("gpt2")


def test_an_iterator_gives_parts_from_another_thread() -> None:
    streamer = TextIteratorStreamer(Bytes(), skip_prompt=True, timeout=20.0, skip_special_tokens=True)

    def generate() -> None:
        streamer.put(torch.tensor([[97, 98]]))
        for byte in (99, 32, 256, 100):
            streamer.put(torch.tensor([byte]))
        streamer.end()

    thread = threading.Thread(target=generate)
    thread.start()
    assert list(streamer) == ["", "c ", "", "", "d"]  # the empty ones do not end it
    thread.join()


def test_an_iterator_does_not_wait_for_ever() -> None:
    streamer = TextIteratorStreamer(Bytes(), timeout=0.01)
    with pytest.raises(Empty):
        next(streamer)


@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet="ab \né中🙂", max_size=25), prompt=st.text(alphabet="ab \n", max_size=5))
def test_the_parts_are_the_whole(text: str, prompt: str) -> None:
    whole = Bytes().decode(list((prompt + text).encode()))
    assert "".join(parts_of(text, prompt)) == whole


@pytest.mark.parametrize("words", ["ab é 中 ", "🙂🙂 ", " a", "é "])
def test_long_lines_are_not_decoded_again_and_again(words: str) -> None:
    class Counting(Bytes):
        most = 0

        def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
            self.most = max(self.most, len(ids))
            return super().decode(ids, skip_special_tokens)

    tokenizer, text = Counting(), words * 60
    streamer = Kept(tokenizer)
    for byte in text.encode():
        streamer.put(torch.tensor([byte]))
    streamer.end()
    assert "".join(part for part, _ in streamer.parts) == Bytes().decode(list(text.encode()))
    assert tokenizer.most <= 66 < len(text.encode())


def test_a_word_of_many_tokens_is_kept_whole() -> None:
    for text in ("a" * 300, "b c" + "é" * 200 + " d", "x" * 70 + " " + "y" * 70):
        assert "".join(parts_of(text)) == text


def test_a_coroutine_gets_the_parts_that_another_thread_makes() -> None:
    async def read() -> list[str]:
        streamer = AsyncTextIteratorStreamer(Bytes(), skip_prompt=True, skip_special_tokens=True)

        def write() -> None:
            streamer.put(torch.tensor([list(b"no ")]))
            for byte in [*b"one two", 256]:
                streamer.put(torch.tensor([byte]))
            streamer.end()

        thread = threading.Thread(target=write)
        thread.start()
        parts = [part async for part in streamer]
        thread.join()
        return [part for part in parts if part]

    assert asyncio.run(read()) == ["one ", "two"]


def test_a_coroutine_does_not_wait_for_ever() -> None:
    async def read() -> None:
        async for _ in AsyncTextIteratorStreamer(Bytes(), timeout=0.001):
            pass

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(read())
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncTextIteratorStreamer(Bytes())


def test_a_streamer_of_ones_own_has_both_methods() -> None:
    class Half(BaseStreamer):
        def put(self, value: torch.Tensor) -> None:
            pass

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]
    assert isinstance(TextStreamer(Bytes()), BaseStreamer)
