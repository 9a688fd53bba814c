"""A collection as vectors: encoded once, searched as often as one likes, kept in a folder. Knows no metric.

Documents lie by falling id: an index breaks ties by position, and so as trec_eval does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from sparse_encoder.checkpoint import ConfigError, read_json_object, staged_folder, write_json
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.collections import Collection
from sparse_encoder.evaluation.retrieval_model import RetrievalModel
from sparse_encoder.similarity import Embeddings, SimilarityFunction, as_matrix, normalized

TEXTS_AT_A_TIME = 2048
"""Texts that are encoded between two steps of the progress bar."""
_IDENTITY, _DOCUMENTS, _QUERIES = "encoded.json", "documents.safetensors", "queries.safetensors"


class FingerprintedModel(RetrievalModel, Protocol):
    """A model that can say what its vectors depend on."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever vectors do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedCollection:
    """Vectors of the documents and of the judged queries of a collection.

    Raises:
        ValueError: If there are not as many vectors as texts.
    """

    collection: Collection
    documents: SparseEmbeddings
    """(number of documents, V), in the order of :attr:`document_ids`."""
    queries: SparseEmbeddings
    """(number of judged queries, V), in the order of :attr:`query_ids`."""
    cosine: bool = False
    """Whether scores are cosines, so that rows have length 1, and have to again if something is done to them."""

    def __post_init__(self) -> None:
        """Refuse vectors of something else."""
        sizes = (len(self.documents), len(self.queries))
        expected = (len(self.collection.corpus), len(self.collection.judged_queries))
        if sizes != expected:
            raise ValueError(f"there must be vectors of {expected} documents and queries, got {sizes}")

    @property
    def document_ids(self) -> list[str]:
        """Ids of the documents, falling."""
        return sorted(self.collection.corpus, reverse=True)

    @property
    def query_ids(self) -> list[str]:
        """Ids of the judged queries."""
        return list(self.collection.judged_queries)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How texts are encoded."""

    batch_size: int = 32
    """Handed to the model."""
    max_active_dims: int | None = None
    """Most active terms of a text; ``None`` leaves it to the model."""
    show_progress_bar: bool = False
    """Show one over documents and one over queries."""

    def __post_init__(self) -> None:
        """Refuse numbers below 1."""
        for name in ("batch_size", "max_active_dims"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def encode_collection(model: RetrievalModel, collection: Collection, settings: Encoding) -> EncodedCollection:
    """Encode documents and judged queries.

    Args:
        model: Its similarity must be the dot product or the cosine; for the latter vectors are brought to length 1.
        collection: The texts.
        settings: How.

    Raises:
        ValueError: If the similarity is another.
    """
    kinds = (SimilarityFunction.DOT.value, SimilarityFunction.COSINE.value)
    if model.similarity_fn_name not in kinds:
        raise ValueError(f"an index computes the similarities {kinds}, the model's is {model.similarity_fn_name!r}")
    scale = model.similarity_fn_name == SimilarityFunction.COSINE.value
    documents = [collection.corpus[name] for name in sorted(collection.corpus, reverse=True)]
    queries = list(collection.judged_queries.values())
    return EncodedCollection(
        collection=collection,
        documents=_encode(model.encode_document, documents, "documents", settings, scale),
        queries=_encode(model.encode_query, queries, "queries", settings, scale),
        cosine=scale,
    )


def _encode(
    encode: Callable[..., Embeddings], texts: list[str], what: str, settings: Encoding, scale: bool
) -> SparseEmbeddings:
    parts = []
    with tqdm(total=len(texts), desc=what, unit="text", disable=not settings.show_progress_bar) as bar:
        for start in range(0, len(texts), TEXTS_AT_A_TIME):
            chunk = texts[start : start + TEXTS_AT_A_TIME]
            found = encode(
                chunk,
                prompt_name=None,
                prompt=None,
                batch_size=settings.batch_size,
                show_progress_bar=False,
                max_active_dims=settings.max_active_dims,
            )
            rows = as_matrix(found)
            rows = rows if isinstance(rows, SparseEmbeddings) else SparseEmbeddings.from_dense(rows)
            parts.append((to_length_1(rows) if scale else rows).cpu())
            bar.update(len(chunk))
    return SparseEmbeddings.concatenate(parts)


def to_length_1(rows: SparseEmbeddings) -> SparseEmbeddings:
    """Scale each row to length 1, (N, V); a row of zeros stays."""
    scaled = normalized(rows)
    assert isinstance(scaled, SparseEmbeddings)  # what it makes of sparse rows
    return scaled


def identity_of(collection: Collection, model: FingerprintedModel, settings: Encoding) -> dict[str, Any]:
    """Return what vectors depend on, as plain values.

    Args:
        collection: The texts.
        model: The model; a model may take note of its own size when it first encodes, so ask before that.
        settings: How texts are encoded; what changes no vector is left out.
    """
    digest = hashlib.sha256()
    queries = collection.judged_queries  # which lie in their own order, documents always by falling id
    for names, texts in ((sorted(collection.corpus), collection.corpus), (list(queries), queries)):
        for name in names:
            for part in (name, texts[name]):
                raw = part.encode("utf-8", "surrogatepass")
                digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(b"\xff")
    return {
        "model": model.fingerprint,
        "similarity": model.similarity_fn_name,
        "collection": digest.hexdigest(),
        "max_active_dims": settings.max_active_dims,
    }


def save_encoded(encoded: EncodedCollection, identity: Mapping[str, Any], folder: Path) -> None:
    """Write the vectors, and what they were made of.

    Args:
        encoded: The vectors.
        identity: What :func:`identity_of` says.
        folder: Made if it does not exist.
    """
    with staged_folder(folder) as stage:
        encoded.documents.save(stage / _DOCUMENTS)
        encoded.queries.save(stage / _QUERIES)
        write_json(stage / _IDENTITY, identity)


def load_encoded(collection: Collection, identity: Mapping[str, Any], folder: Path) -> EncodedCollection | None:
    """Read vectors that :func:`save_encoded` wrote.

    Args:
        collection: The texts.
        identity: What :func:`identity_of` says now.
        folder: Where.

    Returns:
        The vectors, or ``None`` if the folder does not exist or is empty.

    Raises:
        ConfigError: If they were made by another model, of another collection or in another way.
        LoadError: If a file is damaged.
        FileNotFoundError: If one is missing.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    stored = read_json_object(folder / _IDENTITY)
    for name, expected in identity.items():
        if stored.get(name) != expected:
            raise ConfigError(
                f"the vectors are of another {name.replace('_', ' ')}: {stored.get(name)!r}, not {expected!r}",
                path=folder / _IDENTITY,
                field=name,
                hint="Choose another folder, or remove this one",
            )
    documents, queries = (SparseEmbeddings.load(folder / name) for name in (_DOCUMENTS, _QUERIES))
    cosine = identity["similarity"] == SimilarityFunction.COSINE.value
    return EncodedCollection(collection=collection, documents=documents, queries=queries, cosine=cosine)
