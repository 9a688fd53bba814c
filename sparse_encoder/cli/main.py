"""``sparse-encoder COMMAND``: finds the command, tells users' mistakes from our own. Knows no command from inside."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from sparse_encoder import __version__
from sparse_encoder.checkpoint import LoadError

COMMANDS = {
    "convert": "turn weights in pickles (pytorch_model.bin) into safetensors, without running what is in them",
    "evaluate": "measure a model on a collection of documents, queries and judgements, and what a search costs",
    "export": "write a sparse encoder as an ONNX graph, pooling included, in 8 bits if asked, and measure what changed",
    "ner": "fine-tune a tagger of words on tagged sentences, tag texts with it, and measure it",
    "prune-sweep": "measure ways to prune a model's vectors: quality, postings and size, encoding once",
    "quickstart": "train a small encoder on the docstrings of this machine, measure it against BM25, and search",
}
"""What each command does, by name; ``sparse_encoder.cli.NAME`` is imported when it is called, with _ for -."""

SHARED = ("evaluate",)
"""Commands that several processes can do together."""

FILE_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)
"""What the system says to paths that cannot be read or written."""
USER_ERROR = 2
INTERRUPTED = 130


class Command(Protocol):
    """A module of this package that is a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say which options there are."""

    def run(self, options: argparse.Namespace) -> None:
        """Do what the command is for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments; ``None`` takes those of the process.

    Returns:
        0; 2 if the user has to change something, which is then said on stderr; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parse(arguments)
    except SystemExit as left:  # argparse has said what there is to say
        return left.code if isinstance(left.code, int) else USER_ERROR
    try:
        _check_alone(options.command)
        _module(options.command).run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except (LoadError, *FILE_ERRORS, ValueError) as error:
        _say(f"sparse-encoder {options.command}: {error}")
        return USER_ERROR
    except ImportError as error:
        if error.name is not None:  # not one of ours, which say what to install
            raise
        _say(f"sparse-encoder {options.command}: {error}")
        return USER_ERROR
    return 0


def _say(mistake: str) -> None:
    """Print a mistake, once for all processes, which meet it together."""
    if os.environ.get("RANK", "0") == "0":
        print(mistake, file=sys.stderr)


def _check_alone(command: str) -> None:
    """Refuse to be one of several processes, all of which would do the same and write to the same places.

    Raises:
        ValueError: If a launcher says that there are others, and the command is none of :data:`SHARED`.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if command not in SHARED and processes.isdecimal() and int(processes) > 1:
        raise ValueError(
            f"commands run in one process, and there are {processes} (WORLD_SIZE): start this one without a launcher"
        )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sparse-encoder", description="Train, evaluate and search with learned sparse retrieval models."
    )
    parser.add_argument("--version", action="version", version=f"sparse-encoder {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose.capitalize() + ".")
        if name == called:  # a command is slow to import, and --help needs none
            _module(name).add_arguments(command)
    return parser.parse_args(arguments)


def _module(name: str) -> Command:
    return import_module(f"sparse_encoder.cli.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
