"""``sparse-encoder quickstart``: from the texts on this machine to a trained encoder that searches them, offline.

It tells the story in order; reading, building, training, measuring and showing are each a file beside this one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from sparse_encoder.checkpoint import ConfigError, read_json, write_json, write_text
from sparse_encoder.cli.docstrings import PACKAGES, Corpus, read_docstrings, split_corpus
from sparse_encoder.cli.measuring import Encoder, measure
from sparse_encoder.cli.output_folder import OutputFolder, earlier_folder, new_folder
from sparse_encoder.cli.places import check_file
from sparse_encoder.cli.report import SearchEngine, table
from sparse_encoder.cli.small_model import SmallModel, build_small_model
from sparse_encoder.cli.training_run import FROM_CHECKPOINT, FROM_SCRATCH, train
from sparse_encoder.model import SparseEncoder
from sparse_encoder.search import BM25, SparseIndex

NAMES = {"bm25": "BM25", "before": "model before training", "after": "model after training"}
NUM_EXAMPLES = 3
"""Held-out questions that are shown with their answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a run depends on; kept in its folder for ``--resume``."""

    packages: tuple[str, ...] = PACKAGES
    documents: int | None = None
    questions: int = 600
    model: str | None = None
    epochs: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0

    @classmethod
    def from_json(cls, path: Path) -> Settings:
        """Read the settings of an earlier run.

        Raises:
            ConfigError: If they are not those of a quickstart.
        """
        stored = read_json(path)
        names = {each.name for each in fields(cls)}
        if not isinstance(stored, dict) or set(stored) != names:
            raise ConfigError(f"must have the keys {sorted(names)}", path=path)
        return cls(**{**stored, "packages": tuple(stored["packages"])})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which options there are."""
    default = Settings()
    place = parser.add_argument_group("where results go")
    place.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of model, index and table; default: a new one"
    )
    place.add_argument("--overwrite", action="store_true", help="remove an earlier quickstart in DIR first")
    place.add_argument("--resume", action="store_true", help="go on with an interrupted quickstart, with its settings")
    place.add_argument("--json", type=Path, metavar="FILE", help="also write the table here, as JSON")
    corpus = parser.add_argument_group("corpus")
    corpus.add_argument(
        "--packages", nargs="+", metavar="NAME", default=list(default.packages), help="whose docstrings"
    )
    corpus.add_argument("--documents", type=_positive, metavar="N", help="take only N of them, at random")
    corpus.add_argument(
        "--questions", type=_positive, metavar="N", default=default.questions, help="held out to measure"
    )
    training = parser.add_argument_group("model and training")
    training.add_argument("--model", metavar="PATH_OR_ID", help="start from this checkpoint, not from nothing")
    training.add_argument("--epochs", type=float, help="passes over the training questions")
    training.add_argument("--batch-size", type=_positive, metavar="N", help="questions of an update")
    training.add_argument("--learning-rate", type=float, metavar="RATE")
    training.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--no-search", action="store_true", help="do not ask for queries at the end")


def run(options: argparse.Namespace) -> None:
    """Read, measure BM25, build, measure, train, measure, save and show.

    Raises:
        ValueError: If an option is out of range or contradicts another.
        FileExistsError: If the output folder is taken, or the file for the table is a folder.
        FileNotFoundError: If a package, a model or a run to resume is not there.
        NotADirectoryError: If the folder of the table cannot be made.
        PermissionError: If the table cannot be written.
    """
    if options.json is not None:
        check_file(options.json, "--json")
    if options.resume and options.overwrite:
        raise ValueError("--resume goes on with an earlier run and --overwrite removes it; choose one")
    if options.resume:
        folder = earlier_folder(options.output)
        settings = Settings.from_json(folder.settings)
    else:
        names = [each.name for each in fields(Settings)]
        settings = Settings(**{**{name: getattr(options, name) for name in names}, "packages": tuple(options.packages)})
        folder = new_folder(options.output, asdict(settings), overwrite=options.overwrite)
    engine = Quickstart(folder, settings).run()
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.results, options.json)
    if not options.no_search and sys.stdin.isatty() and sys.stdout.isatty():
        engine.prompt()


class Quickstart:
    """One run.

    Args:
        folder: Where files go; what an interrupted run left there is used.
        settings: What to do.
    """

    def __init__(self, folder: OutputFolder, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.started = time.monotonic()
        self.results: dict[str, dict[str, float]] = read_json(folder.results) if folder.results.exists() else {}

    def run(self) -> SearchEngine:
        """Do everything but search; returns what searches."""
        self._say(f"the files of this run go to {self.folder.path}")
        corpus = self._corpus()
        if "bm25" not in self.results:
            self._measure("bm25", BM25().fit(corpus.documents), corpus)
        model = self._start(corpus)
        if "before" not in self.results:
            self._measure("before", model, corpus)
        model, index = self._trained(model, corpus)
        print(f"\n{len(corpus.held_out)} held-out questions, {len(corpus.docstrings)} documents\n")
        print(table({NAMES[name]: figures for name, figures in self.results.items()}))
        print(self._verdict())
        texts = {each.id: each.document for each in corpus.docstrings}
        engine = SearchEngine(model=model, index=index, texts=texts)
        print("\nWhat the trained model finds for held-out questions (* is the right answer):")
        for question in corpus.held_out[:NUM_EXAMPLES]:
            print(f"\n{question.text}\n{engine.answer(question.text, expected=corpus.ids[question.document])}")
        return engine

    def _corpus(self) -> Corpus:
        settings = self.settings
        self._say(f"reading the docstrings of {', '.join(settings.packages)}")
        corpus = split_corpus(
            read_docstrings(settings.packages, show_progress=True),
            num_held_out=settings.questions,
            seed=settings.seed,
            max_documents=settings.documents,
        )
        lines = (json.dumps(each._asdict(), ensure_ascii=False) for each in corpus.docstrings)
        write_text(self.folder.documents, "".join(f"{line}\n" for line in lines))
        self._say(
            f"{len(corpus.docstrings)} documents, {len(corpus.training)} questions to train on, "
            f"{len(corpus.held_out)} held out"
        )
        return corpus

    def _start(self, corpus: Corpus) -> SparseEncoder:
        """Open the model before training, or make it."""
        if self.folder.start.exists():
            return SparseEncoder(str(self.folder.start))
        if self.settings.model is not None:
            self._say(f"opening {self.settings.model}")
            model = SparseEncoder(self.settings.model, similarity_fn_name="dot")
        else:
            self._say("learning word pieces and building a small model from them")
            model = build_small_model(corpus, replace(SmallModel(), seed=self.settings.seed))
        model.save_pretrained(str(self.folder.start))
        return model

    def _measure(self, name: str, encoder: Encoder, corpus: Corpus) -> SparseIndex:
        """Measure an encoder, write the figures down, and return its index."""
        self._say(f"measuring: {NAMES[name]}")
        measured = measure(encoder, corpus, fingerprint=encoder.fingerprint)
        self.results[name] = measured.figures
        write_json(self.folder.results, self.results)
        print(table({NAMES[name]: measured.figures}))
        return measured.index

    def _trained(self, model: SparseEncoder, corpus: Corpus) -> tuple[SparseEncoder, SparseIndex]:
        """Train, measure and save; a run that got that far before only opens what it saved."""
        if "after" in self.results and self.folder.index.exists():
            return SparseEncoder(str(self.folder.model)), SparseIndex.load(self.folder.index)
        chosen = {name: getattr(self.settings, name) for name in ("epochs", "batch_size", "learning_rate")}
        recipe = FROM_SCRATCH if self.settings.model is None else FROM_CHECKPOINT
        recipe = replace(recipe, seed=self.settings.seed, **{k: v for k, v in chosen.items() if v is not None})
        self._say(f"training on {len(corpus.training)} questions, {recipe.epochs:g} times each")
        try:
            train(model, corpus, recipe, folder=self.folder.checkpoints)
        except KeyboardInterrupt:
            print(f"\nto go on: sparse-encoder quickstart --output {self.folder.path} --resume", file=sys.stderr)
            raise
        index = self._measure("after", model, corpus)
        model.save_pretrained(str(self.folder.model))
        index.save(self.folder.index)
        shutil.rmtree(self.folder.checkpoints)
        self._say(f"saved {self.folder.model} and {self.folder.index}")
        return model, index

    def _verdict(self) -> str:
        gain = self.results["after"]["ndcg@10"] - self.results["bm25"]["ndcg@10"]
        return f"nDCG@10 of the trained model is {abs(gain):.3f} {'above' if gain > 0 else 'below'} BM25's."

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", flush=True)


def _positive(text: str) -> int:
    """Read a positive integer for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
