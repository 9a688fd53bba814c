"""SparseEncoder: texts in, sparse embeddings out; load and save.

It knows nothing of training. What it does is done elsewhere: :mod:`sparse_encoder.encoding` encodes,
:mod:`sparse_encoder.loading` opens folders, :mod:`sparse_encoder.similarity` compares.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.checkpoint import staged_folder, write_text
from sparse_encoder.comparing import ComparingModel
from sparse_encoder.encoding.call import EncodeCall, Encoded, run_call
from sparse_encoder.encoding.encode import EncodeSettings
from sparse_encoder.encoding.inputs import check_positive, lengths_of_call, read_inputs
from sparse_encoder.encoding.prompts import (
    check_default_prompt_name,
    document_prompt_name,
    merge_prompts,
    query_prompt_name,
    resolve_prompt,
)
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.encoding.workers import WorkerPool, default_devices
from sparse_encoder.front import Filling
from sparse_encoder.loading import Download, ModuleOptions, auto_encoder_k, open_model, place_modules
from sparse_encoder.model_card import SparseEncoderModelCardData, card_text
from sparse_encoder.modules import Router
from sparse_encoder.modules.pipeline import save_modules
from sparse_encoder.onnx_methods import OnnxMethods
from sparse_encoder.publishing import Upload, upload
from sparse_encoder.renamed import renamed_argument
from sparse_encoder.settings import MODEL_TYPE, ModelSettings, write_settings
from sparse_encoder.similarity import Embeddings, SimilarityFunction

logger = logging.getLogger(__name__)

Device = str | torch.device


class SparseEncoder(OnnxMethods, ModuleSequence, ComparingModel, metaclass=Filling):
    """What :class:`sparse_encoder.front.SparseEncoder` is filled with; its docstring is the one there."""

    model_type = MODEL_TYPE

    @renamed_argument("tokenizer_kwargs", "processor_kwargs")
    def __init__(  # house: peer signature
        self,
        model_name_or_path: str | None = None,
        *,
        modules: Sequence[nn.Module] | None = None,
        device: Device | None = None,
        prompts: Mapping[str, str | None] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: SparseEncoderModelCardData | None = None,
        backend: str = "torch",
        similarity_fn_name: str | SimilarityFunction | None = None,
        max_active_dims: int | None = None,
    ) -> None:
        if backend != "torch":
            raise ValueError(
                f"unknown backend {backend!r} for {type(self).__name__}; SparseEncoder itself has 'onnx' too"
            )
        if trust_remote_code:
            logger.warning("trust_remote_code is ignored: code that comes with a model is never run")
        if max_active_dims is not None:
            max_active_dims = check_positive("max_active_dims", max_active_dims)
        if similarity_fn_name is not None:
            similarity_fn_name = SimilarityFunction(similarity_fn_name)
        loaded = open_model(
            None if model_name_or_path is None else str(model_name_or_path),
            modules,
            Download(cache_folder, revision, token, local_files_only),
            ModuleOptions(model_kwargs or {}, processor_kwargs or {}, config_kwargs or {}),
        )
        super().__init__(loaded.modules)
        self.prompts = merge_prompts(prompts, loaded.settings.prompts)
        self.default_prompt_name = default_prompt_name or loaded.settings.default_prompt_name
        check_default_prompt_name(self.default_prompt_name, self.prompts)
        self.similarity_fn_name = similarity_fn_name or loaded.settings.similarity_fn_name
        self.max_active_dims = max_active_dims or loaded.settings.max_active_dims or auto_encoder_k(self)
        self.model_card_data = model_card_data or SparseEncoderModelCardData()
        if loaded.commit is not None:
            self.model_card_data.set_base_model(str(model_name_or_path), loaded.commit)
        self._readme = loaded.readme
        place_modules(self, device, model_kwargs or {})
        self.model_card_data.register_model(self)

    @renamed_argument("sentences", "inputs")
    def encode(  # house: peer signature
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool | None = None,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Device | Sequence[Device] | None = None,
        max_active_dims: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401  (options of modules, checked against get_model_kwargs)
    ) -> Encoded:
        """Encode texts.

        Weights are float32 whatever the model's dtype is; sentence-transformers returns bfloat16 weights for a
        bfloat16 model. On the CPU in float32 a text's weights are the same to the bit whatever the order of the texts,
        the batch size or the number of threads.

        Args:
            inputs: A text, or texts in a list, tuple, array, series or dataset column. For a model with routes also
                ``{task: text}``, with the same task for all.
            prompt_name: Key of the prompt in ``prompts``; by default ``default_prompt_name``.
            prompt: The prompt itself, put before each text as it is.
            batch_size: Most texts of a forward pass. Batches hold texts of like length, and at most 16,384 tokens.
            show_progress_bar: ``None`` shows it when the logger ``sparse_encoder`` tells INFO or DEBUG.
            convert_to_tensor: ``None`` gives :class:`SparseEmbeddings`, which answers like a torch sparse tensor and
                has rows by slice, list and mask; true a COO tensor, coalesced; false a list of rows.
            convert_to_sparse_tensor: False gives dense tensors.
            save_to_cpu: Move each batch to the CPU at once.
            device: Where to compute; the model stays there. A list starts a worker process for each device.
            max_active_dims: Most entries of an embedding, by absolute value; by default the model's.
            pool: Workers from :meth:`start_multi_process_pool`; results are on the CPU.
            chunk_size: Texts per job of a worker; by default a tenth of its share, at most 5000.
            task: Route of a ``Router``, and whose maximum length: ``"query"`` or ``"document"``.
            processing_kwargs: ``{"text": {"max_length": 64}}`` cuts the texts of this call, and ``"padding":
                "max_length"`` beside it pads them all to that length, for models that are compiled for one shape.
            kwargs: Options of modules, as :meth:`get_model_kwargs` lists them.

        Returns:
            Term weights, (N, V), in the order of the texts, or (V,) for one text.

        Raises:
            TypeError: If an input is no string; names its position.
            ValueError: If an argument is out of range, a keyword is unknown, or weights are not finite.
        """
        if unknown := set(kwargs) - set(self.get_model_kwargs()):
            raise ValueError(f"unknown keywords {sorted(unknown)}; get_model_kwargs() lists {self.get_model_kwargs()}")
        checked = read_inputs(inputs, task=task, with_tasks=isinstance(self.input_module, Router))
        lengths = lengths_of_call(processing_kwargs or {})
        settings = EncodeSettings(
            batch_size=batch_size,
            prompt=resolve_prompt(
                self.prompts, prompt=prompt, prompt_name=prompt_name, default_prompt_name=self.default_prompt_name
            ),
            task=checked.task,
            max_length=lengths.max_length,
            padded_to_max_length=lengths.padded_to_max_length,
            max_active_dims=self.max_active_dims if max_active_dims is None else max_active_dims,
            save_to_cpu=save_to_cpu,
            forward_kwargs=kwargs,
        )
        call = EncodeCall(
            settings=settings,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
            show_progress_bar=show_progress_bar,
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
        )
        return run_call(self, checked, call)

    @renamed_argument("sentences", "inputs")
    def encode_query(  # house: peer signature
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool | None = None,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Device | Sequence[Device] | None = None,
        max_active_dims: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,  # noqa: ANN401  (options of modules, checked by encode)
    ) -> Encoded:
        """Encode queries: :meth:`encode` with the task and the prompt ``"query"``; an empty prompt stays empty."""
        if prompt is None and prompt_name is None:
            prompt_name = query_prompt_name(self.prompts)
        return self.encode(
            inputs=inputs,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            save_to_cpu=save_to_cpu,
            device=device,
            max_active_dims=max_active_dims,
            pool=pool,
            chunk_size=chunk_size,
            **{"task": "query", **kwargs},
        )

    @renamed_argument("sentences", "inputs")
    def encode_document(  # house: peer signature
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool | None = None,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Device | Sequence[Device] | None = None,
        max_active_dims: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,  # noqa: ANN401  (options of modules, checked by encode)
    ) -> Encoded:
        """Encode documents: :meth:`encode` with the task ``"document"`` and the documents' prompt.

        That is the first of the prompts ``document``, ``passage`` and ``corpus`` that is not empty;
        sentence-transformers takes the first that exists, so a saved ``passage`` or ``corpus`` prompt is lost there.
        """
        if prompt is None and prompt_name is None:
            prompt_name = document_prompt_name(self.prompts)
        return self.encode(
            inputs=inputs,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            save_to_cpu=save_to_cpu,
            device=device,
            max_active_dims=max_active_dims,
            pool=pool,
            chunk_size=chunk_size,
            **{"task": "document", **kwargs},
        )

    def start_multi_process_pool(self, target_devices: Sequence[Device] | None = None) -> WorkerPool:
        """Start worker processes, each with a copy of the model as it is now; this model is not moved.

        Args:
            target_devices: One device per worker; by default all CUDA devices, else NPUs, else four times the CPU.

        Returns:
            The workers, for ``pool=`` of the encode methods.
        """
        devices = default_devices() if target_devices is None else [str(device) for device in target_devices]
        return WorkerPool(self, devices)

    @staticmethod
    def stop_multi_process_pool(pool: WorkerPool) -> None:
        """End the worker processes."""
        pool.stop()

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Compare all embeddings of one collection with all of another, by :attr:`similarity_fn_name`, (N, M)."""
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Compare each embedding of a collection with the same of another, by :attr:`similarity_fn_name`, (N,)."""
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def save_pretrained(
        self,
        path: str,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the model to a folder, whole or not at all; sentence-transformers loads it too.

        Args:
            path: The folder; ``~`` at its beginning is the home folder.
            model_name: Hub id for the README.
            create_model_card: Whether to write a README. One that was loaded is kept, unless the model was trained.
            train_datasets: Names of datasets for the README.
            safe_serialization: Must stay true: weights are written as safetensors only.

        Raises:
            ValueError: If ``safe_serialization`` is false.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization must stay True: weights are written as safetensors only")
        card = self.model_card_data
        card.add_train_datasets(train_datasets or ())
        if model_name is not None and card.model_id is None:
            card.set_model_id(model_name)
        settings = ModelSettings(
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            similarity_fn_name=self._similarity_fn_name,
            max_active_dims=self.max_active_dims,
        )
        with staged_folder(Path(path).expanduser(), replaces_adapters=True) as folder:
            save_modules(list(self), folder)
            write_settings(folder, settings)
            if create_model_card:
                write_text(folder / "README.md", card_text(self, card, self._readme))

    save = save_pretrained  # its older name

    def push_to_hub(  # house: peer signature
        self,
        repo_id: str,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: Sequence[str] | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model to the hub and return the address of the commit, or of the pull request.

        Args are those of :class:`Upload` and :meth:`save_pretrained`; ``local_model_path`` is a saved model to upload
        instead of this one. A README that is in the repository stays unless ``replace_model_card``.
        """
        target = Upload(
            repo_id=repo_id,
            token=token,
            private=private,
            commit_message=commit_message,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            revision=revision,
            create_pr=create_pr,
            architecture=str(self),
        )

        def save(folder: Path, repository: str, with_card: bool) -> None:
            self.save_pretrained(str(folder), repository, with_card, train_datasets, safe_serialization)

        return upload(target, save=save, folder=None if local_model_path is None else Path(local_model_path))

    save_to_hub = push_to_hub  # its older name
