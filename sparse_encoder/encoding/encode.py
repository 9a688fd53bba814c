"""Texts in, CSR rows out: tokens, length buckets, forward passes, original order.

One call sees one device. Prompts are resolved and inputs are checked before; worker processes call this too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.modes import evaluating
from sparse_encoder.csr import NotFiniteError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.inputs import check_positive
from sparse_encoder.encoding.sequence import ModuleSequence
from sparse_encoder.modules import InputModule, Router, Transformer
from sparse_encoder.modules.own_texts import OwnTexts
from sparse_encoder.token_batches import CHUNK_TEXTS, TOKEN_BUDGET, Batch, plan_batches, split_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeSettings:
    """How to encode."""

    batch_size: int = 32
    """Most texts of a forward pass."""
    prompt: str = ""
    """What is put before each text."""
    task: str | None = None
    """Which route of a ``Router``, and whose maximum length."""
    max_length: int | None = None
    """Most tokens of a text in this call; ``None`` for what the model says."""
    padded_to_max_length: bool = False
    """Whether every text is padded to the length at which it would be cut: one shape for compiled models."""
    max_active_dims: int | None = None
    """How many entries of a row are kept, by absolute value; ``None`` for all."""
    save_to_cpu: bool = False
    """Whether rows leave the device batch by batch."""
    forward_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Options of single modules."""

    def __post_init__(self) -> None:
        """Check the numbers; numpy's become Python's."""
        object.__setattr__(self, "batch_size", check_positive("batch_size", self.batch_size))
        if self.max_active_dims is not None:
            object.__setattr__(self, "max_active_dims", check_positive("max_active_dims", self.max_active_dims))


def encode_texts(
    model: ModuleSequence,
    texts: Sequence[str],
    settings: EncodeSettings,
    *,
    on_done: Callable[[int], object] = int,
    first_text: int = 0,
) -> SparseEmbeddings:
    """Encode texts on the device of the model.

    Args:
        model: The modules; it is in evaluation mode meanwhile and then as it was.
        texts: At least one text.
        settings: How to encode.
        on_done: Called with the number of texts of each finished batch.
        first_text: Position of the first text in the caller's list, for errors that name a text.

    Returns:
        Term weights in float32, (N, V), in the order of the texts.

    Raises:
        ValueError: If a weight is not finite; names the text and the module where it arose.
        MemoryError: If a single text does not fit into memory.
    """
    parts = []
    with evaluating(model):
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = texts[start : start + CHUNK_TEXTS]
            with torch.inference_mode():
                parts.append(_Chunk(model, chunk, settings, first_text=first_text + start).encode(on_done))
    return SparseEmbeddings.concatenate(parts)  # outside inference mode, so that the rows may enter a gradient


class _Chunk:
    """Texts that are tokenised and sorted together."""

    def __init__(
        self, model: ModuleSequence, texts: Sequence[str], settings: EncodeSettings, *, first_text: int
    ) -> None:
        self.model = model
        self.settings = settings
        self.first_text = first_text
        self.tokens = model.input_module.tokenize_batch(
            texts, prompt=settings.prompt, task=settings.task, max_length=settings.max_length
        )
        self.token_budget = TOKEN_BUDGET

    def encode(self, on_done: Callable[[int], object]) -> SparseEmbeddings:
        """Run all batches, (N, V)."""
        limit, lengths = num_positions(self.model, self.settings.task), self.tokens.lengths
        if self.settings.padded_to_max_length:
            limit = self._padded_length()
            lengths = [limit] * len(lengths)
        batches = plan_batches(lengths, max_length=limit, batch_size=self.settings.batch_size)[::-1]
        parts: list[SparseEmbeddings] = []
        order: list[int] = []
        while batches:
            batch = batches.pop()
            rows = self._try(batch)
            if rows is None:
                batches = [piece for each in [*batches, batch] for piece in self._split(each)[::-1]]
                continue
            parts.append(rows)
            order += batch.rows
            on_done(len(batch.rows))
        return SparseEmbeddings.concatenate(parts)[torch.tensor(order).argsort()]

    def _padded_length(self) -> int:
        """Return the number of tokens that all texts are padded to.

        Raises:
            ValueError: If there is no such number, or the first module pads by itself.
        """
        first = first_module(self.model, self.settings.task)
        if isinstance(self.tokens, OwnTexts):
            raise ValueError(
                f'padding="max_length" in processing_kwargs cannot be had of a {type(first).__name__}, which makes its '
                "features by itself; leave it out, and pad in its preprocess"
            )
        asked = self.settings.max_length
        limits = (
            first.longest_text(self.settings.task) if asked is None else asked,
            first.max_seq_length,
            num_positions(self.model, self.settings.task),
        )
        known = [limit for limit in limits if limit is not None]
        if not known:
            raise ValueError('padding="max_length" in processing_kwargs needs max_length: the model cuts texts nowhere')
        return min(known)

    def _split(self, batch: Batch) -> list[Batch]:
        return split_batch(batch, batch_size=self.settings.batch_size, token_budget=self.token_budget)

    def _try(self, batch: Batch) -> SparseEmbeddings | None:
        """Run one batch; ``None`` when memory ran out, and then the token budget is halved."""
        try:
            return self._run(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.rows) == 1:
                text = self.first_text + batch.rows[0]
                raise MemoryError(
                    f"texts[{text}], padded to {batch.length} tokens, does not fit into memory"
                ) from error
        self.token_budget = max(batch.length, batch.length * len(batch.rows) // 2)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _run(self, batch: Batch) -> SparseEmbeddings:
        features = self._features(batch)
        weights: Tensor = self._forward(features)["sentence_embedding"]  # (B, V)
        if not bool(weights.isfinite().all()):
            self._explain(batch, weights)
        rows = SparseEmbeddings.from_dense(weights.float(), max_active_dims=self.settings.max_active_dims)
        return rows.cpu() if self.settings.save_to_cpu else rows

    def _features(self, batch: Batch) -> dict[str, Any]:
        return self.tokens.pad(batch.rows, length=batch.length, device=self.model.device)

    def _forward(self, features: dict[str, Any]) -> dict[str, Any]:
        options = {"task": self.settings.task, "max_active_dims": self.settings.max_active_dims}
        result: dict[str, Any] = self.model(features, **options, **self.settings.forward_kwargs)
        return result

    def _explain(self, batch: Batch, weights: Tensor) -> None:
        """Raise the error of a batch with weights that are not finite."""
        row = int(weights.isfinite().all(dim=1).logical_not().nonzero()[0])
        text = self.first_text + batch.rows[row]
        place = first_module_not_finite(self.model, lambda: self._forward(self._features(batch)))
        raise NotFiniteError(
            f"texts[{text}] has weights that are not finite; they arise in module {place!r}. "
            "Weights that were trained or stored in float16 may overflow: load the model in float32",
            text,
        )


def num_positions(model: ModuleSequence, task: str | None) -> int | None:
    """Return the number of tokens that the backbone of a task takes, where padding has to stop; ``None`` for any."""
    first = first_module(model, task)
    return first.model.config.max_tokens if isinstance(first, Transformer) else None


def first_module(model: ModuleSequence, task: str | None) -> InputModule:
    """Return the module that reads the texts of a task."""
    first: Any = model.input_module
    while isinstance(first, Router):
        first = first.route(task)[0]
    module: InputModule = first
    return module


def first_module_not_finite(model: nn.Module, run: Callable[[], object]) -> str:
    """Run a model once more and name the first module whose output is not finite, ``""`` if none."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            values = output.values() if isinstance(output, Mapping) else [output]
            tensors = [each for each in values if isinstance(each, Tensor) and each.is_floating_point()]
            if not found and not all(bool(tensor.isfinite().all()) for tensor in tensors):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that an accelerator or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "allocate memory" in text or "out of memory" in text or "not enough memory" in text
