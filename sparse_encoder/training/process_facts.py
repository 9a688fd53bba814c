"""What the settings of a run tell of the process they are in: its device, its number, whether it logs and saves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import torch
from accelerate import PartialState

logger = logging.getLogger(__name__)

_LIBRARY = "sparse_encoder"
_LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class ParallelMode(Enum):
    """How a run is spread over devices."""

    NOT_PARALLEL = "not_parallel"
    """One process, one device."""
    DISTRIBUTED = "distributed"
    """Several processes, each with a device of its own."""


class ProcessFacts:
    """The properties of training arguments that are facts of the process, not settings."""

    use_cpu: bool
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    log_level: str
    log_level_replica: str
    log_on_each_node: bool

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        device: torch.device = PartialState(cpu=self.use_cpu).device
        return device

    @property
    def n_gpu(self) -> int:
        """Devices of this process: 1, or 0 on the CPU; one process never drives several."""
        return int(self.device.type != "cpu")

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return int(PartialState(cpu=self.use_cpu).num_processes)

    @property
    def process_index(self) -> int:
        """Number of this process."""
        return int(PartialState(cpu=self.use_cpu).process_index)

    @property
    def local_process_index(self) -> int:
        """Number of this process on its machine."""
        return int(PartialState(cpu=self.use_cpu).local_process_index)

    @property
    def parallel_mode(self) -> ParallelMode:
        """Whether several processes train together."""
        return ParallelMode.DISTRIBUTED if self.world_size > 1 else ParallelMode.NOT_PARALLEL

    @property
    def train_batch_size(self) -> int:
        """Rows of a batch of one process."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """Rows of a batch of one process in evaluations."""
        return self.per_device_eval_batch_size

    @property
    def place_model_on_device(self) -> bool | None:
        """Whether the trainer moves the model; ``None`` lets the trainer decide."""
        return None

    @property
    def should_log(self) -> bool:
        """Whether this process shows the log: the first one, of every machine with ``log_on_each_node``."""
        return (self.local_process_index if self.log_on_each_node else self.process_index) == 0

    @property
    def should_save(self) -> bool:
        """Whether this process writes: the first of all does."""
        return self.process_index == 0

    @contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Let one process do something, such as preparing data, before the others do it or find it done.

        Args:
            local: One of each machine; otherwise one of all.
            desc: Told to the log, at the level ``debug``.
        """
        state = PartialState(cpu=self.use_cpu)
        with state.local_main_process_first() if local else state.main_process_first():
            logger.debug("process %d: %s", self.process_index, desc)
            yield

    def get_process_log_level(self) -> int:
        """Return the level of the library's log in this process; ``passive`` leaves the one it has."""
        own = self.log_level if self.should_log or self.log_level == "passive" else self.log_level_replica
        return logging.getLogger(_LIBRARY).getEffectiveLevel() if own == "passive" else _LOG_LEVELS[own]

    def set_log_level(self) -> None:
        """Give the library's log the level of this process, unless ``log_level`` is passive."""
        if self.log_level != "passive":
            logging.getLogger(_LIBRARY).setLevel(self.get_process_log_level())
