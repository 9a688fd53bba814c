"""What the optimization reads of the training arguments, so that it need not import them."""

from __future__ import annotations

from typing import Any, Protocol


class OptimizerSettings(Protocol):
    """The settings of an optimizer; TrainingArguments has them, with their meaning."""

    optim: str
    optim_args: str | dict[str, Any] | None
    learning_rate: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float


class ScheduleSettings(Protocol):
    """The settings of a schedule; TrainingArguments has them, with their meaning."""

    lr_scheduler_type: str
    warmup_steps: float
    greater_is_better: bool | None

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a setting that is a mapping."""
        ...
