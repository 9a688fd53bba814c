"""OnnxSparseEncoder: texts in, sparse embeddings out, computed by onnxruntime. It does not import torch.

Axes: N texts, V terms.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import finalize

from sparse_encoder.checkpoint import fetch_model_folder
from sparse_encoder.comparing import ComparingModel
from sparse_encoder.encoding.inputs import check_positive, is_singular_input, max_length_of_call, read_inputs
from sparse_encoder.encoding.progress import progress
from sparse_encoder.encoding.prompts import (
    check_default_prompt_name,
    document_prompt_name,
    merge_prompts,
    query_prompt_name,
    resolve_prompt,
)
from sparse_encoder.front import SparseEncoder
from sparse_encoder.renamed import renamed_argument
from sparse_encoder.serving.arguments import ModelArguments, ServedCall
from sparse_encoder.serving.fingerprint import fingerprint_of
from sparse_encoder.serving.folder import read_folder
from sparse_encoder.serving.habits import ModelHabits
from sparse_encoder.serving.looking import decode_rows, sparsity_of
from sparse_encoder.serving.opening import open_graphs
from sparse_encoder.serving.options import read_options
from sparse_encoder.serving.places import EncodePlace, encode_at
from sparse_encoder.serving.routes import ServedRoute, serve_routes
from sparse_encoder.serving.similarity import Rows, compare_all, compare_pairs, in_kind
from sparse_encoder.settings import ModelSettings, read_settings
from sparse_encoder.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class OnnxSparseEncoder(ComparingModel, ModelHabits):
    """Encode texts with a graph instead of a torch model; ``SparseEncoder(folder, backend="onnx")`` makes one.

    It answers as :class:`SparseEncoder` does wherever no torch is needed: ``similarity`` returns numpy arrays, and
    embeddings are :class:`ArrayEmbeddings`, which become torch tensors when they are asked to. It has no modules
    and is not trained. A pickle of it opens the same files again.

    Args:
        arguments: Those of ``SparseEncoder``.
        graphs: A folder with graphs that were exported for another model of the same arguments, in ``onnx/``.

    Raises:
        ValueError: If an argument cannot hold for this backend; names it.
        LoadError: If the folder's files are not what they claim to be.
        FileNotFoundError: If there is no model, or no graph and none may be made.
        ImportError: If onnxruntime is not installed.
    """

    def __init__(self, arguments: ModelArguments, graphs: Path | None = None) -> None:
        options = read_options(arguments.model_kwargs)
        folder = fetch_model_folder(
            arguments.name,
            cache_folder=arguments.cache_folder,
            revision=arguments.revision,
            token=arguments.token,
            local_files_only=arguments.local_files_only,
            graphs=True,
        )
        has_settings = (folder / "modules.json").exists()
        settings = read_settings(folder) if has_settings else ModelSettings()
        self.folder, self.arguments = folder, arguments
        self._plan = read_folder(folder, arguments.processor_kwargs)
        opened = open_graphs(folder, self._plan, options, arguments.device, graphs)
        self.graph_root, self._device_number = opened.root, opened.device_number
        if opened.is_made:
            finalize(self, shutil.rmtree, opened.root, ignore_errors=True)
        self._routes = serve_routes(folder, self._plan, opened.sessions)
        self.prompts = merge_prompts(arguments.prompts, settings.prompts)
        self.default_prompt_name = arguments.default_prompt_name or settings.default_prompt_name
        check_default_prompt_name(self.default_prompt_name, self.prompts)
        self.similarity_fn_name = arguments.similarity_fn_name or settings.similarity_fn_name
        self.max_active_dims = arguments.max_active_dims or settings.max_active_dims

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
        device: object = None,
        max_active_dims: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - ArrayEmbeddings, or what torch makes of them
        """Encode texts; arguments are those of :meth:`SparseEncoder.encode`.

        Weights are float32, in main memory (so ``save_to_cpu`` holds anyway). A text's weights are the same whatever
        else is encoded with it, in float32 and in the 8 bits of :func:`quantize_onnx`. A CPU is given fewer texts than
        ``batch_size`` at a time where they have more than 1,024 tokens together.

        Returns:
            :class:`ArrayEmbeddings`, (N, V), in the order of the texts, or (V,) for one text; ``convert_to_tensor``
            and ``convert_to_sparse_tensor=False`` import torch and give tensors.

        Raises:
            TypeError: If an input is no string; names its position.
            ValueError: If an argument is out of range, or cannot hold for this backend, or weights are not finite.
        """
        checked = read_inputs(inputs, task=task, with_tasks=self._plan.has_routes)
        call = ServedCall(
            batch_size=batch_size,
            prompt=resolve_prompt(
                self.prompts, prompt=prompt, prompt_name=prompt_name, default_prompt_name=self.default_prompt_name
            ),
            task=checked.task,
            max_length=max_length_of_call(processing_kwargs or {}),
            max_active_dims=self.max_active_dims if max_active_dims is None else max_active_dims,
            as_tensor=convert_to_tensor,
            as_sparse=convert_to_sparse_tensor,
        )
        place = EncodePlace.of(self, device=device, pool=pool, chunk_size=chunk_size)
        with progress(len(checked.texts), show_progress_bar) as on_done:
            rows = encode_at(self, place, checked.texts, call, on_done)
        return call.present(rows, single=checked.single)

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
        device: object = None,
        max_active_dims: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        *,
        task: str | None = "query",
        processing_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as encode
        """Encode queries: :meth:`encode` with the task and the prompt ``"query"``; an empty prompt stays empty."""
        if prompt is None and prompt_name is None:
            prompt_name = query_prompt_name(self.prompts)
        return self.encode(
            inputs,
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
            task=task,
            processing_kwargs=processing_kwargs,
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
        device: object = None,
        max_active_dims: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        *,
        task: str | None = "document",
        processing_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as encode
        """Encode documents: :meth:`encode` with the task ``"document"`` and the documents' prompt."""
        if prompt is None and prompt_name is None:
            prompt_name = document_prompt_name(self.prompts)
        return self.encode(
            inputs,
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
            task=task,
            processing_kwargs=processing_kwargs,
        )

    @property
    def routes(self) -> Mapping[str | None, ServedRoute]:
        """The ways from texts to weights, by name; a model without routes has one, ``None``."""
        return self._routes

    def route(self, task: str | None) -> ServedRoute:
        """Return the way that a task takes.

        Raises:
            ValueError: If there is none.
        """
        return self._routes[self._plan.route(task).name]

    def is_singular_input(self, inputs: object) -> bool:
        """Say whether an input is one text, not a collection of them."""
        return is_singular_input(inputs)

    def similarity(self, embeddings1: Rows, embeddings2: Rows) -> Any:  # noqa: ANN401 - an array, or a tensor
        """Compare all embeddings of one collection with all of another, by :attr:`similarity_fn_name`, (N, M).

        Tensors of torch give a tensor, anything else an array.
        """
        return in_kind(compare_all(self.similarity_fn_name, embeddings1, embeddings2), embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Rows, embeddings2: Rows) -> Any:  # noqa: ANN401 - as similarity
        """Compare each embedding of a collection with the same of another, by :attr:`similarity_fn_name`, (N,)."""
        return in_kind(compare_pairs(self.similarity_fn_name, embeddings1, embeddings2), embeddings1, embeddings2)

    def decode(self, embeddings: Any, top_k: int | None = None) -> Any:  # noqa: ANN401 - as SparseEncoder.decode
        """Name the active terms of embeddings and their weights, the heaviest first; as :meth:`SparseEncoder.decode`.

        Args:
            embeddings: One embedding (V,), or several, (N, V).
            top_k: Most terms of an embedding; ``None`` for all.
        """
        limit = None if top_k is None else check_positive("top_k", top_k)
        return decode_rows(embeddings, self.tokenizer.convert_ids_to_tokens, limit)

    sparsity = staticmethod(sparsity_of)

    @property
    def settings(self) -> ModelSettings:
        """What a saved model remembers; what was not set is not in it."""
        return ModelSettings(
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            similarity_fn_name=self._similarity_fn_name,
            max_active_dims=self.max_active_dims,
        )

    @property
    def max_seq_length(self) -> int | None:
        """The number of tokens at which texts are cut, of the route that allows most; setting it sets all."""
        return max((route.max_seq_length for route in self._routes.values()), default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        """Set it for all routes; ``None`` for as many as there are positions."""
        for route in self._routes.values():
            route.set_max_seq_length(value)

    def get_max_seq_length(self) -> int | None:
        """Return :attr:`max_seq_length`."""
        return self.max_seq_length

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the first route."""
        return next(iter(self._routes.values())).tokenizer

    def get_embedding_dimension(self) -> int:
        """Return V."""
        return next(iter(self._routes.values())).num_dimensions

    def get_sentence_embedding_dimension(self) -> int:
        """Do what :meth:`get_embedding_dimension` does, which is its name now."""
        return self.get_embedding_dimension()

    def get_backend(self) -> str:
        """Return ``"onnx"``."""
        return "onnx"

    @property
    def providers(self) -> list[str]:
        """What runs the graph, the first choice first; empty if no route needs one."""
        graphs = [route.session for route in self._routes.values() if route.session is not None]
        return graphs[0].providers if graphs else []

    @property
    def device(self) -> str:
        """``"cuda"``, or ``"cuda:1"`` if a number was given, where that runs the graph, else ``"cpu"``.

        Embeddings are in main memory either way.
        """
        if self.providers[:1] != ["CUDAExecutionProvider"]:
            return "cpu"
        return "cuda" if self._device_number is None else f"cuda:{self._device_number}"

    @property
    def fingerprint(self) -> str:
        """Hash of the graphs, tokenizers and tables, in hex, for :class:`SparseIndex`.

        It is not that of the torch model: a graph does not say of which weights it is in a way that could be checked
        without computing with both. Where you know it, ``search(queries, fingerprint=index.fingerprint)`` searches an
        index of the torch model's vectors with its graph.
        """
        return fingerprint_of(self._routes)


SparseEncoder.register(OnnxSparseEncoder)  # for isinstance
