"""What the commands that measure a model on a collection have in common: options, opening, encoding once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sparse_encoder import __version__
from sparse_encoder.cli.places import check_folder
from sparse_encoder.cli.processes import device_of_process
from sparse_encoder.evaluation.collection_search import DEPTH
from sparse_encoder.evaluation.collections import Collection, load_collection
from sparse_encoder.evaluation.encoded_collection import (
    EncodedCollection,
    Encoding,
    encode_collection,
    identity_of,
    load_encoded,
    save_encoded,
)
from sparse_encoder.evaluation.run_metrics import DEFAULT_METRICS, check_metric
from sparse_encoder.model import SparseEncoder
from sparse_encoder.search import BM25

BM25_NAME = "bm25"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What is measured, with what."""

    model: SparseEncoder | BM25
    model_name: str
    collection: Collection
    split: str | None
    fingerprint: str
    """Of the model as it was opened."""

    @property
    def facts(self) -> dict[str, str | None]:
        """Name both for files, and the version that measured them."""
        return {
            "library": f"sparse-encoder {__version__}",
            "model": self.model_name,
            "model_fingerprint": self.fingerprint,
            "collection": self.collection.name,
            "split": self.split,
        }

    @property
    def title(self) -> str:
        """Name both, and their sizes."""
        split = "" if self.split is None else f" ({self.split})"
        return (
            f"{self.model_name} on {self.collection.name}{split}: {len(self.collection.corpus)} documents, "
            f"{len(self.collection.judged_queries)} judged queries"
        )


def add_collection_options(parser: argparse.ArgumentParser) -> None:
    """Say which options both commands have."""
    parser.add_argument("model", metavar="MODEL", help=f"folder or hub id of a SparseEncoder, or {BM25_NAME}")
    parser.add_argument(
        "collection", metavar="COLLECTION", help="folder in the layout of BEIR, NanoBEIR or TREC, or ir_datasets id"
    )
    texts = parser.add_argument_group("collection")
    texts.add_argument("--split", help="which queries and judgements; BEIR: test")
    texts.add_argument(
        "--allow-unknown", action="store_true", help="judgements may name unknown documents, which are never found"
    )
    encoding = parser.add_argument_group("encoding")
    encoding.add_argument("--batch-size", type=_positive, default=32, metavar="N")
    encoding.add_argument("--dtype", choices=DTYPES, help="of the model's weights")
    encoding.add_argument("--device", help="such as cpu or cuda:1; default: an accelerator if there is one")
    encoding.add_argument("--max-active-dims", type=_positive, metavar="N", help="most active terms of a text")
    encoding.add_argument(
        "--embeddings", type=Path, metavar="DIR", help="keep the vectors here, and take them from here if they fit"
    )


def add_metrics_option(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Let a user choose the metrics; read them by :func:`chosen_metrics`."""
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        default=list(DEFAULT_METRICS),
        help="nDCG@k, MRR@k, Recall@k, P@k, Success@k for any k, MAP and R-precision, or RR@k, R@k, AP, Rprec as "
        f"ir_measures calls them (default: {' '.join(DEFAULT_METRICS)}); {DEPTH} documents are ranked, or as many as "
        "the largest k",
    )


def chosen_metrics(options: argparse.Namespace) -> list[str]:
    """Return the metrics that a user chose, each once.

    Raises:
        ValueError: If one is no metric, naming those there are.
    """
    metrics = list(dict.fromkeys(options.metrics))
    for name in metrics:
        check_metric(name)
    return metrics


def _positive(text: str) -> int:
    """Read a positive integer for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 up, got {text}")
    return number


def open_both(options: argparse.Namespace, opened: SparseEncoder | None = None) -> Evaluated:
    """Read the collection and open the model.

    Args:
        options: Of a command.
        opened: The model, if it is open already.

    Raises:
        ValueError: If an option does not fit.
        FileNotFoundError: If one is not there.
        NotADirectoryError: If the folder for vectors cannot be made.
        PermissionError: If it cannot be written to.
    """
    _check_place_of_vectors(options.embeddings)
    if opened is None:
        _check_device(options.device)
    collection = load_collection(options.collection, split=options.split, allow_unknown=options.allow_unknown)
    if options.model == BM25_NAME:
        model: SparseEncoder | BM25 = _fit_bm25(options, collection)
    else:
        model = open_model(options) if opened is None else opened
    return Evaluated(model, options.model, collection, options.split, model.fingerprint)


def _check_device(name: str | None) -> None:
    """Find out whether one can compute on a device."""
    if name is None:
        return
    try:
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without the device's backend
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error


def _fit_bm25(options: argparse.Namespace, collection: Collection) -> BM25:
    for name in ("dtype", "device"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is for models, {BM25_NAME} has none")
    return BM25().fit(collection.corpus.values())


def open_model(options: argparse.Namespace) -> SparseEncoder:
    """Open the model, on the device of this process.

    Raises:
        ValueError: If an option does not fit.
        FileNotFoundError: If it is not there.
        LoadError: If it cannot be read.
    """
    device = device_of_process(options.device)
    _check_device(device)
    model_kwargs = None if options.dtype is None else {"dtype": options.dtype}
    return SparseEncoder(options.model, device=device, model_kwargs=model_kwargs)


def encode(evaluated: Evaluated, options: argparse.Namespace) -> EncodedCollection:
    """Encode the collection with a progress bar, or take the vectors that were kept.

    Raises:
        ValueError: If kept vectors are of something else.
    """
    settings = Encoding(batch_size=options.batch_size, max_active_dims=options.max_active_dims, show_progress_bar=True)
    if options.embeddings is None:
        return encode_collection(evaluated.model, evaluated.collection, settings)
    identity = identity_of(evaluated.collection, evaluated.model, settings)
    kept = load_encoded(evaluated.collection, identity, options.embeddings)
    if kept is not None:
        print(f"vectors from {options.embeddings}")
        return kept
    encoded = encode_collection(evaluated.model, evaluated.collection, settings)
    save_encoded(encoded, identity, options.embeddings)
    return encoded


def new_output(folder: Path | None, names: Sequence[str]) -> Path | None:
    """Find out before the work whether the results may be written.

    Args:
        folder: Where; ``None`` writes nothing.
        names: Of the files that will be written; those of an earlier run are replaced.

    Raises:
        FileExistsError: If the folder is a file, or holds anything else.
        NotADirectoryError: If it cannot be made.
        PermissionError: If it cannot be written to.
    """
    if folder is None:
        return None
    if folder.exists():
        strays = sorted({path.name for path in folder.iterdir()} - set(names)) if folder.is_dir() else [folder.name]
        if strays:
            raise FileExistsError(f"{folder} holds something else than results ({strays[0]}); choose another --output")
    check_folder(folder, "--output")
    return folder


def _check_place_of_vectors(folder: Path | None) -> None:
    """Find out whether vectors may be written, if there are none to take."""
    if folder is not None and not (folder.is_dir() and any(folder.iterdir())):
        check_folder(folder, "--embeddings")
