"""What every part of an encoder is: a module on a dict of features, with a folder it is saved to and loaded from.

Knows no particular module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_encoder.checkpoint import (
    CheckpointError,
    ConfigError,
    read_json_object,
    read_tensors,
    resolve_inside,
    write_json,
)
from sparse_encoder.modules.own_texts import OwnTexts, given_options
from sparse_encoder.tokenizer_options import checked_flag as checked_flag
from sparse_encoder.tokenizer_options import checked_integer as checked_integer

if TYPE_CHECKING:
    from typing_extensions import Self

    from sparse_encoder.tokenizer import TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadSettings:
    """What a caller adds to the files of a saved module; only modules with a backbone or a tokenizer look at it."""

    root: Path | None = None
    """The folder of the whole model, where a module may find a file that is not in its own folder."""
    shared_folder: bool = False
    """Whether the module's folder holds other modules too, as in flat copies of models with routes."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backbone."""
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the tokenizer."""
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Values that replace those of the backbone's ``config.json``."""


class Module(nn.Module):
    """Read some features of a batch and add others.

    A subclass names in ``config_keys`` the attributes that make up its configuration: they are the arguments of its
    constructor, and what its configuration file holds.
    """

    config_file_name: ClassVar[str] = "config.json"
    config_keys: ClassVar[tuple[str, ...]] = ()
    config_key_renames: ClassVar[Mapping[str, str]] = {}
    """Older names of configuration keys."""
    forward_kwargs: ClassVar[frozenset[str]] = frozenset()
    """Options of ``forward`` besides the features."""
    save_in_root: ClassVar[bool] = False
    """Whether the first module of a model is saved in the model's folder itself."""

    def get_config_dict(self) -> dict[str, Any]:
        """Return the configuration."""
        return {key: getattr(self, key) for key in self.config_keys}

    def get_embedding_dimension(self) -> int | None:
        """Return the width of what this module makes; ``None`` if it does not know or does not change it."""
        return None

    def get_sentence_embedding_dimension(self) -> int | None:
        """Do what :meth:`get_embedding_dimension` does, which is its name now."""
        return self.get_embedding_dimension()

    def get_word_embedding_dimension(self) -> int | None:
        """Do what :meth:`get_embedding_dimension` does, which is its name now."""
        return self.get_embedding_dimension()

    def extra_repr(self) -> str:
        """Show the configuration."""
        return ", ".join(f"{key}={value!r}" for key, value in self.get_config_dict().items())

    def save(self, folder: str | Path) -> None:
        """Write the module's files into a folder that exists."""
        self.save_config(Path(folder))

    def save_config(self, folder: Path) -> None:
        """Write the configuration file."""
        write_json(folder / self.config_file_name, self.get_config_dict(), indent=4)

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a module from its folder.

        Args:
            folder: The folder.
            settings: What the caller adds.

        Raises:
            LoadError: If a file is missing, or is not what it claims to be.
        """
        return cls.from_config(cls.load_config(Path(folder)), Path(folder))

    @classmethod
    def load_config(cls, folder: Path) -> dict[str, Any]:
        """Read the configuration file, with today's names of its keys.

        Raises:
            ConfigError: If it is not there, no JSON object, or has a key that is not known.
        """
        path = folder / cls.config_file_name
        if not path.exists():
            raise ConfigError(f"the configuration of a {cls.__name__} is missing", path=path)
        config = read_json_object(resolve_inside(folder, cls.config_file_name))
        for old, new in cls.config_key_renames.items():
            if old in config:
                config.setdefault(new, config[old])
                del config[old]
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path, *, parts: Mapping[str, Any] | None = None) -> Self:
        """Build a module from its configuration.

        Args:
            config: What its file holds.
            folder: Where that file is, for errors.
            parts: Further arguments of the constructor, which no configuration file holds.

        Raises:
            ConfigError: If a key is not known or missing, or a value is refused; names the file.
        """
        path = folder / cls.config_file_name
        if unknown := sorted(set(config) - set(cls.config_keys)):
            raise ConfigError(f"unknown keys {unknown}; a {cls.__name__} has {list(cls.config_keys)}", path=path)
        try:
            return cls(**config, **(parts or {}))
        except (TypeError, ValueError) as reason:
            raise ConfigError(str(reason), path=path) from reason


class InputModule(Module):
    """Read texts: the first module of a model, or of a route of a ``Router``.

    A subclass defines :meth:`preprocess`, or ``tokenize(texts, **options)`` in its place as older ones do, which then
    gets texts with their prompt. Users' own are run and trained, not saved: only the library's can be loaded again.
    """

    save_in_root: ClassVar[bool] = True
    tokenizer: Any = None  # a Tokenizer; a router has that of a route, if there is one
    max_seq_length: Any = None  # the number of tokens at which texts are cut, or None

    @property
    def reads_texts(self) -> bool:
        """Whether it can be the first module of a model: a subclass that reads texts in one way or the other."""
        kind = type(self)
        return kind.preprocess is not InputModule.preprocess or kind.tokenize is not InputModule.tokenize

    @property
    def modalities(self) -> list[str]:
        """The kinds of input: texts."""
        return ["text"]

    def longest_text(self, task: str | None = None) -> int | None:
        """Return the number of tokens at which texts of a task are cut; ``None`` if nowhere."""
        limit: int | None = self.max_seq_length
        return limit

    def tokenize_batch(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> TokenBatch | OwnTexts:
        """Tokenise and truncate texts; they are padded later, those of like length together.

        A subclass without tokens makes its features batch by batch instead.
        """
        given = given_options(self.preprocess, prompt=prompt, task=task, max_length=max_length)
        return OwnTexts(texts, lambda batch: self.preprocess(batch, **given))

    def preprocess(
        self,
        inputs: str | Sequence[Any],  # texts, pairs of texts, or whatever else a subclass reads
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """Turn texts into the features of a batch, padded to the longest.

        sentence-transformers 6 adds ``modality``; here texts are the only kind of input, and it is left out.

        Raises:
            TypeError: If the class defines neither this nor :meth:`tokenize`.
        """
        if type(self).tokenize is InputModule.tokenize:
            raise TypeError(f"{type(self).__name__} must define preprocess, which turns texts into features")
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        given = given_options(self.tokenize, prompt=None, task=task, max_length=max_length)
        return self.tokenize([f"{prompt}{text}" for text in texts] if prompt else texts, **given)

    def tokenize(
        self,
        texts: str | Sequence[Any],
        task: str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """Do what :meth:`preprocess` does, which is its name now."""
        return self.preprocess(texts, **given_options(self.preprocess, prompt=prompt, task=task, max_length=max_length))


def set_max_seq_length(modules: Sequence[InputModule], value: int | None) -> None:
    """Set the number of tokens at which texts are cut, in those modules that know tokens.

    Raises:
        ValueError: If no module does, and a number is given.
    """
    name = "max_seq_length"
    able = [each for each in modules if getattr(type(each), name, None) is not None or name in vars(each)]
    for module in able:
        module.max_seq_length = value
    if modules and not able and value is not None:
        raise ValueError(
            f"max_seq_length cannot be {value}: a {type(modules[0]).__name__} makes its features by itself, and nobody "
            "else cuts its texts; cut them in its preprocess, or give it an attribute max_seq_length"
        )


def load_weights(module: nn.Module, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Give a module on the meta device exactly the tensors of its folder.

    Args:
        module: Its parameters and buffers have shapes, but no values yet.
        folder: Where the weights are.
        tensors: The tensors, if they were read and renamed already.

    Raises:
        CheckpointError: If a tensor is missing, unexpected, of another shape or kind; all of them are listed.
    """
    tensors = read_tensors(folder) if tensors is None else tensors
    wanted = module.state_dict()
    problems = [f"missing {name!r}" for name in wanted if name not in tensors]
    problems += [f"unexpected {name!r}" for name in tensors if name not in wanted]
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            shapes = tuple(tensor.shape), tuple(wanted[name].shape)
            problems.append(f"{name!r} is {shapes[0]}, the configuration says {shapes[1]}")
        elif name in wanted and tensor.is_floating_point() != wanted[name].is_floating_point():
            problems.append(f"{name!r} is {tensor.dtype}, not {wanted[name].dtype}")
    if problems:
        raise CheckpointError(
            f"the weights do not fit {type(module).__name__}: {'; '.join(problems)}", path=folder / "model.safetensors"
        )
    module.load_state_dict(dict(tensors), assign=True)


def without_values(build: Any, *arguments: Any) -> Any:  # noqa: ANN401
    """Call something that builds a module on the meta device, where it costs no memory."""
    with torch.device("meta"):
        return build(*arguments)
