"""The README's tour runs as it stands, and its two commands are the ones that the project keeps working."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tour_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace: dict[str, object] = {"__name__": "tour"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    assert len(blocks) >= 4
    assert (tmp_path / "tour" / "trained" / "modules.json").is_file()
    assert (tmp_path / "tour" / "index").is_dir()


def test_the_two_commands_come_first() -> None:
    commands = re.findall(r"```bash\n(.*?)\n```", README, flags=re.DOTALL)
    assert commands[0] == "pip install -c constraints.txt -e . && sparse-encoder quickstart"
    assert commands[1] == 'pip install -c constraints.txt -e ".[test]" && pytest'
