"""Two processes that save different models to one folder, over and over, while a third one loads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, randomise
from checkpoint_helpers import tree_of

from sparse_encoder.backbone import MaskedLanguageModel

pytestmark = pytest.mark.slow

SAVES = 25
SIZES = [4000, "5GB", 9000]
SAVER = """
import sys
from sparse_encoder.backbone import MaskedLanguageModel
model = MaskedLanguageModel.from_pretrained(sys.argv[1])
for line in sys.stdin:
    first, saves, target = line.rstrip("\\n").split(" ", 2)
    for number in range(int(saves)):
        model.save_pretrained(target, max_shard_size=[4000, "5GB", 9000][(number + int(first)) % 3])
    print("saved", flush=True)
"""


class Savers(NamedTuple):
    """Two models that differ in every number and in their configurations, and the processes that save them."""

    models: list[MaskedLanguageModel]
    processes: list[subprocess.Popen[str]]

    def start(self, target: Path, first: tuple[int, int], saves: int) -> threading.Thread:
        """Let both save to one folder, each in other pieces each time; returns what ends when they are through."""
        for process, number in zip(self.processes, first, strict=True):
            assert process.stdin is not None
            process.stdin.write(f"{number} {saves} {target}\n")
            process.stdin.flush()
        thread = threading.Thread(target=lambda: [process.stdout.readline() for process in self.processes])  # type: ignore[union-attr]
        thread.start()
        return thread

    def which(self, folder: Path) -> int:
        """Load a model and return which of both it is; it must be one of them, whole."""
        loaded = MaskedLanguageModel.from_pretrained(folder)
        state = loaded.state_dict()
        same = [
            all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
            and loaded.config == model.config
            for model in self.models
        ]
        assert sum(same) == 1, "a mixture of two saves was loaded"
        return same.index(True)


@pytest.fixture(scope="module")
def savers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Savers]:
    folder, models, processes = tmp_path_factory.mktemp("models"), [], []
    for seed, activation in enumerate(("gelu", "relu")):
        model = MaskedLanguageModel.from_config({**TINY_CONFIGS["bert"], "hidden_act": activation}).eval()
        randomise(model, seed)
        model.save_pretrained(folder / str(seed))
        models.append(model)
        command = [sys.executable, "-c", SAVER, str(folder / str(seed))]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    yield Savers(models, processes)
    for process in processes:
        process.communicate()
        assert process.returncode == 0


def test_a_new_folder_that_two_make_at_once_is_of_one(savers: Savers, tmp_path: Path) -> None:
    for attempt in range(10):
        target = tmp_path / f"new {attempt}" / "model"
        savers.start(target, (1, 1), saves=1).join()
        savers.which(target)
        assert sorted(tree_of(target.parent)) == ["model/config.json", "model/model.safetensors"]


def test_whoever_saves_last_wins_whole_and_whoever_loads_gets_one_of_both(savers: Savers, tmp_path: Path) -> None:
    target = tmp_path / "both" / "model"
    seen: list[int] = []
    for _ in range(20):  # until it was loaded often enough while both saved, however slow this machine is
        saving = savers.start(target, (0, 1), SAVES)
        while saving.is_alive():
            if target.exists():
                seen.append(savers.which(target))
        if set(seen) == {0, 1} and len(seen) >= 10:
            break
    assert set(seen) == {0, 1} and len(seen) >= 10, seen
    last = savers.which(target)
    savers.models[last].save_pretrained(tmp_path / "alone", max_shard_size=SIZES[(SAVES - 1 + last) % 3])
    alone = {f"model/{name}": content for name, content in tree_of(tmp_path / "alone").items()}
    assert tree_of(tmp_path / "both") == alone  # nothing of the other, and nothing unfinished
