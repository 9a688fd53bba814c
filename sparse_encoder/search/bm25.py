"""BM25 as two sparse vectors whose dot product is the score, for the same index and evaluators as any encoder."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sparse_encoder.checkpoint import IndexCorruptError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.search.arrays import MANIFEST, ArrayFolder, pack_strings, unpack_strings
from sparse_encoder.search.words import stop_words_of, words_of
from sparse_encoder.similarity import Embeddings, dot_score

_FOLDER = ArrayFolder("sparse-encoder BM25", 1)


class BM25:
    r"""Weigh words by how often a text has them and how few texts do.

    With the count f of a word in a document of l words, mean length L, N documents of which n have the word, and the
    count q of the word in the query,

    .. math:: \text{document weight} = \frac{f}{f + k_1 (1 - b + b \, l / L)}, \quad
        \text{query weight} = q \, \ln\Bigl(1 + \frac{N - n + 0.5}{n + 0.5}\Bigr)

    and the score is their dot product. N, n and L are those of the texts given to :meth:`fit`; words that these lack
    have no weight. The constant factor :math:`k_1 + 1` of older forms is left out: it changes no order.

    Source: Robertson and Zaragoza, 2009, https://doi.org/10.1561/1500000019, with the logarithm of Lucene, which keeps
    weights positive (Kamphuis et al., 2020, https://doi.org/10.1007/978-3-030-45442-5_4).

    Args:
        k1: How slowly repetition of a word saturates; not negative. 0 only asks whether a word is there.
        b: How much long documents are discounted, 0 to 1.
        stop_words: Words left out: ``"english"``, words, or ``None``.

    Raises:
        ValueError: If a number is out of range or there is no list for a language.
    """

    similarity_fn_name = "dot"

    def __init__(self, *, k1: float = 1.2, b: float = 0.75, stop_words: str | Iterable[str] | None = "english") -> None:
        if not 0 <= k1 < float("inf"):
            raise ValueError(f"k1 must be a number from 0 up, got {k1}")
        if not 0 <= b <= 1:
            raise ValueError(f"b must be from 0 to 1, got {b}")
        self.k1 = k1
        self.b = b
        self.stop_words = stop_words_of(stop_words)
        self._vocabulary: dict[str, int] = {}
        self._idf: NDArray[np.float64] = np.zeros(0)
        self._mean_length = 0.0

    def fit(self, texts: Iterable[str]) -> BM25:
        """Count words and lengths of the documents to be searched.

        Args:
            texts: All documents.

        Returns:
            Itself.

        Raises:
            TypeError: If one is no text.
            ValueError: If there is no word in them.
        """
        frequencies: Counter[str] = Counter()
        num_texts = num_words = 0
        for num_texts, words in enumerate(self._words(texts), start=1):  # noqa: B007  (the count outlives the loop)
            num_words += len(words)
            frequencies.update(set(words))
        if not frequencies:
            raise ValueError(f"there must be words in the texts, got none in {num_texts} texts")
        words = sorted(frequencies)
        having = np.array([frequencies[word] for word in words], dtype=np.float64)
        self._vocabulary = {word: number for number, word in enumerate(words)}
        self._idf = np.log1p((num_texts - having + 0.5) / (having + 0.5))
        self._mean_length = num_words / num_texts
        return self

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Term of each word."""
        return self._vocabulary

    def get_embedding_dimension(self) -> int:
        """Return the number of terms."""
        return len(self._vocabulary)

    @property
    def fingerprint(self) -> str:
        """Hash of everything the weights depend on, for :class:`SparseIndex`."""
        digest = hashlib.sha256(json.dumps(self._settings(), sort_keys=True).encode())
        for array in self._arrays().values():
            digest.update(array.tobytes())
        return digest.hexdigest()

    def encode_document(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 1024,
        show_progress_bar: bool = False,
        max_active_dims: int | None = None,
    ) -> SparseEmbeddings:
        """Weigh the words of documents.

        Args:
            inputs: Texts, or one text.
            prompt_name: Must be ``None``: there are no named prompts here.
            prompt: Text put before each text.
            batch_size: Texts between two steps of the progress bar.
            show_progress_bar: Show one.
            max_active_dims: Keep only this many words of each text, the heaviest.

        Returns:
            Term weights, (N, V); of one text, (V,).

        Raises:
            TypeError: If one is no text.
            ValueError: If nothing was fitted yet, or an argument is out of range.
        """
        _check(prompt_name, batch_size)
        return self._encode(inputs, self._document_weights, prompt, batch_size, show_progress_bar, max_active_dims)

    def encode_query(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 1024,
        show_progress_bar: bool = False,
        max_active_dims: int | None = None,
    ) -> SparseEmbeddings:
        """Weigh the words of queries; otherwise as :meth:`encode_document`."""
        _check(prompt_name, batch_size)
        return self._encode(inputs, self._query_weights, prompt, batch_size, show_progress_bar, max_active_dims)

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Score queries, (N, V), against documents, (M, V); returns (N, M)."""
        return dot_score(embeddings1, embeddings2)

    def _encode(
        self,
        inputs: str | Sequence[str],
        weigh: Callable[[list[str]], dict[int, float]],
        prompt: str | None,
        batch_size: int,
        show_progress_bar: bool,
        max_active_dims: int | None,
    ) -> SparseEmbeddings:
        """Encode texts with one of the two weights."""
        self._check_fitted()
        if isinstance(inputs, str):
            matrix = self._encode([inputs], weigh, prompt, batch_size, show_progress_bar, max_active_dims)
            row: SparseEmbeddings = matrix[0]
            return row
        rows: list[dict[int, float]] = []
        for start in tqdm(range(0, len(inputs), batch_size), desc="Batches", disable=not show_progress_bar):
            texts = inputs[start : start + batch_size]
            rows += map(weigh, self._words(texts, prompt or "", first=start))
        embeddings = SparseEmbeddings.from_rows(rows, len(self._vocabulary))
        return embeddings if max_active_dims is None else embeddings.top_k(max_active_dims)

    def _words(self, texts: Iterable[str], prompt: str = "", first: int = 0) -> Iterator[list[str]]:
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, got one text")
        for number, text in enumerate(texts, start=first):
            if not isinstance(text, str):
                raise TypeError(f"texts must be strings, text {number} is {text!r} ({type(text).__name__})")
            yield words_of(prompt + text, self.stop_words)

    def _check_fitted(self) -> None:
        if not self._vocabulary:
            raise ValueError("fit must be called first: nothing is known of any word yet")

    def _document_weights(self, words: list[str]) -> dict[int, float]:
        saturation = self.k1 * (1 - self.b + self.b * len(words) / self._mean_length)
        counts = Counter(words)
        return {
            self._vocabulary[word]: count / (count + saturation)
            for word, count in counts.items()
            if word in self._vocabulary
        }

    def _query_weights(self, words: list[str]) -> dict[int, float]:
        terms = Counter(self._vocabulary[word] for word in words if word in self._vocabulary)
        return {term: count * float(self._idf[term]) for term, count in terms.items()}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything :meth:`load` needs into a folder, which is made if it does not exist.

        Raises:
            ValueError: If nothing was fitted yet.
        """
        self._check_fitted()
        _FOLDER.write(Path(folder), self._settings(), [self._arrays()])

    def _settings(self) -> dict[str, Any]:  # numbers and words
        return {
            "k1": self.k1,
            "b": self.b,
            "stop_words": sorted(self.stop_words),
            "mean_length": self._mean_length,
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:  # bytes, integers and floats
        return {**pack_strings(self._vocabulary), "idf": self._idf}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> BM25:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is nothing.
            IndexCorruptError: If it is damaged, or was written by a newer version of this library.
        """
        folder = Path(folder)
        settings, files = _FOLDER.read(folder, memory_map=False)
        try:
            (arrays,) = files
            idf = arrays.pop("idf")
            words = unpack_strings(arrays)
            loaded = cls(k1=settings["k1"], b=settings["b"], stop_words=settings["stop_words"])
            mean_length = settings["mean_length"]
            _check_loaded(words, idf, mean_length)
        except IndexCorruptError:
            raise
        except (KeyError, TypeError, ValueError) as reason:
            raise IndexCorruptError(f"cannot be used: {reason}", path=folder / MANIFEST) from reason
        loaded._vocabulary = {word: number for number, word in enumerate(words)}
        loaded._idf, loaded._mean_length = idf, mean_length
        return loaded


def _check(prompt_name: str | None, batch_size: int) -> None:
    if prompt_name is not None:
        raise ValueError(f"BM25 has no named prompts, got prompt_name={prompt_name!r}; use prompt")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


def _check_loaded(words: list[str], idf: NDArray[Any], mean_length: object) -> None:
    """Refuse statistics that :meth:`BM25.fit` could not have made."""
    if idf.dtype != np.float64 or idf.shape != (len(words),) or not (np.isfinite(idf) & (idf > 0)).all():
        got = f"{idf.dtype} of shape {idf.shape} for {len(words)} words"
        raise ValueError(f"idf must be one positive float64 number for each word, got {got}")
    if len(set(words)) < len(words):
        twice = next(word for word, count in Counter(words).items() if count > 1)
        raise ValueError(f"a word is there twice, {twice!r:.60}; each has one number")
    if not isinstance(mean_length, float) or not 0 < mean_length < float("inf"):
        raise ValueError(f"mean_length must be a positive number, got {mean_length!r}")
