"""The transformer with its tokenizer: texts in, token states or vocabulary logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from sparse_encoder.backbone import MaskedLanguageModel, PretrainedModel
from sparse_encoder.backbone.masks import places_behind_padding
from sparse_encoder.checkpoint import write_json
from sparse_encoder.modules.base import InputModule, LoadSettings, checked_integer
from sparse_encoder.modules.config_view import ConfigView
from sparse_encoder.modules.decoders import (
    BIDIRECTIONAL,
    CAUSAL_KEY,
    check_task,
    direction_to_save,
    written_for_peer,
)
from sparse_encoder.modules.features import PROJECTION, TOKEN_EMBEDDINGS, Features, VocabularyProjection
from sparse_encoder.modules.text_inputs import tokenize
from sparse_encoder.modules.transformer_files import (
    cache_dir_of_hub,
    check_outputs,
    modality_config,
    open_backbone,
    open_tokenizer,
    read_transformer_config,
    with_plain_dtype,
)
from sparse_encoder.modules.vocabulary import check_vocabulary
from sparse_encoder.renamed import older_arguments, renamed_argument
from sparse_encoder.tokenizer import TokenBatch, Tokenizer
from sparse_encoder.tokenizer_options import (
    CONFIG_FILES,
    TextOptions,
    pad_with_any,
    read_from_peer,
    text_options,
    warn_of_remote_code,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class Transformer(InputModule):
    """Encode texts token by token.

    For ``"fill-mask"`` the output is a projection on the vocabulary that is not computed yet: ``SpladePooling`` takes
    it, and ``features["token_embeddings"]`` computes the logits. For ``"feature-extraction"`` it is the last states.

    The backbone may be a decoder (GPT-2, Llama, Mistral, Qwen), whose head scores the next token; sentence-transformers
    knows ``"fill-mask"`` of encoders only. It loads what is saved here as ``"text-generation"``, which is taken too.
    With ``bidirectional`` among ``model_kwargs`` each token sees those behind it as well, from then on: it is saved as
    ``is_causal`` in ``config.json``, or with an adapter in ``adapter_config.json`` (``auto_mapping``), so that the base
    need not be saved again. Of such an adapter sentence-transformers 6.2 can learn the direction only from the base's
    ``config.json``, and refuses the folder if the base has the other: for it, save the bidirectional model once, and
    add the adapter to what was saved. A tokenizer without a padding token pads with its end token, which is masked.

    sentence-transformers 6.2 counts places from the padding on the left. Where they are learned (GPT-2), its vectors of
    a batch of unequal texts differ from those of the texts alone, which are the ones here for every batch.

    Args:
        model_name_or_path: A folder, or a repository on the hub.
        transformer_task: ``"feature-extraction"`` or ``"fill-mask"``.
        model_kwargs: Options of :meth:`MaskedLanguageModel.from_pretrained`: ``dtype``, ``attn_implementation``,
            ``variant``, a ``device_map`` of one device, and others; ``bidirectional`` of a decoder; for the hub
            ``cache_dir``, ``revision``, ``token`` and ``local_files_only``; ``base_model`` for the base of an adapter
            whose file names a folder outside its own, or another base.
        processor_kwargs: ``model_max_length``, ``padding_side``, ``truncation_side``, special tokens by their names, or
            ``add_bos_token`` and ``add_eos_token``: whether texts begin and end with those.
        config_kwargs: Values that replace those of ``config.json``.
        processing_kwargs: ``{"text": {...}}`` (or ``"common"``) with ``max_length`` or ``add_special_tokens``, which
            then hold for each call.
        backend: ``"torch"``.
        modality_config: How inputs become outputs, as saved; only that of texts is known.
        module_output_name: Name of the output, as saved: ``"token_embeddings"``.
        unpad_inputs: Written down for sentence-transformers. Here batches hold texts of one padded length anyway.
        query_length: Most tokens of a text when the task is ``"query"``.
        document_length: Most tokens of a text when the task is ``"document"``.
        max_seq_length: Most tokens of a text.
        do_lower_case: Lower-case texts, whether or not the tokenizer does.
        tokenizer_name_or_path: Folder or repository of the tokenizer, if it is another.

    Raises:
        ValueError: If an option is unknown or out of range.
        LoadError: If a file is not what it claims to be.
    """

    config_file_name: ClassVar[str] = CONFIG_FILES[0]
    config_keys: ClassVar[tuple[str, ...]] = (
        "transformer_task",
        "modality_config",
        "module_output_name",
        "processing_kwargs",
        "unpad_inputs",
        "query_length",
        "document_length",
    )
    default_task: ClassVar[str] = "feature-extraction"
    origin: tuple[str, str] | None = None
    """The repository of the hub that the backbone came from, and its commit."""

    @renamed_argument("model_args", "model_kwargs")
    @renamed_argument("tokenizer_args", "processor_kwargs")
    @renamed_argument("config_args", "config_kwargs")
    @older_arguments(cache_dir_of_hub)
    def __init__(  # house: peer signature
        self,
        model_name_or_path: str | Path,
        *,
        transformer_task: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
        backend: str = "torch",
        modality_config: Mapping[str, Any] | None = None,
        module_output_name: str | None = None,
        unpad_inputs: bool | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        tokenizer_name_or_path: str | Path | None = None,
    ) -> None:
        super().__init__()
        asked = transformer_task or self.default_task
        task, processing_kwargs = read_from_peer(asked, processing_kwargs)
        if backend != "torch":
            raise ValueError(f"unknown backend {backend!r}; choose from ['torch']")
        check_outputs(task, modality_config, module_output_name)
        if tokenizer_name_or_path is None:
            tokenizer_name_or_path = model_name_or_path
        warn_of_remote_code(model_kwargs, processor_kwargs, config_kwargs)
        model, commit = open_backbone(
            model_name_or_path, task, model_kwargs=model_kwargs or {}, config_kwargs=config_kwargs or {}
        )
        check_task(asked, model)
        if commit is not None:
            self.origin = (str(model_name_or_path), commit)
        tokenizer = open_tokenizer(
            tokenizer_name_or_path,
            model.config,
            processor_kwargs=processor_kwargs or {},
            hub_kwargs=model_kwargs or {},
            max_seq_length=max_seq_length,
            do_lower_case=do_lower_case,
        )
        self._assemble(model, tokenizer, processing_kwargs, query_length, document_length)
        self.unpad_inputs = unpad_inputs

    @classmethod
    def from_parts(
        cls,
        model: PretrainedModel,
        tokenizer: Tokenizer,
        *,
        processing_kwargs: Mapping[str, Any] | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
    ) -> Self:
        """Build a module from a backbone and a tokenizer that are there already.

        Args:
            model: A :class:`MaskedLanguageModel` makes the task ``"fill-mask"``, an :class:`EncoderModel`
                ``"feature-extraction"``.
            tokenizer: Its longest text is cut to what the backbone takes.
            processing_kwargs: As in the constructor.
            query_length: As in the constructor.
            document_length: As in the constructor.

        Raises:
            ValueError: If the tokenizer has more tokens than the backbone has embeddings.
        """
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module._assemble(model, tokenizer, processing_kwargs, query_length, document_length)
        module.unpad_inputs = None
        return module

    def _assemble(
        self,
        model: PretrainedModel,
        tokenizer: Tokenizer,
        processing_kwargs: Mapping[str, Any] | None,
        query_length: int | None,
        document_length: int | None,
    ) -> None:
        """Take the parts and check that they fit."""
        tokenizer = Tokenizer.of(tokenizer)
        check_vocabulary(tokenizer, model)
        for name, length in (("query_length", query_length), ("document_length", document_length)):
            if length is not None:
                checked_integer(name, length)
        pad_with_any(tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self._is_decoder = model.family.is_decoder
        self.processing_kwargs: dict[str, Any] = dict(processing_kwargs or {})
        self._text_options: TextOptions = text_options(self.processing_kwargs)
        self.query_length = query_length
        self.document_length = document_length
        tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_tokens)

    @property
    def transformer_task(self) -> str:
        """``"fill-mask"`` or ``"feature-extraction"``."""
        return "fill-mask" if isinstance(self.model, MaskedLanguageModel) else "feature-extraction"

    @property
    def bidirectional(self) -> bool:
        """Whether each token sees those behind it too: true of encoders, and of decoders that are told to."""
        return not self.model.config.causal

    @property
    def modality_config(self) -> dict[str, Any]:
        """How sentence-transformers turns inputs into outputs of this task."""
        return modality_config(self.transformer_task)

    @property
    def module_output_name(self) -> str:
        """The feature that is made."""
        return TOKEN_EMBEDDINGS

    @property
    def auto_model(self) -> PretrainedModel:
        """The backbone with its head."""
        return self.model

    @property
    def config(self) -> ConfigView:
        """The backbone's configuration as its ``config.json`` holds it, by key or by attribute."""
        return ConfigView(self.model.hf_config)

    @property
    def max_seq_length(self) -> int:
        """The number of tokens, special ones included, at which texts are cut."""
        limit: int = self.tokenizer.model_max_length
        return limit

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        limit = self.model.config.max_tokens
        if value is not None and checked_integer("max_seq_length", value) > limit:
            raise ValueError(f"max_seq_length must be at most {limit}, the positions of the model, got {value}")
        self.tokenizer.model_max_length = limit if value is None else value

    def check_vocabulary(self) -> None:
        """Check that the backbone has an embedding for every token.

        Raises:
            ValueError: If it has too few.
        """
        check_vocabulary(self.tokenizer, self.model)

    def longest_text(self, task: str | None = None, max_length: int | None = None) -> int:
        """Return where texts of a task are cut: ``max_length`` or the task's, if no option of this module says it."""
        of_task = {"query": self.query_length, "document": self.document_length}.get(task or "")
        asked = (self._text_options.max_length, max_length, of_task, self.max_seq_length)
        return min(next(length for length in asked if length is not None), self.max_seq_length)

    def _tokenize(self, inputs: str | Sequence[Any], prompt: str | None, max_length: int) -> TokenBatch:
        self.check_vocabulary()
        special = self._text_options.add_special_tokens
        return tokenize(self.tokenizer, inputs, prompt=prompt, max_length=max_length, add_special_tokens=special)

    def tokenize_batch(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> TokenBatch:
        """Tokenise and truncate texts; they are padded later, those of like length together.

        Args:
            texts: The texts.
            prompt: Put before each.
            task: ``"query"`` or ``"document"`` cut to ``query_length`` or ``document_length``.
            max_length: Most tokens of a text, whatever the task and the options of this module.
        """
        return self._tokenize(texts, prompt, self.longest_text(task) if max_length is None else max_length)

    def preprocess(
        self,
        inputs: str | Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """Turn texts, or pairs of them, into the features of a batch, padded to the longest.

        Args:
            inputs: B texts, or pairs of texts; or a single text.
            prompt: Put before each.
            task: ``"query"`` or ``"document"`` cut to ``query_length`` or ``document_length``.
            max_length: Most tokens of a text, whatever the task, if no option of this module says it.

        Returns:
            ``input_ids``, ``attention_mask`` and, if the tokenizer has them, ``token_type_ids``, (B, T) int64 each;
            and ``prompt_length``, (B,), if there is a prompt.
        """
        return self._tokenize(inputs, prompt, self.longest_text(task, max_length)).pad()

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Run the backbone.

        Args:
            features: As :meth:`preprocess` makes them.

        Returns:
            The features with ``token_embeddings`` (B, T, D), or with ``vocabulary_projection``.
        """
        types = features.get("token_type_ids") if self.model.config.num_token_types else None
        mask: Tensor = features["attention_mask"]
        left = self._is_decoder and self.tokenizer.padding_side == "left"
        places = places_behind_padding(mask) if left else None
        hidden: Tensor = self.model.backbone(features["input_ids"], mask, types, places)
        return self.outputs_of(hidden, features)

    def outputs_of(self, hidden: Tensor, features: dict[str, Any]) -> dict[str, Any]:
        """Turn states of the backbone into this module's output, as :meth:`forward` does.

        So a backbone that has run for something else, for a tagger on top of it, need not run again.

        Args:
            hidden: States of the last layer, (B, T, D).
            features: What they were computed from.

        Returns:
            As :meth:`forward`.
        """
        if not isinstance(self.model, MaskedLanguageModel):
            return Features({**features, TOKEN_EMBEDDINGS: hidden})
        projection = VocabularyProjection(*self.model.head.factors(hidden))
        return Features({**features, PROJECTION: projection})

    def get_embedding_dimension(self) -> int | None:
        """Return the width of ``token_embeddings``: the vocabulary's size for ``"fill-mask"``.

        sentence-transformers 6.2 returns the hidden size for both tasks.
        """
        config = self.model.config
        return config.vocab_size if self.transformer_task == "fill-mask" else config.hidden_size

    def get_config_dict(self) -> dict[str, Any]:
        """Return the configuration as sentence-transformers spells it; what is not set is left out."""
        config = super().get_config_dict()
        if self._is_decoder and self.transformer_task == "fill-mask":
            config = written_for_peer(config)
        config |= direction_to_save(self.model)
        always = ("transformer_task", "modality_config", "module_output_name")
        return {key: value for key, value in config.items() if key in always or value not in (None, {})}

    def save(self, folder: str | Path) -> None:
        """Write backbone, tokenizer and configuration, so that transformers and sentence-transformers load them.

        Raises:
            ValueError: If the tokenizer has more tokens than the backbone has embeddings.
        """
        self.check_vocabulary()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_json(Path(folder) / self.config_file_name, self.get_config_dict(), indent=4)

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a module from its folder.

        Args:
            folder: The folder, with the configuration of any generation, or none.
            settings: What the caller adds; it wins over the files.
        """
        settings = settings or LoadSettings()
        config = read_transformer_config(Path(folder), cls.config_keys, default_task=cls.default_task)
        if CAUSAL_KEY in settings.config_kwargs:  # the caller says it in other words
            config.get("model_kwargs", {}).pop(BIDIRECTIONAL, None)
        for name in ("model_kwargs", "processor_kwargs", "config_kwargs"):
            config[name] = {**with_plain_dtype(config.get(name, {})), **with_plain_dtype(getattr(settings, name))}
        return cls(folder, **config)


class MLMTransformer(Transformer):
    """A ``Transformer`` for ``"fill-mask"``, by the name that scripts of 5.0 to 5.3 have for it.

    It is saved as a ``Transformer``.
    """

    default_task: ClassVar[str] = "fill-mask"
