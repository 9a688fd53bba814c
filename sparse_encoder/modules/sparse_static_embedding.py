"""One fixed weight per term, for the terms that a text has: an encoder without a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.resize import check_resizable, rows_wanted, set_rows
from sparse_encoder.checkpoint import (
    CheckpointError,
    fetch_model_folder,
    read_tensors,
    resolve_inside,
    write_tensors,
)
from sparse_encoder.modules.base import InputModule, LoadSettings, checked_flag
from sparse_encoder.modules.features import Features
from sparse_encoder.modules.text_inputs import tokenize
from sparse_encoder.term_weights import MAX_WEIGHT, WEIGHTS_FILE, find_term_weights, read_term_weights
from sparse_encoder.tokenizer import UNLIMITED, TokenBatch, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self


class SparseStaticEmbedding(InputModule):
    """Give each term of a text its weight; a term counts once however often it occurs.

    Texts are tokenised without special tokens. If the features hold a ``sentence_embedding`` already, it is multiplied.

    Args:
        tokenizer: Its vocabulary is the terms.
        weight: Weight of each term, (V,), e.g. its inverse document frequency; ones if not given. V may exceed the
            vocabulary, to match a model whose embeddings do.
        frozen: Whether training leaves the weights alone.

    Raises:
        ValueError: If there are fewer weights than tokens.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("frozen",)

    def __init__(self, tokenizer: Tokenizer, weight: Tensor | None = None, frozen: bool = False) -> None:
        super().__init__()
        tokenizer = Tokenizer.of(tokenizer)
        if weight is None:
            weight = torch.ones(tokenizer.vocab_size)
        if weight.ndim != 1 or weight.shape[0] < tokenizer.vocab_size:
            shape = tuple(weight.shape)
            raise ValueError(f"weight must have one entry for each of {tokenizer.vocab_size} tokens, got {shape}")
        self.tokenizer = tokenizer
        self.frozen = checked_flag("frozen", frozen)
        self.weight = nn.Parameter(weight, requires_grad=not frozen)

    @classmethod
    def from_json(  # house: peer signature
        cls,
        json_path: str | Path,
        tokenizer: Tokenizer,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        *,
        frozen: bool = False,
    ) -> Self:
        """Read the weights from a JSON file ``{term: weight}``; terms that it does not list weigh 0.

        Args:
            json_path: The file; or a model's folder or hub id, whose ``idf.json`` is read.
            tokenizer: Maps terms to dimensions.
            token: Access token for the hub.
            cache_folder: Where downloads are kept.
            revision: Branch, tag or commit on the hub.
            local_files_only: Download nothing.
            frozen: Whether training leaves the weights alone.

        Raises:
            FileNotFoundError: If there is no such file.
            ConfigError: If it is no object of finite numbers, or none of its terms is a token.
        """
        tokenizer, path = Tokenizer.of(tokenizer), Path(json_path)
        if not path.is_file():
            folder = fetch_model_folder(
                str(json_path),
                cache_folder=cache_folder,
                revision=revision,
                token=token,
                local_files_only=local_files_only,
            )
            path = folder / WEIGHTS_FILE
        return cls(tokenizer, read_weights(path, tokenizer), frozen)

    @property
    def max_seq_length(self) -> int | None:
        """The number of tokens at which texts are cut; ``None`` for no limit."""
        limit = self.tokenizer.model_max_length
        return limit if limit < UNLIMITED else None

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.tokenizer.model_max_length = UNLIMITED if value is None else value

    @property
    def num_dimensions(self) -> int:
        """The number of terms V."""
        return self.weight.shape[0]

    def check_vocabulary(self) -> None:
        """Check that every token has a weight.

        Raises:
            ValueError: If there are too few.
        """
        num_tokens = self.tokenizer.vocab_size
        if num_tokens > self.num_dimensions:
            raise ValueError(
                f"the tokenizer has {num_tokens} tokens, the SparseStaticEmbedding weights for {self.num_dimensions} "
                "of them; after new tokens call its resize_token_embeddings(len(tokenizer))"
            )

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        *,
        new_weight: float | None = None,
    ) -> nn.Parameter:
        """Add weights to the end, or cut some off.

        The parameter stays the same object; an optimizer must be made afterwards, and indexes built again.

        Args:
            new_num_tokens: How many tokens; None keeps them.
            pad_to_multiple_of: Round up to a multiple of it, as the embeddings of a model on another route are.
            new_weight: Of each new term; None stands for the mean of the old ones. Where weights are inverse document
                frequencies, that of a new term is log(number of documents / documents with it).

        Returns:
            The weights, (V,).

        Raises:
            ValueError: If a number is out of range, there are fewer than tokens, or the weights are not here as a
                whole.
        """
        rows = rows_wanted(self.num_dimensions, new_num_tokens, pad_to_multiple_of)
        if rows < self.tokenizer.vocab_size:
            raise ValueError(f"new_num_tokens must be at least {self.tokenizer.vocab_size}, the tokens, got {rows}")
        if new_weight is not None and not abs(new_weight) <= MAX_WEIGHT:
            raise ValueError(f"new_weight must be a finite number, got {new_weight}")
        check_resizable(self.weight)

        def new_weights(old: Tensor, added: int) -> Tensor:
            value = old.float().mean() if new_weight is None else torch.tensor(new_weight, device=old.device)
            return value.to(old.dtype).expand(added)

        set_rows(self.weight, rows, new_weights)
        return self.weight

    def tokenize_batch(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> TokenBatch:
        """Tokenise and truncate texts, without special tokens."""
        self.check_vocabulary()
        return tokenize(self.tokenizer, texts, prompt=prompt, max_length=max_length, add_special_tokens=False)

    def preprocess(
        self,
        inputs: str | Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """Turn texts into ``input_ids`` and ``attention_mask``, (B, T), padded to the longest."""
        self.check_vocabulary()
        tokens = tokenize(self.tokenizer, inputs, prompt=prompt, max_length=max_length, add_special_tokens=False)
        return tokens.pad()

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Look up the weights of a batch.

        Args:
            features: ``input_ids`` and ``attention_mask``, (B, T).

        Returns:
            The features with ``sentence_embedding``, (B, V), in float32 for 16-bit weights.

        Raises:
            ValueError: If the tokenizer has more tokens than there are weights.
        """
        self.check_vocabulary()
        input_ids: Tensor = features["input_ids"]
        attended = features["attention_mask"].bool()
        presence = torch.zeros(input_ids.shape[0], self.num_dimensions, dtype=torch.int64, device=input_ids.device)
        presence.scatter_reduce_(1, input_ids, attended.long(), "amax")  # padding never hides a token
        weights = presence * self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        if "sentence_embedding" in features:
            weights = weights * features["sentence_embedding"]
        return Features({**features, "sentence_embedding": weights})

    def get_embedding_dimension(self) -> int | None:
        """Return the number of terms V."""
        return self.num_dimensions

    def save(self, folder: str | Path) -> None:
        """Write configuration, tokenizer and weights.

        Raises:
            ValueError: If the tokenizer has more tokens than there are weights.
        """
        self.check_vocabulary()
        super().save(folder)
        self.tokenizer.save_pretrained(folder)
        write_tensors(Path(folder), {"weight": self.weight})

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a module from its folder, strictly.

        A configuration may name a JSON file of weights as ``path``; it is looked for in the module's folder, then in
        the model's. A folder that the module shares with others has no configuration of its own, but an ``idf.json``.
        """
        folder, settings = Path(folder), settings or LoadSettings()
        tokenizer = Tokenizer.from_pretrained(folder)
        if settings.shared_folder:
            return cls(tokenizer, read_weights(resolve_inside(folder, WEIGHTS_FILE), tokenizer))
        config = cls.load_config(folder)
        if "path" in config:
            weight = read_weights(find_term_weights(config.pop("path"), folder, settings.root or folder), tokenizer)
        else:
            tensors = read_tensors(folder)
            if list(tensors) != ["weight"] or not tensors["weight"].is_floating_point():
                found = {name: tensor.dtype for name, tensor in list(tensors.items())[:10]}
                raise CheckpointError(f"must have one tensor, 'weight', of floating point; got {found}", path=folder)
            weight = tensors["weight"]
        return cls.from_config(config, folder, parts={"tokenizer": tokenizer, "weight": weight})


def read_weights(path: Path, tokenizer: Tokenizer) -> Tensor:
    """Read the weight of each term from a JSON file ``{term: weight}``; as :func:`read_term_weights`, a tensor."""
    return torch.from_numpy(read_term_weights(path, tokenizer))
