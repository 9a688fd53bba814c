"""One weight per term from a JSON file, as encoders without a transformer have them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.checkpoint import ConfigError, read_json_object, resolve_inside
from sparse_encoder.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "idf.json"
MAX_WEIGHTS_BYTES = 64_000_000
MAX_WEIGHT = 1e30
"""No larger weight fits a product of two in float32."""


def read_term_weights(path: Path, tokenizer: Tokenizer) -> NDArray[np.float32]:
    """Read the weight of each term from a JSON file ``{term: weight}``.

    Args:
        path: The file.
        tokenizer: Maps terms to dimensions; terms it does not have are left out, with a warning.

    Returns:
        Weights, (V,) float32; 0 for terms that the file does not list.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If it is no object of finite numbers, or none of its terms is a token.
    """
    listed = read_json_object(path, max_bytes=MAX_WEIGHTS_BYTES)
    vocabulary = tokenizer.get_vocab()
    weight = np.zeros(tokenizer.vocab_size, dtype=np.float32)
    unknown = []
    for term, value in listed.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > MAX_WEIGHT:
            raise ConfigError(f"a weight must be a finite number, got {value!r:.80}", path=path, field=term[:80])
        if term in vocabulary:
            weight[vocabulary[term]] = value
        else:
            unknown.append(term)
    if len(unknown) == len(listed):
        raise ConfigError("none of its terms is a token of the tokenizer", path=path)
    if unknown:
        logger.warning("%s has %d terms that the tokenizer lacks, such as %r", path, len(unknown), unknown[0])
    return weight


def find_term_weights(name: object, folder: Path, root: Path) -> Path:
    """Look for a file that a configuration names in the module's folder, then in the model's."""
    if not isinstance(name, str) or not name.endswith(".json"):
        raise ConfigError(
            f"must be the name of a JSON file, got {name!r:.80}", path=folder / "config.json", field="path"
        )
    for place in (folder, root):
        path = resolve_inside(place, name)
        if path.is_file():
            return path
    raise ConfigError(f"{name!r} is neither in {folder} nor in {root}", path=folder / "config.json", field="path")
