"""The callback that watches how many terms a model activates while it is trained, and tells when that goes wrong.

It sees what the model returns, on the device; only where it judges, a process waits for that. Of losses it knows which
columns they get.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparse_encoder.modules import SparseAutoEncoder
from sparse_encoder.search.words import stop_words_of
from sparse_encoder.training.events.active_terms import ONE_OF, QUERIES, ActiveTerms, ColumnTracker, Tallies
from sparse_encoder.training.events.protocol import Arguments, Context, ExportableState, TrainerCallback
from sparse_encoder.training.events.sparsity_advice import advice_for, targets_of
from sparse_encoder.training.events.splade_weights import SpladeRegularizerWeightSchedulerCallback
from sparse_encoder.training.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

JUDGE_EVERY = 500
"""Updates after which texts are judged although no log row was written."""


class SparsityMonitorCallback(TrainerCallback, ExportableState):
    """Warn when term weights are not finite, zero, dense, or on stop words; each once, with step and remedy.

    The first column that a loss gets is taken for queries and the others for documents, each text once per batch,
    however the loss cuts and repeats them; what a loss makes the model read instead counts as plain texts. Texts are
    judged at every log row of training, after 500 updates without one, and at the end of a run. Those that are dense
    are told only after the first part of a run, in which the regularizers' weights still rise. Several processes judge
    their texts together, and the first one tells. What was told, and the history, are saved with checkpoints; texts
    that were not judged before a checkpoint are not after a resume from it. A text with a weight that is NaN or
    infinite is told, and left out of everything else.

    Args:
        most_empty: Part of the texts without an active term above which they count as collapsed.
        most_dense: Part of the vocabulary from which on texts count as dense.
        most_stop_words: Part of the weight on stop words from which on it is told.
        patience: Part of the run in which dense texts are let be.
        stop_words: Words, or the name of a list; they need a model with a ``tokenizer`` whose
            vocabulary is that of the embeddings. None tells nothing of them.
        stop: End the run at a collapse to zero, or when as great a part of the texts is not finite.
        log: Add active terms of queries and documents to every log row of training, in the history too: means over
            the texts that were not judged before. Callbacks behind this one see them.
        most_dead_queries: Part of the queries without an active term above which it is told that these can find
            nothing, where they have not collapsed.

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
        *,
        most_dead_queries: float = 0.05,
    ) -> None:
        parts = {"most_empty": most_empty, "most_dense": most_dense, "most_stop_words": most_stop_words}
        for name, value in {**parts, "patience": patience, "most_dead_queries": most_dead_queries}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        self.most_empty, self.most_dense, self.most_stop_words = most_empty, most_dense, most_stop_words
        self.most_dead_queries = most_dead_queries
        self.patience, self.stop, self.log = patience, stop, log
        self._given_stop_words = stop_words if stop_words is None or isinstance(stop_words, str) else list(stop_words)
        self.stop_words = stop_words_of(self._given_stop_words)
        self.history: list[ActiveTerms] = []
        self._told: dict[tuple[str, str], int] = {}  # by what and of which texts: the step
        self._columns, self._tallies = ColumnTracker(), Tallies()
        self._waiting = 0  # updates whose texts are not judged yet
        self._stop_ids: dict[int, Tensor | None] = {}  # by width of the embeddings
        self._targets: dict[str, float] = {}  # active terms that losses aim at, by what the texts are
        self._device = torch.device("cpu")
        self._hooks: list[RemovableHandle] = []

    def state(self) -> dict[str, Any]:  # values that JSON can hold
        """Return the settings, what was told, and the history."""
        settings = ("most_empty", "most_dense", "most_stop_words", "patience", "stop", "log", "most_dead_queries")
        return {
            "args": {name: getattr(self, name) for name in settings} | {"stop_words": self._given_stop_words},
            "attributes": {
                "told": [[kind, texts, step] for (kind, texts), step in self._told.items()],
                "history": [asdict(each) for each in self.history],
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:  # as above
        """Build one as it was when :meth:`state` was called."""
        monitor = cls(**state["args"])
        saved = state["attributes"]
        monitor._told = {(kind, texts): step for kind, texts, step in saved["told"]}
        monitor.history = [ActiveTerms(**{**each, "histogram": tuple(each["histogram"])}) for each in saved["history"]]
        return monitor

    def on_train_begin(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        objective: nn.Module | None = None,
        **context: Context,
    ) -> None:
        """Begin to watch the model, and what its losses get; forget what is beyond the step to go on from."""
        self.release()
        self._told = {what: step for what, step in self._told.items() if step <= state.global_step}
        self.history[:] = [each for each in self.history if each.step <= state.global_step]
        self._stop_ids = {}
        self._targets = targets_of(objective)
        if model is None:
            return
        self._device = next((each.device for each in model.parameters()), self._device)
        # It counts in Python, which is not to be compiled.
        watch = torch.compiler.disable(self._watch)  # type: ignore[no-untyped-call]
        self._hooks = [model.register_forward_hook(watch)]
        inside = set(model.modules())
        for loss in () if objective is None else objective.modules():
            if loss not in inside:
                self._hooks.append(loss.register_forward_pre_hook(self._expect, with_kwargs=True))

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Forget the columns of the batch before."""
        self._columns.begin(None)

    def on_substep_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Forget the columns of the batch before."""
        self._columns.begin(None)

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Judge the texts if no log row has let that happen for long."""
        self._waiting += 1
        if self._waiting >= JUDGE_EVERY and not control.should_log:  # the row is about to come
            self._judge_all(state, control)

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **context: Context,
    ) -> None:
        """Judge the texts that were not judged yet, at a row of training."""
        if logs is None or not {"loss", "learning_rate"} <= set(logs):
            return
        for found in self._judge_all(state, control):
            if self.log and found.rows:
                figure = {f"{ONE_OF.get(found.texts, 'text')}_active_terms": found.active}
                logs.update(figure)
                state.log_history[-1].update(figure)  # the kept row is another dict

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Judge the texts that were not judged yet, and leave the model alone."""
        self._judge_all(state, control)
        self.release()

    def release(self) -> None:
        """Leave the model and its losses alone."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._tallies, self._waiting = [], Tallies(), 0

    def _expect(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note the columns that a loss gets, which it is going to run the model on."""
        if torch.is_grad_enabled():
            self._columns.begin(given[0] if given else named.get("sentence_features"))

    def _watch(self, module: nn.Module, given: tuple[Any, ...], returned: object) -> None:
        """Count what one call of the model in training has returned."""
        if not (module.training and torch.is_grad_enabled()) or not isinstance(returned, Mapping):
            return
        weights = returned.get("sentence_embedding")
        if not isinstance(weights, Tensor) or weights.ndim != 2:
            return
        weights = weights.detach()
        texts, rows = self._columns.take(given[0] if given else None, len(weights))
        if rows:
            stop_ids = self._stop_ids_for(module, weights)
            self._tallies.add(texts, weights[:rows], stop_ids)

    def _judge_all(self, state: TrainerState, control: TrainerControl) -> list[ActiveTerms]:
        """Judge the texts that were not judged yet; all processes must come here at the same update."""
        self._waiting = 0
        counted = self._tallies.take(state.global_step, self._device)
        self.history += counted
        for found in counted:
            self._judge(found, state, control)
        return counted

    def _judge(self, found: ActiveTerms, state: TrainerState, control: TrainerControl) -> None:
        """Tell what is wrong, each thing once."""
        advice = advice_for(found.texts, self._targets)
        if found.not_finite:
            self._judge_not_finite(found, state, control)
        if found.empty > self.most_empty:
            self._tell(
                "empty",
                found,
                state,
                f"{found.empty:.0%} of the {found.texts} have no active term: they collapsed to zero. {advice.too_few}",
            )
            if self.stop:
                control.should_training_stop = True
        elif found.texts == QUERIES and found.empty > self.most_dead_queries:
            self._tell(
                "dead queries",
                found,
                state,
                f"{found.empty:.1%} of the queries are dead: without an active term they find nothing, and rankings "
                f"give them no gradient. {advice.dead}",
            )
        if found.dense > self.most_dense and state.global_step > self.patience * state.max_steps:
            self._tell(
                "dense",
                found,
                state,
                f"the {found.texts} activate {found.active:.0f} terms, {found.dense:.0%} of the vocabulary: no index "
                f"is fast with them. {advice.too_many}",
            )
        if found.stop_word_mass > self.most_stop_words:
            self._tell(
                "stop words",
                found,
                state,
                f"{found.stop_word_mass:.0%} of the weight of the {found.texts} lies on stop words, which tell texts "
                f"apart badly. {advice.stronger}, or check that the texts are not all alike",
            )

    def _judge_not_finite(self, found: ActiveTerms, state: TrainerState, control: TrainerControl) -> None:
        """Tell of texts that are not finite."""
        every = found.rows + found.not_finite
        self._tell(
            "not finite",
            found,
            state,
            f"{found.not_finite} of {every} {found.texts} have weights that are NaN or infinite. Lower learning_rate, "
            "train with bf16 in the place of fp16, and look whether the weights of the model are finite",
        )
        if self.stop and found.not_finite > self.most_empty * every:
            control.should_training_stop = True

    def _tell(self, kind: str, found: ActiveTerms, state: TrainerState, message: str) -> None:
        if (kind, found.texts) not in self._told:
            self._told[kind, found.texts] = found.step
            if state.is_world_process_zero:
                logger.warning("step %d: %s", found.step, message)

    def _stop_ids_for(self, model: nn.Module, weights: Tensor) -> Tensor | None:
        """Return the columns of stop words; None if the columns are no terms of the model's vocabulary."""
        width = weights.shape[1]
        if width not in self._stop_ids:
            self._stop_ids[width] = find_stop_ids(model, width, self.stop_words)
        found = self._stop_ids[width]
        if found is not None and found.device != weights.device:
            found = self._stop_ids[width] = found.to(weights.device)
        return found


def find_stop_ids(model: nn.Module, width: int, stop_words: Collection[str]) -> Tensor | None:
    """Return the columns of an embedding that are stop words; None if there are none, or the columns are no terms.

    Args:
        model: Perhaps with a ``tokenizer``. Its columns are terms if there is one for each of the vocabulary, and no
            autoencoder, which has units in their place.
        width: Number of columns.
        stop_words: In small letters.
    """
    get_vocabulary: Any = getattr(getattr(model, "tokenizer", None), "get_vocab", None)  # of any tokenizer
    if not stop_words or get_vocabulary is None or any(isinstance(part, SparseAutoEncoder) for part in model.modules()):
        return None
    vocabulary = get_vocabulary()
    if not vocabulary or max(vocabulary.values()) + 1 != width:
        return None
    ids = sorted(number for term, number in vocabulary.items() if term.lower() in stop_words)
    return torch.tensor(ids) if ids else None


def watch_sparsity(callbacks: list[TrainerCallback]) -> None:
    """Put a monitor behind the schedules of the regularizers' weights, unless there is one already."""
    if any(isinstance(each, SparsityMonitorCallback) for each in callbacks):
        return
    schedules = sum(isinstance(each, SpladeRegularizerWeightSchedulerCallback) for each in callbacks)
    callbacks.insert(1 + schedules, SparsityMonitorCallback())
