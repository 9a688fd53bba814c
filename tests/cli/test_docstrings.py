from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparse_encoder.cli.docstrings import (
    Docstring,
    docstrings_of,
    package_folder,
    read_docstrings,
    source_files,
    split_corpus,
)

REST = "The rest of it, which is long enough to be found by. " * 5

SOURCE = f'''
class Shape:
    """A thing   with corners.

    {REST}
    """

    def area(self):
        """Measure the
        {REST}"""

        def helper():
            """Help a little with it.

            Inside. {REST}"""

    def _private(self):
        """Not for others.

        Private. {REST}"""

    def short(self):
        """Say little.

        Short.
        """


async def later():
    """Come back later.

    Later. {REST}
    """
'''


def test_summary_and_rest_of_public_functions_and_classes() -> None:
    found = list(docstrings_of(SOURCE.encode(), "shapes"))
    assert [each.id for each in found] == [
        "shapes.Shape",
        "shapes.Shape.area",
        "shapes.Shape.area.helper",
        "shapes.later",
    ]
    assert [each.question for each in found] == [
        "A thing with corners.",
        "Measure the",
        "Help a little with it.",
        "Come back later.",
    ]
    assert found[0].document == REST.strip()
    assert found[3].document == f"Later. {REST.strip()}"


@pytest.mark.parametrize("source", [b"def broken(:", b"\x00", b"\xff\xfe\xfa"])
def test_what_is_not_python_has_no_docstrings(source: bytes) -> None:
    assert list(docstrings_of(source, "broken")) == []


def test_a_warning_about_the_source_is_not_passed_on() -> None:
    assert list(docstrings_of(rb"x = '\d'", "escapes")) == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package on the path that cannot be imported, and must not be."""
    folder = tmp_path / "never_imported"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text('raise RuntimeError("imported")\n')
    (folder / "shapes.py").write_text(SOURCE)
    (folder / "again.py").write_text(SOURCE.replace("Later. ", "Never. "))
    (folder / "test_shapes.py").write_text(SOURCE.replace("Later. ", "Tested. "))
    (folder / "tests" / "shapes.py").write_text(SOURCE.replace("Later. ", "Tested. "))
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder.name


def test_a_package_is_read_and_not_imported(package: str) -> None:
    assert [module for _, module in source_files(package)] == [
        "never_imported",
        "never_imported.again",
        "never_imported.shapes",
    ]
    assert [each.id for each in read_docstrings([package])] == [
        "never_imported.again.Shape",  # .area has the same rest
        "never_imported.again.Shape.area.helper",
        "never_imported.again.later",
        "never_imported.shapes.later",  # the others were there before
    ]
    assert package not in sys.modules


def test_ids_are_made_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = "\n".join(f'def f():\n    """Do it once more.\n\n    {number} {REST}"""\n' for number in range(3))
    (tmp_path / "overloads").mkdir()
    (tmp_path / "overloads" / "__init__.py").write_text(twice)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [each.id for each in read_docstrings(["overloads"])] == ["overloads.f", "overloads.f#2", "overloads.f#3"]


@pytest.mark.parametrize("name", ["no_such_package", "json.tool", "../json", "sys", ""])
def test_packages_without_files_are_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no package"):
        package_folder(name)


def test_the_standard_library_is_found() -> None:
    assert (package_folder("stdlib") / "ast.py").is_file()


def docstrings(number: int) -> list[Docstring]:
    return [Docstring(f"f{each}", f"What does {each} do?", f"document {each}") for each in range(number)]


def test_a_split_is_disjoint_and_loses_nothing() -> None:
    corpus = split_corpus(docstrings(30), num_held_out=7, seed=3)
    assert (len(corpus.held_out), len(corpus.training), len(corpus.docstrings)) == (7, 23, 30)
    assert {each.text for each in [*corpus.held_out, *corpus.training]} == {each.question for each in docstrings(30)}
    for question in [*corpus.held_out, *corpus.training]:
        assert corpus.docstrings[question.document].question == question.text
    assert corpus == split_corpus(docstrings(30), num_held_out=7, seed=3)
    assert corpus.held_out != split_corpus(docstrings(30), num_held_out=7, seed=4).held_out


def test_questions_that_ask_for_nothing_in_particular_are_left_out() -> None:
    vague = [
        Docstring("a", "Do it.", "1"),
        Docstring("b", "Copy the object.", "2"),
        Docstring("c", "Copy the object.", "3"),
    ]
    corpus = split_corpus([*vague, *docstrings(5)], num_held_out=2, seed=0)
    assert len(corpus.docstrings) == 8
    assert {each.document for each in [*corpus.held_out, *corpus.training]} == {3, 4, 5, 6, 7}


def test_some_of_the_documents() -> None:
    corpus = split_corpus(docstrings(30), num_held_out=4, seed=0, max_documents=11)
    assert (len(corpus.docstrings), len(corpus.training)) == (11, 7)
    numbers = [int(each.id[1:]) for each in corpus.docstrings]
    assert numbers == sorted(numbers)
    assert numbers != list(range(11))


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="5 docstrings have 5 questions, too few to hold out 5"):
        split_corpus(docstrings(5), num_held_out=5, seed=0)
