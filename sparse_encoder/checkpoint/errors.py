"""The errors that files and engines cause; they know nothing of what was in them.

::

    SparseEncoderError
    ├── LoadError (ValueError)            something on disk is not what it claims to be
    │   ├── ConfigError                   a JSON file: syntax, type, range, unknown name
    │   ├── TokenizerError                tokenizer files
    │   ├── CheckpointError               weights and training state
    │   └── IndexCorruptError             a search index
    └── BackendError (RuntimeError)       a search engine refused or failed

Mistakes in a call are plain ``ValueError`` and ``TypeError``; a path that is not there is ``FileNotFoundError``.
"""

from __future__ import annotations

from os import PathLike, fspath


class SparseEncoderError(Exception):
    """Carry what was found, where, and what to do about it.

    Args:
        message: The rule that was broken and the value that broke it.
        path: The file or folder at fault, if there is one.
        field: The key or tensor name in it, if there is one.
        hint: What to do about it, as a sentence.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.path = None if path is None else fspath(path)
        self.field = field
        self.hint = hint
        where = ", ".join(filter(None, (self.path, None if field is None else f"field {field!r}")))
        super().__init__("".join((f"{where}: " if where else "", message, f". {hint}" if hint else "")))


class LoadError(SparseEncoderError, ValueError):
    """Something on disk is not what it claims to be."""


class ConfigError(LoadError):
    """A JSON file breaks a rule: syntax, type, range or an unknown name."""


class TokenizerError(LoadError):
    """The tokenizer files cannot be used."""


class CheckpointError(LoadError):
    """Weights or training state are missing, unexpected, mis-shaped or damaged."""


class IndexCorruptError(LoadError):
    """A search index on disk is damaged or was made by something else."""


class BackendError(SparseEncoderError, RuntimeError):
    """A search engine refused or failed."""
