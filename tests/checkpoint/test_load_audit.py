"""Hostile folders in a process that writes down all it opens, imports, runs and connects to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from checkpoint_helpers import BAD_SAFETENSORS, GOOD_SAFETENSORS
from hostile_helpers import Run, saved

AUDIT = """
import sys, os, warnings
from pathlib import Path
from sparse_encoder.checkpoint import LoadError, read_json, read_tensors

warnings.simplefilter("ignore")
root = Path(os.path.realpath(sys.argv[1]))
for name in ("good", "good_pickle"):  # whatever is imported late is imported now
    assert set(read_tensors(root / name)) == {"a", "b"}
try:
    read_json(root / "good" / "none.json")
except FileNotFoundError:
    pass

FORBIDDEN = (
    "import", "exec", "compile", "pickle.", "marshal.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork",
    "subprocess.", "socket.", "ctypes.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.", "tempfile.",
)
seen = []

def hook(event, args):
    if event == "open":
        path, mode, flags = args
        # a number is a file that is open already: its path was seen before
        inside = isinstance(path, int) or Path(os.path.abspath(path)).is_relative_to(folder)
        if not inside or flags & (os.O_WRONLY | os.O_RDWR):
            seen.append((folder.name, event, str(path)))
    elif event.startswith(FORBIDDEN):
        seen.append((folder.name, event, repr(args)[:100]))

folder = root
folders = sorted(path for path in root.iterdir() if path.name.startswith("bad"))
sys.addaudithook(hook)
for folder in folders:
    try:
        read_json(folder / "config.json") if (folder / "config.json").exists() else read_tensors(folder)
    except LoadError as error:
        assert error.path and str(root) in error.path, error
    else:
        seen.append((folder.name, "was loaded", ""))
    for line in seen:
        print(*line)
    seen.clear()
open(os.devnull).close()
import colorsys
print("folders", len(folders), "control", sorted({event for _, event, _ in seen} & {"open", "import"}))
"""
CONFIGS = [b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 200_000, b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"{"]
SHARDS = [
    "../good/model.safetensors",
    "/etc/passwd",
    "C:\\x.safetensors",
    "a\\..\\b.safetensors",
    "",
    ".",
    "none.safetensors",
]


def make_folders(root: Path) -> int:
    """Make one folder per way to be bad; returns how many."""
    state = {"a": torch.ones(2), "b": torch.ones(1)}
    good = {"good/model.safetensors": GOOD_SAFETENSORS, "good_pickle/pytorch_model.bin": saved(state)}
    bad: list[tuple[str, bytes]] = [("model.safetensors", content) for content, _ in BAD_SAFETENSORS.values()]
    bad += [("config.json", content) for content in CONFIGS]
    bad += [("model.safetensors.index.json", json.dumps({"weight_map": {"a": shard}}).encode()) for shard in SHARDS]
    bad += [("pytorch_model.bin", saved({"a": Run()})), ("pytorch_model.bin", b"cos\nsystem\n(S'touch pwned'\ntR.")]
    bad += [("nothing", b"")]
    files = good | {f"bad{number:03}/{name}": content for number, (name, content) in enumerate(bad)}
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    (root / "bad_link").mkdir()
    (root / "bad_link" / "model.safetensors").symlink_to("../good/model.safetensors")
    (root / "bad_pipe").mkdir()
    os.mkfifo(root / "bad_pipe" / "model.safetensors")
    return len(bad) + 2


def test_bad_folders_reach_nothing_outside_themselves(tmp_path: Path) -> None:
    count = make_folders(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"folders {count} control ['import', 'open']"]
    assert count > 60
    assert not list(tmp_path.rglob("pwned"))
