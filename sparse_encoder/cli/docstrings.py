"""A corpus that is on every machine: the docstrings of Python packages. Reads files, imports none of them.

The first line of a docstring is a question, the rest is the document that answers it.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

STANDARD_LIBRARY = "stdlib"
PACKAGES = (STANDARD_LIBRARY, "numpy", "scipy", "torch")
"""What is installed wherever this library is."""
MIN_DOCUMENT_LENGTH = 200
"""Shorter rests say too little to be found by; in characters."""
MIN_QUESTION_WORDS = 3
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Docstring(NamedTuple):
    """One documented function or class.

    Attributes:
        id: Where it is: module and qualified name, with dots.
        question: The summary line.
        document: The rest.
    """

    id: str
    question: str
    document: str


class Question(NamedTuple):
    """A question, and the position of the document that answers it."""

    text: str
    document: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Documents, and questions about them that are apart for training and for measuring."""

    docstrings: tuple[Docstring, ...]
    training: tuple[Question, ...]
    held_out: tuple[Question, ...]

    @property
    def documents(self) -> list[str]:
        """Texts of all documents, also of those that only held-out questions ask for."""
        return [each.document for each in self.docstrings]

    @property
    def ids(self) -> list[str]:
        """Ids of all documents."""
        return [each.id for each in self.docstrings]


def package_folder(package: str) -> Path:
    """Find the files of a package without importing it.

    Args:
        package: Name of an installed package, or ``stdlib``.

    Raises:
        FileNotFoundError: If it is not installed, or is no folder of files.
    """
    if package == STANDARD_LIBRARY:
        return Path(sysconfig.get_paths()["stdlib"])
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise FileNotFoundError(f"there is no package {package!r} with files to read; 'stdlib' is the standard library")
    return Path(folders[0])


def read_docstrings(packages: Sequence[str] = PACKAGES, *, show_progress: bool = False) -> list[Docstring]:
    """Read the docstrings of public functions and classes, in the order of packages and files.

    Files of tests are left out, and so is whatever has a short rest (:data:`MIN_DOCUMENT_LENGTH`) or the rest of a
    docstring that came before.

    Args:
        packages: Names for :func:`package_folder`.
        show_progress: Draw a bar over the files.

    Raises:
        FileNotFoundError: If a package is not there.
    """
    files = [file for package in packages for file in source_files(package)]
    found: dict[str, Docstring] = {}
    for path, module in tqdm(files, desc="files", unit="file", disable=not show_progress):
        for each in docstrings_of(path.read_bytes(), module):
            found.setdefault(each.document, each)
    return _with_unique_ids(found.values())


def source_files(package: str) -> list[tuple[Path, str]]:
    """List the files of a package, without those of tests, and the name of the module in each.

    Args:
        package: Name for :func:`package_folder`.

    Raises:
        FileNotFoundError: If it is not there.
    """
    folder = package_folder(package)
    prefix = () if package == STANDARD_LIBRARY else (package,)
    files = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if _LEFT_OUT.isdisjoint(parts) and not parts[-1].startswith("test_"):
            files.append((path, ".".join((*prefix, *(part for part in parts if part != "__init__")))))
    return files


def docstrings_of(source: bytes, module: str) -> Iterator[Docstring]:
    """Cut the docstrings of one file into questions and documents; a file that is not Python has none.

    Args:
        source: Content of the file.
        module: Name that the ids begin with.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes and the like, which are not ours to mend
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return
    for name, text in _documented(tree, module):
        summary, _, rest = text.strip().partition("\n")
        question, document = " ".join(summary.split()), rest.strip()
        if question and len(document) > MIN_DOCUMENT_LENGTH:
            yield Docstring(name, question, document)


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of all public functions and classes below a node."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, _DOCUMENTED):
            name = f"{prefix}.{child.name}"
            text = ast.get_docstring(child)
            if text and not child.name.startswith("_"):
                yield name, text
        yield from _documented(child, name)


def _with_unique_ids(docstrings: Iterable[Docstring]) -> list[Docstring]:
    """Number the ids that come again, such as a property's setter."""
    seen: Counter[str] = Counter()
    unique = []
    for each in docstrings:
        seen[each.id] += 1
        unique.append(each if seen[each.id] == 1 else each._replace(id=f"{each.id}#{seen[each.id]}"))
    return unique


def split_corpus(
    docstrings: Sequence[Docstring], *, num_held_out: int, seed: int, max_documents: int | None = None
) -> Corpus:
    """Choose which questions train and which measure.

    Questions of less than three words, and questions that several documents have, ask for nothing in particular and
    are left out; their documents stay to be found.

    Args:
        docstrings: All that was read.
        num_held_out: Questions to measure with.
        seed: Of the choice.
        max_documents: Take only this many documents, chosen by the seed; ``None`` takes all.

    Raises:
        ValueError: If there are not enough questions to hold some out and train on others.
    """
    generator = random.Random(seed)
    chosen = list(docstrings)
    if max_documents is not None and max_documents < len(chosen):
        chosen = [chosen[number] for number in sorted(generator.sample(range(len(chosen)), max_documents))]
    asked = Counter(each.question for each in chosen)
    questions = [
        Question(each.question, position)
        for position, each in enumerate(chosen)
        if asked[each.question] == 1 and len(each.question.split()) >= MIN_QUESTION_WORDS
    ]
    if len(questions) <= num_held_out:
        raise ValueError(
            f"{len(chosen)} docstrings have {len(questions)} questions, too few to hold out {num_held_out} and train "
            "on the others; take more packages or documents, or fewer questions"
        )
    generator.shuffle(questions)
    return Corpus(
        docstrings=tuple(chosen), held_out=tuple(questions[:num_held_out]), training=tuple(questions[num_held_out:])
    )
