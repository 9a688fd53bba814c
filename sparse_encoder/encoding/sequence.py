"""A row of modules that are called in turn on one dict of features.

It answers for its parts (device, tokenizer, lengths, dimensions) and says what embeddings hold; it knows nothing of
files, prompts or batches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.backbone import PretrainedModel
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding import inspection
from sparse_encoder.encoding.adapter_methods import AdapterMethods
from sparse_encoder.encoding.fingerprint import fingerprint_of
from sparse_encoder.encoding.inputs import is_singular_input
from sparse_encoder.modules import InputModule, Module, Pooling, Router, SpladePooling
from sparse_encoder.modules.base import set_max_seq_length
from sparse_encoder.modules.config_view import ConfigView
from sparse_encoder.modules.own_texts import given_options
from sparse_encoder.modules.vocabulary import follow_vocabulary
from sparse_encoder.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class ModuleSequence(AdapterMethods, nn.Sequential):
    """Call modules in turn on one dict of features; the result is its ``sentence_embedding``.

    Args:
        modules: The modules, the one that reads texts first.

    Raises:
        ValueError: If there are none.
        TypeError: If the first does not read texts.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        if not modules:
            raise ValueError("modules must hold at least one module, for example a Transformer, got none")
        if not isinstance(modules[0], InputModule) or not modules[0].reads_texts:
            hint = "; each of its routes must begin with one that does" if isinstance(modules[0], Router) else ""
            raise TypeError(f"the first module must read texts, a {type(modules[0]).__name__} does not{hint}")
        super().__init__(*modules)

    @property
    def input_module(self) -> InputModule:
        """The first module, which reads texts."""
        first = self[0]
        if not isinstance(first, InputModule):
            raise TypeError(f"the first module must read texts, a {type(first).__name__} does not")
        return first

    def _first_module(self) -> nn.Module:
        """Return the first module, as many scripts ask for it."""
        return self[0]

    def _last_module(self) -> nn.Module:
        """Return the last module, likewise."""
        return self[-1]

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - peer's name
        """Run the modules.

        Args:
            input: Features of B texts, as :meth:`preprocess` makes them.
            kwargs: Options of single modules; each gets those it names in ``forward_kwargs``, a ``Router`` all.

        Returns:
            The features, with ``sentence_embedding``, (B, V).
        """
        for module in self:
            accepted = kwargs if isinstance(module, Router) else _accepted(module, kwargs)
            input = module(input, **accepted)
        return input

    def preprocess(
        self,
        inputs: str | Sequence[Any],  # texts, or whatever else the first module reads
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """Turn texts into the features that :meth:`forward` takes, padded to the longest.

        Args:
            inputs: B texts, or pairs of texts; or a single text.
            prompt: What to put before each of them.
            task: ``"query"``, ``"document"`` or another route of a ``Router``.
            max_length: Most tokens of a text.

        Returns:
            Features by name.
        """
        texts = [inputs] if isinstance(inputs, str) else inputs
        first = self.input_module
        given = given_options(first.preprocess, prompt=prompt, task=task, max_length=max_length)
        return first.preprocess(texts, **given)

    def tokenize(self, texts: Sequence[Any], task: str | None = None) -> dict[str, Any]:
        """Do what :meth:`preprocess` does, which is its name now."""
        return self.preprocess(texts, task=task)

    def is_singular_input(self, inputs: object) -> bool:
        """Say whether an input is one text, not a collection of them."""
        return is_singular_input(inputs)

    def get_model_kwargs(self) -> list[str]:
        """List the options that :meth:`forward` hands to the modules."""
        return sorted({name for module in self.modules() for name in getattr(module, "forward_kwargs", ())})

    def get_backend(self) -> str:
        """Return ``"torch"``, which is what runs the modules."""
        return "torch"

    def get_embedding_dimension(self) -> int | None:
        """Return V, as told by the last module that knows; ``None`` if none does."""
        follow_vocabulary(self)
        for module in reversed(list(self)):
            dim = module.get_embedding_dimension() if isinstance(module, Module) else None
            if dim is not None:
                return dim
        return None

    def get_sentence_embedding_dimension(self) -> int | None:
        """Do what :meth:`get_embedding_dimension` does, which is its name now."""
        return self.get_embedding_dimension()

    def get_max_seq_length(self) -> int | None:
        """Return :attr:`max_seq_length`."""
        return self.max_seq_length

    sparsity = staticmethod(inspection.sparsity)
    intersection = staticmethod(inspection.intersection)

    def decode(
        self, embeddings: Tensor | SparseEmbeddings, top_k: int | None = None
    ) -> inspection.WeightedTerms | list[inspection.WeightedTerms]:
        """Name the active terms of embeddings and their weights, the heaviest first.

        Args:
            embeddings: One embedding (V,), or several, (N, V).
            top_k: Most terms of an embedding; ``None`` for all.

        Returns:
            ``(term, weight)`` pairs: a list for one embedding, a list of lists for several.

        Raises:
            TypeError: If it is neither a tensor nor :class:`SparseEmbeddings`.
            ValueError: If ``top_k`` is not positive, or the first module has no tokenizer.
        """
        if self.input_module.tokenizer is None:
            raise ValueError(
                f"the terms of a {type(self.input_module).__name__} have no names: it has no tokenizer; give it one as "
                "its attribute tokenizer to decode embeddings"
            )
        return inspection.decode(embeddings, self.tokenizer.convert_ids_to_tokens, top_k)

    @property
    def device(self) -> torch.device:
        """The device of the first parameter or buffer, else the CPU."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of the first floating-point parameter, ``None`` if there is none."""
        return next((each.dtype for each in self.parameters() if each.is_floating_point()), None)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the first module; set one of ``transformers``, and :meth:`Tokenizer.of` takes it over."""
        tokenizer: Tokenizer = self.input_module.tokenizer
        return tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Tokenizer) -> None:
        self.input_module.tokenizer = Tokenizer.of(value)

    @property
    def processor(self) -> Tokenizer:
        """The tokenizer; texts are the only input."""
        return self.tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """The number of tokens, special ones included, at which texts are cut; it cannot exceed the model's positions.

        sentence-transformers takes any number and fails at the first text that is longer than the model allows.
        """
        length: int | None = getattr(self.input_module, "max_seq_length", None)
        return length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        set_max_seq_length([self.input_module], value)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors, in hex, for :class:`SparseIndex`: the same after saving and loading.

        It covers the tokenizers, the modules' settings and every byte of the weights; not the prompts, and not the
        lengths at which texts are cut. One model has one fingerprint, for queries and documents alike, also if they
        take different routes of a ``Router``. Each access reads all weights (from the accelerator, if they are there)
        and hashes them, about a second per gigabyte: keep it for many searches.
        """
        return fingerprint_of(self)

    @property
    def transformers_model(self) -> PretrainedModel | None:
        """The first backbone with its head, a module of this library; ``None`` if there is none."""
        return next((module for module in self.modules() if isinstance(module, PretrainedModel)), None)

    @property
    def backbone(self) -> nn.Module | None:
        """The transformer without its head, which a tagger may share (``TokenClassificationModel.from_backbone``)."""
        model = self.transformers_model
        return None if model is None else model.backbone

    @property
    def config(self) -> ConfigView | None:
        """The configuration of :attr:`transformers_model` as its ``config.json`` holds it, by key or by attribute."""
        model = self.transformers_model
        return None if model is None else ConfigView(model.hf_config)

    @property
    def modalities(self) -> list[str]:
        """The kinds of input: texts."""
        return ["text"]

    def supports(self, modality: str) -> bool:
        """Say whether inputs of a kind can be encoded."""
        return modality in self.modalities

    @property
    def splade_pooling_chunk_size(self) -> int | None:
        """The chunk size of the first ``SpladePooling``; ``None`` also if there is none.

        A ``SpladePooling`` inside a ``Router`` is found too; in sentence-transformers it is not. Setting a size where
        there is no ``SpladePooling`` is an error.
        """
        sizes = [module.chunk_size for module in self.modules() if isinstance(module, SpladePooling)]
        if not sizes:
            logger.warning("this model has no SpladePooling, so there is no chunk size")
        return sizes[0] if sizes else None

    @splade_pooling_chunk_size.setter
    def splade_pooling_chunk_size(self, value: int | None) -> None:
        poolings = [module for module in self.modules() if isinstance(module, SpladePooling)]
        if not poolings:
            raise ValueError("this model has no SpladePooling whose chunk size could be set")
        for pooling in poolings:
            pooling.chunk_size = value

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Say whether the tokens of the prompt count in dense pooling; terms of SPLADE models are never left out.

        Args:
            include_prompt: Whether they count.
        """
        for module in self.modules():
            if isinstance(module, Pooling):
                module.include_prompt = include_prompt

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recompute activations in the backward pass, to save memory, in each part that can.

        Args:
            gradient_checkpointing_kwargs: As :meth:`PretrainedModel.activation_checkpointing_enable` takes them;
                ``use_reentrant`` must be false.
            every_n_layers: Recompute only the first of every so many layers.
            offload: Keep what those layers start from in the memory of the host.

        Raises:
            ValueError: If another option is asked for.
        """
        for module in self.modules():
            if isinstance(module, PretrainedModel):
                module.gradient_checkpointing_enable(gradient_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        for module in self.modules():
            if isinstance(module, PretrainedModel):
                module.gradient_checkpointing_disable()

    activation_checkpointing_enable = gradient_checkpointing_enable
    activation_checkpointing_disable = gradient_checkpointing_disable

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any part recomputes its activations."""
        return any(isinstance(each, PretrainedModel) and each.is_gradient_checkpointing for each in self.modules())

    is_activation_checkpointing = is_gradient_checkpointing


def _accepted(module: nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options that a module names."""
    names = getattr(module, "forward_kwargs", ())
    return {name: value for name, value in kwargs.items() if name in names}
