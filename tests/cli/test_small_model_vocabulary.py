from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sparse_encoder.cli.small_model import SPECIAL_TOKENS, train_tokenizer

TEXTS = [f"{first}{second}{third} {third}{first}" for first in "abcdefgh" for second in "ijklmn" for third in "éxyz東"]
"""Many pieces that are equally frequent: which of them fit in is a matter of the order of letters."""
SCRIPT = """
import json, sys
from sparse_encoder.cli.small_model import train_tokenizer
tokenizer = train_tokenizer(json.loads(sys.argv[1]), vocab_size=90, max_length=16)
print(json.dumps(tokenizer.get_vocab()))
"""


def vocabulary_in_another_process(hash_seed: int) -> dict[str, int]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(TEXTS)], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_processes_learn_the_same_word_pieces() -> None:
    vocabularies = [vocabulary_in_another_process(hash_seed) for hash_seed in (1, 2)]
    assert vocabularies[0] == vocabularies[1]
    assert len(vocabularies[0]) == 90


def test_special_tokens_have_the_first_ids_and_are_kept_whole() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=90, max_length=16)
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS.values()] == list(range(5))
    (ids,) = tokenizer.encode_batch(["abc"]).input_ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.tokenize("abc [MASK]")[-1] == "[MASK]"
    assert "".join(piece.removeprefix("##") for piece in tokenizer.tokenize("abc")) == "abc"
