"""No setting is accepted and read nowhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import sparse_encoder
from sparse_encoder.training import SparseEncoderTrainingArguments
from sparse_encoder.training.argument_checks import check_arguments

OWN_FILES = ("arguments.py", "argument_checks.py", "sparse_arguments.py")
FOR_SCRIPTS = {"do_train", "do_eval", "do_predict", "resume_from_checkpoint"}
"""The documentation says of these that a trainer does not go by them."""
OLDER_NAMES = {"warmup_ratio", "activation_checkpointing", "activation_checkpointing_kwargs", "evaluation_strategy"}
"""The settings give their values to other fields."""


def test_every_setting_is_read() -> None:
    one_value = set(check_arguments.__globals__["_ONLY"])
    package = Path(sparse_encoder.__file__).parent
    code = "\n".join(path.read_text() for path in sorted(package.rglob("*.py")) if path.name not in OWN_FILES)
    facts = (package / "training" / "process_facts.py").read_text()
    unread = {
        each.name
        for each in fields(SparseEncoderTrainingArguments)
        if not re.search(rf"""args\.{each.name}\b|args\.mapping\("{each.name}"\)""", code)
        and not re.search(rf"self\.{each.name}\b", facts)
    }
    assert unread - one_value == FOR_SCRIPTS | OLDER_NAMES
