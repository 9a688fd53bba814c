"""What scripts do with a model besides encoding: save it, put it in evaluation mode, tokenise, look into embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.serving.arguments import ModelArguments
from sparse_encoder.serving.looking import as_rows, intersection_of
from sparse_encoder.serving.options import same_device

if TYPE_CHECKING:
    from typing_extensions import Self

    from sparse_encoder.serving.workers import ServedPool
    from sparse_encoder.tokenizer import Tokenizer

_WITH_TORCH = "what works on the modules of a model is there with backend='torch'"
_INSTEAD = {
    "half": "SparseEncoder(folder).export_onnx(folder, dtype='float16') writes a graph in 16 bits",
}
"""What to do instead of what a torch model is asked for."""


class Recipe(NamedTuple):
    """How a model is opened again."""

    kind: type
    arguments: ModelArguments
    state: dict[str, object]
    """What can be set."""
    lengths: Mapping[str | None, int]
    """The number of tokens at which each route cuts texts."""
    graphs: Path | None = None
    """Where the graphs are that were made for it, as long as they are there."""

    def open(self) -> Any:  # noqa: ANN401 - a model of the kind
        """Open it."""
        model = self.kind(self.arguments, self.graphs if self.graphs is not None and self.graphs.is_dir() else None)
        for name, value in self.state.items():
            if getattr(model, name) != value:
                setattr(model, name, value)
        for route, length in self.lengths.items():
            model.routes[route].tokenizer.model_max_length = length
        return model


class ModelHabits:
    """Methods of a torch model that have a meaning without torch; others are refused with what to do instead.

    What they need of the model is the model's: ``folder``, ``graph_root``, ``arguments``, ``device`` and its routes.
    """

    def save_pretrained(
        self,
        path: str,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the model to a folder, whole or not at all: its files, the graphs that it runs, and its settings.

        Lengths set after the model was opened, and ``processor_kwargs``, are not written.

        Args:
            path: The folder; ``~`` at its beginning is the home folder.
            model_name: Hub id for the README, if that names none.
            create_model_card: Whether the README comes along.
            train_datasets: Must be empty: the README is that of the model's folder.
            safe_serialization: Must stay true: weights are copied as they are.

        Raises:
            ValueError: If the last two are anything else, or the file of a graph is gone.
        """
        _check_saved_as_it_is(train_datasets, safe_serialization)
        from sparse_encoder.serving.saving import save_served

        model: Any = self
        save_served(model, Path(path).expanduser(), with_card=create_model_card, model_name=model_name)

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
        """Upload what :meth:`save_pretrained` writes, and return the address of the commit, or of the pull request.

        Args are those of :class:`Upload` and :meth:`save_pretrained`; ``local_model_path`` is a saved model to upload
        instead of this one. A README that is in the repository stays unless ``replace_model_card``.

        Raises:
            ValueError: As :meth:`save_pretrained`, or if ``local_model_path`` is no folder with a model.
        """
        _check_saved_as_it_is(train_datasets, safe_serialization)
        from sparse_encoder.publishing import Upload, upload
        from sparse_encoder.serving.publishing import MESSAGE

        target = Upload(
            repo_id=repo_id,
            token=token,
            private=private,
            commit_message=commit_message or MESSAGE,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            revision=revision,
            create_pr=create_pr,
            architecture=f"{type(self).__name__}({', '.join(map(str, self.providers))})",
            backend="onnx",
        )

        def save(folder: Path, repository: str, with_card: bool) -> None:
            self.save_pretrained(str(folder), repository, with_card, train_datasets, safe_serialization)

        return upload(target, save=save, folder=None if local_model_path is None else Path(local_model_path))

    save_to_hub = push_to_hub  # its older name

    def start_multi_process_pool(self, target_devices: Sequence[object] | None = None) -> ServedPool:
        """Start worker processes, each with a session of this model as it is now.

        Args:
            target_devices: One device per worker, ``"cpu"`` or ``"cuda:1"``; by default that of the model if it is a
                GPU, else four times the CPU, whose cores they share.

        Returns:
            The workers, for ``pool=`` of the encode methods.

        Raises:
            ValueError: If there are no devices, onnxruntime has not one of them, or the model has ``session_options``.
        """
        from sparse_encoder.serving.workers import ServedPool, default_devices

        model: Any = self
        return ServedPool(model, default_devices(model) if target_devices is None else list(map(str, target_devices)))

    @staticmethod
    def stop_multi_process_pool(pool: ServedPool) -> None:
        """End the worker processes."""
        pool.stop()

    def eval(self) -> Self:
        """Return the model, which computes for evaluation only."""
        return self

    def to(self, device: object) -> Self:
        """Return the model, if it is there already.

        Raises:
            ValueError: If it is elsewhere: a graph stays where it was opened.
        """
        if not same_device(device, self.device):
            raise ValueError(
                f"the model is on {self.device!r} and stays there; give device={device!r} to SparseEncoder"
            )
        return self

    def cpu(self) -> Self:
        """Do what :meth:`to` does with the CPU."""
        return self.to("cpu")

    @property
    def processor(self) -> Tokenizer:
        """The tokenizer of the first route; texts are the only input."""
        own: Tokenizer = self.tokenizer
        return own

    @property
    def modalities(self) -> list[str]:
        """The kinds of input: texts."""
        return ["text"]

    def supports(self, modality: str) -> bool:
        """Say whether inputs of a kind can be encoded."""
        return modality in self.modalities

    def __repr__(self) -> str:
        """Tell the folder, and what runs the graphs."""
        return f"{type(self).__name__}({str(self.folder)!r}, providers={self.providers})"

    def preprocess(
        self, inputs: str | Sequence[str], prompt: str | None = None, task: str | None = None
    ) -> dict[str, NDArray[Any]]:
        """Turn texts into what the graph takes, (B, T) each, padded to the longest; Any: integers.

        Args:
            inputs: B texts, or a single text.
            prompt: What to put before each of them.
            task: The route.
        """
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        tokens = self.route(task).tokenize(texts, prompt=prompt or "", task=task, max_length=None)
        return dict(tokens.pad_arrays(range(len(texts)), int(max(tokens.lengths, default=0))))

    def tokenize(self, texts: Sequence[str], task: str | None = None) -> dict[str, NDArray[Any]]:
        """Do what :meth:`preprocess` does, which is its name now; Any: integers."""
        return self.preprocess(texts, task=task)

    @staticmethod
    def intersection(
        embeddings_1: Any,  # noqa: ANN401 - as SparseEncoder.intersection
        embeddings_2: Any,  # noqa: ANN401 - likewise
    ) -> ArrayEmbeddings:
        """Multiply one embedding with one or several, entry by entry, and keep what is above 0.

        Args:
            embeddings_1: One embedding, (V,).
            embeddings_2: One embedding (V,), or several, (N, V).

        Raises:
            ValueError: If the first is not one embedding or the widths differ.
        """
        return intersection_of(as_rows(embeddings_1), as_rows(embeddings_2))

    def recipe(self) -> Recipe:
        """Return how the model was opened, and what was set since, for other processes, which open the same files."""
        state = {name: getattr(self, name) for name in ("prompts", "default_prompt_name", "max_active_dims")}
        lengths = {name: route.max_seq_length for name, route in self.routes.items()}
        graphs = None if self.graph_root == self.folder else self.graph_root
        return Recipe(
            type(self), self.arguments, {**state, "similarity_fn_name": self.similarity_fn_name}, lengths, graphs
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the recipe."""
        return Recipe.open, (self.recipe(),)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - nothing: it raises
        """Say where what is missing may be found.

        Raises:
            AttributeError: Always.
        """
        told = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_"):
            told += f"; {_INSTEAD.get(name, _WITH_TORCH)}"
        raise AttributeError(told)


def _check_saved_as_it_is(train_datasets: Sequence[str] | None, safe_serialization: bool) -> None:
    if train_datasets or not safe_serialization:
        wrong = "train_datasets" if train_datasets else "safe_serialization=False"
        raise ValueError(f"{wrong} is for backend='torch'; a served model is saved as it is in its folder")
