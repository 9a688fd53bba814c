"""A hash of what decides the vectors of a served model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sparse_encoder.serving.routes import ServedRoute


def fingerprint_of(routes: Mapping[str | None, ServedRoute]) -> str:
    """Hash graphs, tables and tokenizers, in hex.

    Args:
        routes: Of the model; of each its graph as it was when it was opened.
    """
    digest = hashlib.sha256(b"sparse_encoder.serving 1")
    for name in sorted(routes, key=str):
        route = routes[name]
        digest.update(f"\0{name}\0".encode())
        digest.update(route.tokenizer.fingerprint.encode())
        if route.weights is not None:
            digest.update(route.weights.tobytes())
        if route.session is not None:
            digest.update(route.session.digest.encode())
    return digest.hexdigest()
