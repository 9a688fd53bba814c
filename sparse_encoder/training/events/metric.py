"""A callback that computes a user's metric on what the model predicts or generates, while it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from sparse_encoder.backbone.devices import device_of
from sparse_encoder.training.arrays import Array, Columns, as_array, concatenate, unwrapped
from sparse_encoder.training.batch_outputs import generate, moved, pad_token_id, predict, undisturbed
from sparse_encoder.training.events.metric_data import MetricBatch, MetricData
from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.outputs import IGNORED, EvalPrediction
from sparse_encoder.training.processes import said_by_first, together, world_size
from sparse_encoder.training.randomness import METRIC_STREAM, seed_of
from sparse_encoder.training.state import TrainerControl, TrainerState

MetricFunction = Callable[..., Mapping[str, Any]]  # of numbers, in whatever type they come
Part = tuple[dict[str, Array], dict[str, Array]]
"""Predictions and labels of one batch."""


class MetricCallback(TrainerCallback):
    """Compute a metric at the end of each epoch, or at each evaluation, and log it.

    The values are in the history, and in the result of the evaluation of the same step, so that
    ``metric_for_best_model`` can name them; they get ``eval_`` in front unless they have it. The model is run in
    evaluation mode without gradients; training goes on as if nothing had happened. With several processes each runs its
    share of the batches, and the first computes the metric.

    Args:
        metric_fn: Called with predictions and labels if it needs two arguments, with an :class:`EvalPrediction` if it
            needs one; returns numbers by name. Both are numpy arrays, or dicts of them if there are several columns.
        eval_dataset: Rows, columns, a pair of inputs and labels, an array, or a ``DataLoader``; see
            :class:`~sparse_encoder.training.events.metric_data.MetricData`.
        output_cols: The outputs of the model that are predictions, in this order; by default all but the loss and
            ``config.keys_to_ignore_at_inference``.
        label_cols: The columns that are labels; by default the second part of pairs, ``labels``, ``start_positions``
            and ``end_positions``, or ``label``.
        batch_size: Rows of a batch; needed for all but a ``DataLoader``.
        predict_with_generate: Predictions are the token ids that ``model.generate`` returns.
        use_xla_generation: Must be false, and so must ``compile_generation``, its other name: how a step of decoding
            is compiled depends on the model, so compile it there, with ``torch.compile(model.forward)``.
        generate_kwargs: Handed to ``generate``.
        when: ``"epoch"`` or ``"evaluate"``.

    Raises:
        ValueError: If an argument does not apply or a named column is missing; names it.
    """

    def __init__(  # house: peer signature
        self,
        metric_fn: MetricFunction,
        eval_dataset: object,
        output_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | None = None,
        batch_size: int | None = None,
        predict_with_generate: bool = False,
        use_xla_generation: bool = False,
        generate_kwargs: Mapping[str, Any] | None = None,  # of several types
        *,
        compile_generation: bool = False,
        when: str = "epoch",
    ) -> None:
        for name, value in (("use_xla_generation", use_xla_generation), ("compile_generation", compile_generation)):
            if value:
                raise ValueError(f"{name}=True is not supported; compile the model's forward with torch.compile")
        if generate_kwargs and not predict_with_generate:
            raise ValueError(f"generate_kwargs {sorted(generate_kwargs)} need predict_with_generate=True")
        if predict_with_generate and output_cols is not None:
            raise ValueError("output_cols do not apply with predict_with_generate: the predictions are token ids")
        if when not in ("epoch", "evaluate"):
            raise ValueError(f"unknown when {when!r}; choose from ['epoch', 'evaluate']")
        self.metric_fn, self.takes_two = metric_fn, _takes_two(metric_fn)
        self.data = MetricData(eval_dataset, batch_size=batch_size, label_columns=label_cols)
        self.output_columns, self.when = output_cols, when
        self.predict_with_generate, self.generate_options = predict_with_generate, dict(generate_kwargs or {})
        self._last: tuple[int, dict[str, float]] | None = None
        self._evaluated: tuple[int, ...] = ()  # the step and weights of the evaluation that they are of
        self._names: set[str] = set()  # of the run times in it, one for each dataset

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Forget the values of an earlier run."""
        self._last = None

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Forget the values: the model may have got other weights."""
        self._last = None

    def on_epoch_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Compute and log, if it is the time."""
        if self.when == "epoch":
            values = self._compute(args, state, context)
            self._last = (state.global_step, values)
            context["log"](dict(values))

    def on_evaluate(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **context: Context,
    ) -> None:
        """Add the values to the result of the evaluation; compute and log them first, if it is the time."""
        if self.when == "evaluate" and not self._is_known(state, metrics, context["model"]):
            self._last = (state.global_step, self._compute(args, state, context))
            context["log"](dict(self._last[1]))
        if metrics is not None and self._last is not None and self._last[0] == state.global_step:
            metrics.update(self._last[1])

    def _is_known(self, state: TrainerState, metrics: dict[str, float] | None, model: nn.Module) -> bool:
        """Return whether the values are there: of a dataset before, in one evaluation of several."""
        now = (state.global_step, *_version(model))
        names = {name for name in metrics or () if name.endswith("_runtime")}
        is_known = self._last is not None and self._evaluated == now and not names & self._names
        is_known = said_by_first(is_known)
        self._evaluated, self._names = now, names | (self._names if is_known else set())
        return is_known

    def compute(self, model: nn.Module, *, processing_class: object = None, seed: int = 0) -> dict[str, float]:
        """Return the metric of a model.

        Args:
            model: Takes the columns by keyword.
            processing_class: Its tokenizer, for the id that fills up texts.
            seed: Of what is drawn at random meanwhile.

        Raises:
            TypeError: If ``metric_fn`` returns something else than numbers by name.
            RuntimeError: In the other processes, if the model has failed in one, or ``metric_fn`` in the first.
        """
        world = world_size()
        rank = dist.get_rank() if world > 1 else 0
        pad = pad_token_id(model, processing_class, self.generate_options)
        with together("the model"):
            mine = self._predictions(model, pad, seed, rank, world)
        parts = _gathered(mine, rank, world)
        values: dict[str, float] = {}
        with together("metric_fn"):
            if rank == 0:
                values = self._measure(parts, pad)
        return said_by_first(values)

    def _compute(self, args: Arguments, state: TrainerState, context: dict[str, Any]) -> dict[str, float]:
        seed = seed_of(args.seed, METRIC_STREAM, state.global_step)
        return self.compute(context["model"], processing_class=context.get("processing_class"), seed=seed)

    def _predictions(self, model: nn.Module, pad: int | None, seed: int, rank: int, world: int) -> list[Part | None]:
        """Return predictions and labels of this process's batches, one for each turn that all processes take."""
        mine: list[Part | None] = []
        with undisturbed(model, seed):
            batches = self.data.batches(pad or 0)
            while turn := list(islice(batches, world)):  # a batch for each process, in the last turn perhaps the same
                part = self._predict(model, turn[rank] if rank < len(turn) else turn[0])
                mine.append(part if rank < len(turn) else None)
        if not mine:
            raise ValueError("eval_dataset has no rows")
        return mine

    def _predict(self, model: nn.Module, batch: MetricBatch) -> Part:
        inputs = moved(batch.inputs, device_of(model))
        if self.predict_with_generate:
            outputs = generate(model, inputs, self.generate_options)
        else:
            outputs = predict(model, inputs, self.output_columns)
        return _arrays(outputs), _arrays(self.data.labels(batch))

    def _measure(self, parts: list[Part], pad: int | None) -> dict[str, float]:
        """Call the user's function on all rows."""
        predictions = _joined([part[0] for part in parts], pad, needs_pad=self.predict_with_generate)
        labels = _joined([part[1] for part in parts], IGNORED, needs_pad=False)
        if self.takes_two:
            result = self.metric_fn(predictions, labels)
        else:
            result = self.metric_fn(EvalPrediction(predictions=predictions, label_ids=labels))
        if not isinstance(result, Mapping):
            raise TypeError(f"metric_fn must return numbers by name, got {type(result).__name__}: {result!r}")
        numbers = {name: _number(name, value) for name, value in result.items()}
        return {name if name.startswith("eval_") else f"eval_{name}": value for name, value in numbers.items()}


def _gathered(mine: list[Part | None], rank: int, world: int) -> list[Part]:
    """Return what all processes have, in the order of the data; nothing in processes other than the first."""
    gathered: list[Any] | None = [None] * world if rank == 0 else None
    if world > 1:
        dist.gather_object(mine, gathered, dst=0)
    else:
        gathered = [mine]
    turns = zip(*gathered, strict=True) if gathered is not None else ()
    return [part for turn_parts in turns for part in turn_parts if part is not None]


def _version(model: nn.Module) -> tuple[int, ...]:
    """Return what changes with the weights of a model."""
    return (id(model), *(number for each in model.parameters() for number in (id(each), each._version)))


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Array]:
    return {name: as_array(tensor) for name, tensor in tensors.items()}


def _joined(parts: list[dict[str, Array]], fill_ids: int | None, *, needs_pad: bool) -> Columns:
    """Put the batches of each column together; ids are filled up with ``fill_ids``, all else with -100."""
    joined = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        is_ids = first.dtype.kind in "iu"
        if is_ids and needs_pad and fill_ids is None and len({array.shape[1:] for array in arrays}) > 1:
            raise ValueError("generated texts differ in length: give pad_token_id in generate_kwargs")
        joined[name] = concatenate(arrays, fill_ids if is_ids and fill_ids is not None else IGNORED)
    return unwrapped(joined)


def _number(name: str, value: Any) -> float:  # noqa: ANN401  (whatever the user's function returns)
    """Return a Python number.

    Raises:
        TypeError: If it is none.
    """
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError(f"metric_fn must return numbers, got {value!r} as {name!r}")
    return value


def _takes_two(function: MetricFunction) -> bool:
    """Return whether a function needs predictions and labels as two arguments, rather than one with both.

    Raises:
        ValueError: If it takes neither one nor two.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some functions written in C do not say
        return True
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = [each for each in positional if each.default is each.empty]
    takes_more = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    if len(required) > 2 or not (positional or takes_more):
        raise ValueError(
            f"metric_fn must take (predictions, labels) or one EvalPrediction, not {len(required)} arguments"
        )
    return len(required) == 2 or takes_more or (not required and len(positional) > 1)
