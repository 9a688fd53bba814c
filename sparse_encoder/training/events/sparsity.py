"""The callback that watches how many terms a model activates while it is trained, and tells when that goes wrong.

It sees what the model returns, on the device; only a log row waits for it. It knows no losses.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparse_encoder.modules import SparseAutoEncoder
from sparse_encoder.search.words import stop_words_of
from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.events.splade_weights import SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

logger = logging.getLogger(__name__)

QUERIES, DOCUMENTS = "queries", "documents"
_BUCKETS = 20  # of the histogram: 0 terms, 1, 2-3, 4-7, ... up to half a million
_ROWS, _ACTIVE, _EMPTY, _STOP_MASS, _MASS = range(5)  # places in a tally, before the histogram


@dataclass(frozen=True, kw_only=True, slots=True)
class ActiveTerms:
    """What the texts between two log rows activated."""

    step: int
    texts: str
    """``queries`` or ``documents``."""
    rows: int
    active: float
    """Terms of a text, in the mean."""
    empty: float
    """Part of the texts without any."""
    dense: float
    """Part of the vocabulary that a text activates, in the mean."""
    stop_word_mass: float
    """Part of all weight that lies on stop words; 0 if they are not known."""
    histogram: tuple[int, ...]
    """Texts with 0 terms, 1, 2 to 3, 4 to 7, and so on in powers of two."""


class SparsityMonitorCallback(TrainerCallback):
    """Warn when term weights collapse to zero, stay dense, or lie on stop words; each once, with step and remedy.

    The first column of a batch is taken for queries and the others for documents. Texts that are dense are told only
    after the first part of a run, in which the regularizers' weights still rise.

    Args:
        most_empty: Part of the texts without an active term from which on they count as collapsed.
        most_dense: Part of the vocabulary from which on texts count as dense.
        most_stop_words: Part of the weight on stop words from which on it is told.
        patience: Part of the run in which dense texts are let be.
        stop_words: Words, or the name of a list; they need a model with a ``tokenizer``. None tells nothing of them.
        stop: End the run at a collapse to zero.
        log: Add active terms of queries and documents to every log row of training.

    Raises:
        ValueError: If a part is not between 0 and 1.
    """

    def __init__(  # house: peer signature
        self,
        most_empty: float = 0.5,
        most_dense: float = 0.5,
        most_stop_words: float = 0.5,
        patience: float = 1 / 3,
        stop_words: str | list[str] | None = "english",
        stop: bool = False,
        log: bool = False,
    ) -> None:
        parts = {"most_empty": most_empty, "most_dense": most_dense, "most_stop_words": most_stop_words}
        for name, value in {**parts, "patience": patience}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        self.most_empty, self.most_dense, self.most_stop_words = most_empty, most_dense, most_stop_words
        self.patience, self.stop, self.log = patience, stop, log
        self.stop_words = stop_words_of(stop_words)
        self.history: list[ActiveTerms] = []
        self._told: set[tuple[str, str]] = set()
        self._tallies: dict[str, Tensor] = {}
        self._calls = 0  # of the model in this micro-batch
        self._stop_ids: Tensor | None = None
        self._vocabulary_size = 0
        self._hook: RemovableHandle | None = None

    def on_train_begin(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **context: Context,
    ) -> None:
        """Begin to watch the model."""
        self._release()
        self._told.clear()
        self.history.clear()
        if model is not None:
            self._stop_ids = self._find_stop_ids(model)
            self._hook = model.register_forward_hook(self._watch)

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Expect queries first."""
        self._calls = 0

    def on_substep_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Expect queries first again."""
        self._calls = 0

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **context: Context,
    ) -> None:
        """Judge the texts since the last row of training."""
        if logs is None or "loss" not in logs:
            return
        tallies, self._tallies = self._tallies, {}
        for texts, tally in tallies.items():
            found = self._read(state.global_step, texts, tally)
            self.history.append(found)
            if self.log:
                logs[f"{'query' if texts == QUERIES else 'document'}_active_terms"] = found.active
            self._judge(found, state, control)

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Leave the model alone."""
        self._release()

    def _release(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._tallies = None, {}

    def _watch(self, module: nn.Module, given: object, returned: object) -> None:
        """Count what one call of the model in training has returned."""
        if not (module.training and torch.is_grad_enabled()) or not isinstance(returned, Mapping):
            return
        weights = returned.get("sentence_embedding")
        if not isinstance(weights, Tensor) or weights.ndim != 2:
            return
        texts = DOCUMENTS if self._calls else QUERIES
        self._calls += 1
        self._vocabulary_size = weights.shape[1]
        tally = self._count(weights.detach())
        self._tallies[texts] = self._tallies[texts] + tally if texts in self._tallies else tally

    def _count(self, weights: Tensor) -> Tensor:
        """Return rows, active terms, empty rows, masses and the histogram of some rows, (5 + buckets,)."""
        magnitudes = weights.abs()
        active = (magnitudes > 0).sum(dim=1)  # (B,)
        mass = magnitudes.sum(dtype=torch.float32)
        on_stop_words = torch.zeros_like(mass)
        if self._stop_ids is not None:
            self._stop_ids = self._stop_ids.to(weights.device)
            on_stop_words = magnitudes.index_select(1, self._stop_ids).sum(dtype=torch.float32)
        buckets = (active.float().log2().floor() + 1).clamp(min=0, max=_BUCKETS - 1)  # 0 terms give -inf, so bucket 0
        histogram = (buckets.unsqueeze(1) == torch.arange(_BUCKETS, device=weights.device)).sum(dim=0)
        head = [torch.full_like(mass, len(weights)), active.sum(), (active == 0).sum(), on_stop_words, mass]
        return torch.cat([torch.stack([each.float() for each in head]), histogram.float()])

    def _read(self, step: int, texts: str, tally: Tensor) -> ActiveTerms:
        """Return what a tally says, in one transfer."""
        values = tally.tolist()
        rows = values[_ROWS]
        active = values[_ACTIVE] / rows
        return ActiveTerms(
            step=step,
            texts=texts,
            rows=int(rows),
            active=active,
            empty=values[_EMPTY] / rows,
            dense=active / max(1, self._vocabulary_size),
            stop_word_mass=values[_STOP_MASS] / values[_MASS] if values[_MASS] else 0.0,
            histogram=tuple(int(each) for each in values[_MASS + 1 :]),
        )

    def _judge(self, found: ActiveTerms, state: TrainerState, control: TrainerControl) -> None:
        """Tell what is wrong, each thing once."""
        weight = f"{'query' if found.texts == QUERIES else 'document'}_regularizer_weight"
        if found.empty > self.most_empty:
            self._tell(
                "empty",
                found,
                f"{found.empty:.0%} of the {found.texts} have no active term: they collapsed to zero. The regularizer "
                f"is too strong or rises too early, or the learning rate is too high: lower {weight}, raise the "
                "warmup_ratio of its schedule, or lower learning_rate",
            )
            if self.stop:
                control.should_training_stop = True
        if found.dense > self.most_dense and state.global_step > self.patience * state.max_steps:
            self._tell(
                "dense",
                found,
                f"the {found.texts} activate {found.active:.0f} terms, {found.dense:.0%} of the vocabulary: no index "
                f"is fast with them. Raise {weight}, or train longer after its warm-up",
            )
        if found.stop_word_mass > self.most_stop_words:
            self._tell(
                "stop words",
                found,
                f"{found.stop_word_mass:.0%} of the weight of the {found.texts} lies on stop words, which tell texts "
                f"apart badly. Raise {weight}, or check that the texts are not all alike",
            )

    def _tell(self, kind: str, found: ActiveTerms, message: str) -> None:
        if (kind, found.texts) not in self._told:
            self._told.add((kind, found.texts))
            logger.warning("step %d: %s", found.step, message)

    def _find_stop_ids(self, model: nn.Module) -> Tensor | None:
        """Return the terms of the vocabulary that are stop words; None if that cannot be known."""
        vocabulary: Any = getattr(getattr(model, "tokenizer", None), "get_vocab", None)  # of any tokenizer
        has_terms = not any(isinstance(part, SparseAutoEncoder) for part in model.modules())  # which has units instead
        if vocabulary is None or not self.stop_words or not has_terms:
            return None
        ids = sorted(number for term, number in vocabulary().items() if term.lower() in self.stop_words)
        return torch.tensor(ids) if ids else None


def watch_sparsity(callbacks: list[TrainerCallback]) -> None:
    """Put a monitor behind the schedules of the regularizers' weights, unless there is one already."""
    if any(isinstance(each, SparsityMonitorCallback) for each in callbacks):
        return
    schedules = sum(isinstance(each, SpladeRegularizerWeightSchedulerCallback) for each in callbacks)
    callbacks.insert(1 + schedules, SparsityMonitorCallback())
