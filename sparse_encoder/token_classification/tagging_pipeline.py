"""TokenClassificationPipeline: texts in, tagged tokens or entities out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sparse_encoder.token_classification.aggregation import (
    Aggregation,
    Found,
    aggregate,
    checked_labels,
    merge_overlapping,
)
from sparse_encoder.token_classification.chain_links import LinkRule, links_of_rows
from sparse_encoder.token_classification.devices import Device, devices_of
from sparse_encoder.token_classification.metrics import labels_of_words
from sparse_encoder.token_classification.model import TokenClassificationModel
from sparse_encoder.token_classification.pieces import legacy_pieces_of, pieces_of
from sparse_encoder.token_classification.pipeline_inputs import (
    Offsets,
    Text,
    check_texts,
    checked_inputs,
    checked_offsets,
    items_of,
    mended,
    text_of,
    windows_by_text,
)
from sparse_encoder.token_classification.pipeline_parts import Source, read_parts
from sparse_encoder.token_classification.progress import text_bar, window_counter
from sparse_encoder.token_classification.scoring import Scorer
from sparse_encoder.token_classification.windows import Tokens, joined
from sparse_encoder.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK_TEXTS = 64
"""Texts that are encoded together."""
OVERLAP = 4
"""Windows have one part in this many in common where nothing else is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """The options of one call."""

    how: Aggregation
    stride: int | None
    batch_size: int | None
    is_split_into_words: bool
    delimiter: str
    show_progress_bar: bool

    def bar(self, total: int | None) -> tqdm[Any]:
        """Return what shows how many texts are done."""
        return text_bar(total, shown=self.show_progress_bar)


class TokenClassificationPipeline:
    """Tag texts: named entities, parts of speech, chunks.

    Results are those of transformers' pipeline but for what it gets wrong: long texts are tagged whole, by windows that
    overlap (it drops what the model cannot take), a word is what the tokenizer calls one, scores are plain floats.

    Args:
        model: The tagger; it is moved to the device and put into evaluation mode.
        tokenizer: Its tokenizer.
        aggregation_strategy: ``"none"`` gives a dictionary for each token, the others one for each entity: ``"simple"``
            groups tokens, ``"first"``, ``"average"`` and ``"max"`` give each word one label before that.
        ignore_labels: Labels, or types of groups, that are left out.
        stride: Tokens that windows of a long text have in common; None is a quarter of a window.
        batch_size: Most windows of a batch; None is as many as a fixed number of tokens allows.
        threshold: Least score of what is returned.
        device: A device, or several that share the work: names, or numbers as in transformers (-1 is the CPU, 0 the
            first accelerator); None is where the model is.
        legacy_subword: Do as transformers 5.23 does: words by its heuristics, texts truncated without ``stride`` and
            entities of windows merged with it, one list of words as a list in a list.

    Raises:
        TypeError: If an option is of another type.
        ValueError: If an option has another value, or a device is not on this machine.
    """

    def __init__(  # house: peer signature
        self,
        model: TokenClassificationModel,
        tokenizer: Tokenizer,
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        batch_size: int | None = None,
        threshold: float = 0.0,
        device: Device | Sequence[Device] | None = None,
        legacy_subword: bool = False,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = Tokenizer.of(tokenizer)
        self.stride, self.batch_size = stride, batch_size
        self.how = Aggregation(
            strategy=aggregation_strategy,
            ignore_labels=checked_labels(ignore_labels),
            threshold=threshold,
            legacy_subword=legacy_subword,
        )
        devices = devices_of(device, model.device)
        self._scorer = Scorer(model, devices, takes_types=bool(model.config.num_token_types))
        self._crf_links: str | None = None if model.head.crf is None else model.crf_links
        self._names = [model.id2label[number] for number in range(model.num_labels)]
        self._max_length = min(self.tokenizer.model_max_length, model.config.max_tokens)
        self._checked(self._call_options())

    @classmethod
    def from_pretrained(  # house: peer signature
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        batch_size: int | None = None,
        threshold: float = 0.0,
        device: Device | Sequence[Device] | None = None,
        legacy_subword: bool = False,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        token: bool | str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load model and tokenizer; arguments as for the class and for ``TokenClassificationModel.from_pretrained``."""
        source = Source(
            dtype=dtype, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        model, tokenizer = read_parts(name_or_path, source)
        return cls(
            model,
            tokenizer,
            aggregation_strategy=aggregation_strategy,
            ignore_labels=ignore_labels,
            stride=stride,
            batch_size=batch_size,
            threshold=threshold,
            device=device,
            legacy_subword=legacy_subword,
        )

    def __call__(  # house: peer signature
        self,
        inputs: Any,  # noqa: ANN401 - a text, texts, or words; checked below
        *,
        is_split_into_words: bool = False,
        delimiter: str = " ",
        offset_mapping: Sequence[Any] | None = None,  # Any: pairs, or lists of them
        aggregation_strategy: str | None = None,
        ignore_labels: Sequence[str] | None = None,
        stride: int | None = None,
        threshold: float | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
    ) -> Any:  # noqa: ANN401 - a list for one text, a list of lists for several, an iterator for an iterator
        """Tag a text, or several.

        Args:
            inputs: A text, a list of texts, a column of a dataset, or an iterator of texts, which is read as its
                results are. With ``is_split_into_words`` a list of words, or lists of words. Halves of characters
                (surrogates) are put together first, or replaced by U+FFFD where one is alone.
            is_split_into_words: Whether a text is a list of words.
            delimiter: Between the words in the text that ``start`` and ``end`` count in.
            offset_mapping: Begin and end of each token, special ones too, in the place of the tokenizer's: a list of
                pairs for each text. They are as many as all tokens of the text.
            aggregation_strategy: For this call, as in the constructor; so are the next ones.
            ignore_labels: As in the constructor.
            stride: As in the constructor.
            threshold: As in the constructor.
            batch_size: As in the constructor.
            show_progress_bar: Show how many texts are done.

        Returns:
            For ``"none"``: ``entity``, ``score``, ``index``, ``word``, ``start``, ``end`` for each token; else
            ``entity_group`` in the place of ``entity`` and no ``index``. ``start`` and ``end`` count characters of the
            text (Unicode code points), so ``text[start:end]`` is what was found, in its own spelling. A list for one
            text, a list of lists for several.

        Raises:
            TypeError: If an input is no text, or with ``is_split_into_words`` no list of words, naming its place.
            ValueError: If there is no input, an option has another value, or offsets do not fit.
        """
        if not isinstance(delimiter, str):
            raise TypeError(f"delimiter must be a text, got {type(delimiter).__name__}: {delimiter!r:.80}")
        options = self._checked(
            self._call_options(
                strategy=aggregation_strategy,
                ignore_labels=ignore_labels,
                threshold=threshold,
                stride=stride,
                batch_size=batch_size,
                is_split_into_words=is_split_into_words,
                delimiter=delimiter,
                show_progress_bar=show_progress_bar,
            )
        )
        if isinstance(inputs, Iterator):
            if offset_mapping is not None:
                raise ValueError("offset_mapping does not go with an iterator; give a list")
            return self._stream(inputs, options)
        rows, single = checked_inputs(inputs, words=is_split_into_words)
        offsets = checked_offsets(offset_mapping, len(rows))
        found: list[list[Found]] = []
        with options.bar(len(rows)) as bar:
            for begin in range(0, len(rows), CHUNK_TEXTS):
                chunk = slice(begin, begin + CHUNK_TEXTS)
                found += self._tag(rows[chunk], offsets[chunk], options, bar)
        nested = is_split_into_words and options.how.legacy_subword
        return found[0] if single and not nested else found

    def label_words(
        self, sentences: Iterable[Sequence[str]], *, batch_size: int | None = None, show_progress_bar: bool = False
    ) -> list[list[str]]:
        """Label every word of some sentences: by its first token, ``O`` for a word that the tokenizer drops.

        Sentences that are too long for the model are labelled whole, so scores compare across tokenizers. A linear
        chain gives the likeliest sequence of labels.

        Args:
            sentences: Words of each.
            batch_size: As in the constructor.
            show_progress_bar: Show how many texts are done.

        Raises:
            TypeError: If a sentence is no list of words, naming its place.
        """
        how = replace(self.how, strategy="none", legacy_subword=False)
        options = replace(
            self._call_options(batch_size=batch_size, is_split_into_words=True, show_progress_bar=show_progress_bar),
            how=how,
        )
        options = self._checked(options)
        rows = items_of(sentences)
        check_texts(rows, words=True)
        found: list[list[str]] = []
        with options.bar(len(rows)) as bar:
            for begin in range(0, len(rows), CHUNK_TEXTS):
                chunk = [mended(row) for row in rows[begin : begin + CHUNK_TEXTS]]
                texts = [text_of(row, delimiter=" ", offsets=None) for row in chunk]
                windows = self._windows(chunk, texts, options, bar, as_paths=self._crf_links is not None)
                found += [self._word_labels(own, len(row), options) for row, own in zip(chunk, windows, strict=True)]
        return found

    def _word_labels(self, windows: list[Tokens], num_words: int, options: _Call) -> list[str]:
        """Label the words of one sentence."""
        tokens = joined(windows, options.stride or 0, self.tokenizer.truncation_side)
        words = tokens.word_ids
        if tokens.links is not None:
            words = [word if link else None for word, link in zip(words, tokens.links.tolist(), strict=True)]
        return labels_of_words([self._names[best] for best in tokens.scores.argmax(-1)], words, num_words=num_words)

    def _stream(self, inputs: Iterator[Any], options: _Call) -> Iterator[list[Found]]:
        """Yield the results of an iterator's texts, some texts at a time."""
        done = 0
        with options.bar(None) as bar:
            while rows := list(islice(inputs, CHUNK_TEXTS)):
                check_texts(rows, words=options.is_split_into_words, first=done)
                done += len(rows)
                yield from self._tag(rows, [None] * len(rows), options, bar)

    def _call_options(
        self,
        *,
        strategy: str | None = None,
        ignore_labels: Sequence[str] | None = None,
        threshold: float | None = None,
        stride: int | None = None,
        batch_size: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
        show_progress_bar: bool = False,
    ) -> _Call:
        """Fill up what a call leaves open."""
        how = replace(
            self.how,
            strategy=self.how.strategy if strategy is None else strategy,
            ignore_labels=self.how.ignore_labels if ignore_labels is None else checked_labels(ignore_labels),
            threshold=self.how.threshold if threshold is None else threshold,
        )
        return _Call(
            how=how,
            stride=self.stride if stride is None else stride,
            batch_size=self.batch_size if batch_size is None else batch_size,
            is_split_into_words=is_split_into_words,
            delimiter=delimiter,
            show_progress_bar=show_progress_bar,
        )

    def _checked(self, options: _Call) -> _Call:
        """Return the options with the stride that windows have.

        Raises:
            ValueError: If the stride or the batch size is out of range.
        """
        if options.batch_size is not None and options.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {options.batch_size}")
        room = self._max_length - self.tokenizer.num_special_tokens()
        if options.how.legacy_subword and options.stride is None:
            return options
        if options.how.legacy_subword and options.how.strategy == "none":
            raise ValueError("stride needs an aggregation_strategy other than 'none' with legacy_subword")
        stride = min(room // OVERLAP, room - 1) if options.stride is None else options.stride
        if not 0 <= stride < room:
            raise ValueError(f"stride must be between 0 and {room - 1}, so that windows move on, got {stride}")
        return replace(options, stride=stride)

    def _tag(
        self, rows: list[Any], offsets: Sequence[Offsets | None], options: _Call, bar: tqdm[Any]
    ) -> list[list[Found]]:
        """Tag some texts."""
        rows = [mended(row) for row in rows]
        delimiter = options.delimiter if options.is_split_into_words else None
        texts = [text_of(row, delimiter=delimiter, offsets=own) for row, own in zip(rows, offsets, strict=True)]
        windows = self._windows(rows, texts, options, bar)
        return [self._entities(text, own, options) for text, own in zip(texts, windows, strict=True)]

    def _windows(
        self, rows: list[Any], texts: Sequence[Text], options: _Call, bar: tqdm[Any], *, as_paths: bool = False
    ) -> list[list[Tokens]]:
        """Score the windows of each text."""
        batch = self.tokenizer.encode_windows(
            rows,
            max_length=self._max_length,
            stride=options.stride,
            is_split_into_words=options.is_split_into_words,
        )
        links: list[NDArray[np.bool_]] | None = None
        if self._crf_links is not None:
            rule = LinkRule(self._crf_links, options.stride or 0, self.tokenizer)
            links = links_of_rows(batch, texts, rule)
        scores = self._scorer(
            batch,
            max_length=self._max_length,
            batch_size=options.batch_size,
            links=links,
            as_paths=as_paths,
            on_rows=window_counter(batch, bar),
        )
        return windows_by_text(batch, scores, len(rows), links)

    def _entities(self, text: Text, windows: list[Tokens], options: _Call) -> list[Found]:
        """Find the entities of one text."""
        if options.how.legacy_subword:
            each = [self._aggregated(text, window, options.how) for window in windows]
            return each[0] if len(each) == 1 else merge_overlapping([entity for found in each for entity in found])
        tokens = joined(windows, options.stride or 0, self.tokenizer.truncation_side)
        count = len(tokens.ids) + self.tokenizer.num_special_tokens()
        if text.offsets is not None and len(text.offsets) > count:
            raise ValueError(
                f"offset_mapping must have a pair for each of the {count} tokens, special ones too, "
                f"got {len(text.offsets)}"
            )
        return self._aggregated(text, tokens, options.how)

    def _aggregated(self, text: Text, tokens: Tokens, how: Aggregation) -> list[Found]:
        if how.legacy_subword:
            pieces = legacy_pieces_of(text, tokens, self.tokenizer, how)
        else:
            pieces = pieces_of(text, tokens, self.tokenizer.unk_token_id)
        return aggregate(pieces, self._names, how, join=self.tokenizer.convert_tokens_to_string)
