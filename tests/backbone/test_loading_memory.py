"""How much memory loading takes, measured from outside: in processes of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse_encoder.backbone import MaskedLanguageModel

MEGABYTE = 1 << 20
SHARD = 25 * MEGABYTE
CONFIG = {
    "model_type": "bert",
    "vocab_size": 20_000,
    "hidden_size": 640,
    "num_hidden_layers": 18,
    "num_attention_heads": 10,
    "intermediate_size": 2560,
    "max_position_embeddings": 64,
}
PRELUDE = """
import gc, json, resource, sys, warnings
from pathlib import Path
import torch
from safetensors.torch import load_file
from sparse_encoder.backbone import MaskedLanguageModel
folder, limit, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
warnings.simplefilter("ignore")
def in_use(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
tiny = {"model_type": "bert", "vocab_size": 17, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 20, "max_position_embeddings": 9}
whole = MaskedLanguageModel.from_config(tiny)  # whatever is imported late is imported now
MaskedLanguageModel.from_pretrained(None, config=tiny, state_dict=whole.state_dict())
del whole
gc.collect()
if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (in_use("VmData") + limit,) * 2)
Path("/proc/self/clear_refs").write_text("5")
before = in_use("VmRSS")
"""
OURS = (
    PRELUDE
    + """
model = MaskedLanguageModel.from_pretrained(folder, **options)
print(json.dumps({
    "peak": in_use("VmHWM") - before,
    "bytes": sum(each.numel() * each.element_size() for each in model.parameters()),
    "sum": sum(each.sum(dtype=torch.float64).item() for each in model.parameters()),
    "meta": any(each.is_meta for each in model.parameters()),
}))
"""
)
NAIVE = (
    PRELUDE
    + """
state = {}
for path in sorted(Path(folder).glob("*.safetensors")):
    state |= {name: each.clone() for name, each in load_file(path).items()}
config = json.loads((Path(folder) / "config.json").read_text())
model = MaskedLanguageModel.from_config(config)
print("loaded", len(state))
"""
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures as Linux does")


def run(
    code: str, folder: Path, *, limit: int = 0, options: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), str(limit), json.dumps(options or {})],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def measured(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    done = run(OURS, folder, options=options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["meta"]
    return found


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of 420 megabytes in shards of 25."""
    folder = tmp_path_factory.mktemp("model")
    model = MaskedLanguageModel.from_config(CONFIG)
    model.save_pretrained(folder, max_shard_size=SHARD)
    assert len(list(folder.glob("model-*.safetensors"))) > 10
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"device_map": "cpu"}], ids=str)
def test_the_peak_is_the_model_and_one_shard(model_folder: Path, options: dict[str, Any]) -> None:
    found = measured(model_folder, options)
    assert found["bytes"] > 200_000_000
    assert found["peak"] <= 1.15 * found["bytes"] + SHARD


@pytest.mark.slow
def test_the_peak_of_one_file_is_the_model_and_one_tensor(model_folder: Path, tmp_path: Path) -> None:
    MaskedLanguageModel.from_pretrained(model_folder).save_pretrained(tmp_path)
    found = measured(tmp_path, {})
    largest = CONFIG["vocab_size"] * CONFIG["hidden_size"] * 4  # type: ignore[operator]
    assert found["peak"] <= 1.05 * found["bytes"] + largest


@pytest.mark.slow
def test_two_gigabytes_under_a_limit_that_holds_them_once(tmp_path: Path) -> None:
    size = {"vocab_size": 30_000, "hidden_size": 1280, "num_hidden_layers": 24, "intermediate_size": 5120}
    torch.manual_seed(1)
    model = MaskedLanguageModel.from_config({**CONFIG, **size, "num_attention_heads": 20})
    num_bytes = sum(each.numel() * each.element_size() for each in model.parameters())
    assert num_bytes > 2_000_000_000
    total = sum(each.sum(dtype=torch.float64).item() for each in model.parameters())
    model.save_pretrained(tmp_path, max_shard_size="100MB")
    del model
    limit = int(1.15 * num_bytes) + 100_000_000
    done = run(OURS, tmp_path, limit=limit)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sum"] == total and found["bytes"] == num_bytes
    naive = run(NAIVE, tmp_path, limit=limit)
    assert naive.returncode != 0 and "memory" in naive.stderr.lower()


@pytest.mark.slow
def test_the_limit_is_one(tmp_path: Path) -> None:
    """So that the long test cannot pass for want of a limit."""
    code = PRELUDE + "torch.empty(200_000_000, dtype=torch.uint8)"
    assert run(code, tmp_path, limit=300_000_000).returncode == 0
    assert "memory" in run(code, tmp_path, limit=100_000_000).stderr.lower()
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
