"""What every command has from ``main``: a list, names with a dash, and mistakes told from our own."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from sparse_encoder.cli import main as commands
from sparse_encoder.cli.main import COMMANDS, SHARED, main


def test_all_commands_are_listed_and_have_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert list(COMMANDS) == sorted(COMMANDS)
    for name in COMMANDS:
        assert re.search(rf"^ +{name}\b", listed, flags=re.MULTILINE)
        assert main([name, "--help"]) == 0
        assert f"usage: sparse-encoder {name}" in capsys.readouterr().out
    assert main(["evaluate"]) == 2
    assert "MODEL, COLLECTION" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - set(SHARED)))
def test_several_processes_are_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[object] = []
    fake = SimpleNamespace(add_arguments=lambda parser: None, run=ran.append)
    monkeypatch.setitem(sys.modules, f"sparse_encoder.cli.{command.replace('-', '_')}", fake)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main([command]) == 2
    assert capsys.readouterr().err == (
        f"sparse-encoder {command}: commands run in one process, and there are 3 (WORLD_SIZE): start this one without "
        "a launcher\n"
    )
    assert not ran
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main([command]) == 0
    assert len(ran) == 1


@pytest.mark.parametrize("command", ["prune-sweep", "evaluate"])
def test_an_extra_that_is_missing_is_said_and_our_own_mistakes_are_not_hidden(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> None:
        raise failure

    fake = SimpleNamespace(add_arguments=lambda parser: None, run=fail)
    monkeypatch.setitem(sys.modules, f"sparse_encoder.cli.{command.replace('-', '_')}", fake)
    failure: Exception = ImportError("this needs that: pip install 'sparse-encoder[that]'")
    assert commands.main([command]) == 2
    assert capsys.readouterr().err == f"sparse-encoder {command}: {failure}\n"
    failure = ModuleNotFoundError("No module named 'typo'", name="typo")
    with pytest.raises(ModuleNotFoundError, match="typo"):
        commands.main([command])
