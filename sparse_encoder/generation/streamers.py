"""Text as it is generated: written at once, or handed to another thread. They see token ids, one row of them."""

from __future__ import annotations

import asyncio
import sys
from abc import abstractmethod
from queue import Queue
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

_CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Characters that are words by themselves, first and last of each block of Unicode."""


_MANY_TOKENS = 64
"""Tokens that are decoded together before the first of them are forgotten."""
_KEPT_TOKENS = 16
"""Tokens kept then, so that those to come are decoded as behind all; a few more where they begin within a character."""


@runtime_checkable
class BaseStreamer(Protocol):
    """Get the tokens of one row as they are generated; a base for streamers of one's own."""

    @abstractmethod
    def put(self, value: Tensor) -> None:
        """Take the next tokens, the prompt's first, (1, T), then one after the other, (1,)."""

    @abstractmethod
    def end(self) -> None:
        """Learn that there are no more."""


class TextStreamer:
    r"""Write a text to the standard output while it is generated.

    A part is written when no later token can change it: up to the last blank, or all of it where it ends with a line or
    with a Chinese character. All parts together are what the tokenizer makes of all tokens.

    Args:
        tokenizer: Anything with ``decode``.
        skip_prompt: Leave out the prompt.
        decode_kwargs: Arguments of ``decode``, as ``skip_special_tokens=True``.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: object) -> None:  # noqa: ANN401
        if not callable(getattr(tokenizer, "decode", None)):
            raise TypeError(f"tokenizer must have the method decode, got {type(tokenizer).__name__}")
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self._tokens: list[int] = []
        self._written = 0  # characters of what these tokens make
        self._limit = _MANY_TOKENS
        self._prompt_is_next = True

    def put(self, value: Tensor) -> None:
        """Take the next tokens, the prompt's first.

        Args:
            value: Token ids of one row, (T,) or (1, T).

        Raises:
            ValueError: If there are several rows.
        """
        if value.dim() > 1 and value.shape[0] != 1 or value.dim() > 2:
            raise ValueError(f"a streamer takes one row, got tokens of shape {tuple(value.shape)}")
        is_prompt, self._prompt_is_next = self._prompt_is_next, False
        if is_prompt and self.skip_prompt:
            return
        self._tokens.extend(value.reshape(-1).tolist())
        text = self._decode()
        ends_line = text.endswith("\n")
        end = len(text) if ends_line or _is_chinese(text[-1:]) else text.rfind(" ") + 1
        part = text[self._written : end]
        self._written += len(part)
        if ends_line:
            self._begin_anew()
        elif len(self._tokens) > self._limit:
            self._forget(text)
        self.on_finalized_text(part)

    def end(self) -> None:
        """Write what is left, and a line's end."""
        part = self._decode()[self._written :] if self._tokens else ""
        self._tokens, self._written, self._prompt_is_next, self._limit = [], 0, True, _MANY_TOKENS
        self.on_finalized_text(part, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Do something with a part of the text that will not change any more; here, write it.

        Args:
            text: The part, which may be empty.
            stream_end: Whether it is the last.
        """
        sys.stdout.write(f"{text}\n" if stream_end else text)
        sys.stdout.flush()

    def _decode(self) -> str:
        return str(self.tokenizer.decode(self._tokens, **self.decode_kwargs))

    def _forget(self, text: str) -> None:
        """Forget the first tokens of a long line, so that no step decodes all of it; never what is to be written."""
        pending = len(text) - self._written
        for kept in range(_KEPT_TOKENS, 2 * _KEPT_TOKENS):
            ending = str(self.tokenizer.decode(self._tokens[-kept:], **self.decode_kwargs))
            if len(ending) > pending and text.endswith(ending):
                self._tokens, self._written, self._limit = self._tokens[-kept:], len(ending) - pending, _MANY_TOKENS
                return
        self._limit *= 2

    def _begin_anew(self) -> None:
        """Forget all tokens but the last, behind which a tokenizer knows that it is not at the start of a text."""
        self._tokens = self._tokens[-1:]
        self._written = len(self._decode())


class TextIteratorStreamer(TextStreamer):
    """Hand a text to whoever iterates, part by part, while another thread generates it.

    Args:
        tokenizer: Anything with ``decode``.
        skip_prompt: Leave out the prompt.
        timeout: Seconds that the iterator waits for a part before it raises ``queue.Empty``; None waits for ever, also
            if the other thread has failed.
        decode_kwargs: Arguments of ``decode``.
    """

    def __init__(  # house: peer signature
        self,
        tokenizer: Any,  # noqa: ANN401 - anything with decode
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: object,
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self.text_queue: Queue[str | None] = Queue()  # None ends it

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hand over a part of the text.

        Args:
            text: The part, which may be empty.
            stream_end: Whether it is the last.
        """
        self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(None)

    def __iter__(self) -> TextIteratorStreamer:
        """Return itself; the parts are there once."""
        return self

    def __next__(self) -> str:
        """Wait for the next part and return it."""
        part = self.text_queue.get(timeout=self.timeout)
        if part is None:
            raise StopIteration
        return part


class AsyncTextIteratorStreamer(TextStreamer):
    """Hand a text to a coroutine that iterates, part by part, while another thread generates it.

    Args:
        tokenizer: Anything with ``decode``.
        skip_prompt: Leave out the prompt.
        timeout: Seconds that the iterator waits for a part before it raises ``TimeoutError`` (``asyncio.TimeoutError``
            before Python 3.11); None waits for ever, also if the other thread has failed.
        decode_kwargs: Arguments of ``decode``.

    Raises:
        RuntimeError: If it is not made inside a coroutine, whose loop it hands the parts to.
    """

    def __init__(  # house: peer signature
        self,
        tokenizer: Any,  # noqa: ANN401 - anything with decode
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: object,
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self.text_queue: asyncio.Queue[str | None] = asyncio.Queue()  # None ends it
        self.loop = asyncio.get_running_loop()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hand over a part of the text, from any thread.

        Args:
            text: The part, which may be empty.
            stream_end: Whether it is the last.
        """
        self.loop.call_soon_threadsafe(self.text_queue.put_nowait, text)
        if stream_end:
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, None)

    def __aiter__(self) -> AsyncTextIteratorStreamer:
        """Return itself; the parts are there once."""
        return self

    async def __anext__(self) -> str:
        """Wait for the next part and return it."""
        part = await asyncio.wait_for(self.text_queue.get(), self.timeout)
        if part is None:
            raise StopAsyncIteration
        return part


def _is_chinese(character: str) -> bool:
    return bool(character) and any(first <= ord(character) <= last for first, last in _CHINESE)
