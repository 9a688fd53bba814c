"""The libraries that can steer a search, by name."""

from __future__ import annotations

from importlib.util import find_spec

from sparse_encoder.training.arguments import plain
from sparse_encoder.training.tuning.optuna_backend import OptunaBackend
from sparse_encoder.training.tuning.protocol import SearchBackend
from sparse_encoder.training.tuning.ray_backend import RayBackend

BACKENDS: dict[str, type[OptunaBackend] | type[RayBackend]] = {"optuna": OptunaBackend, "ray": RayBackend}
"""In the order in which they are looked for."""
_REFUSED = {
    "sigopt": "its service has ended, and transformers no longer knows it either",
    "wandb": "its sweeps are steered by a server, and its agent hides the errors of trials; search with optuna, where "
    "report_to='wandb' logs every trial as a run",
}


def backend_of(chosen: str | SearchBackend | None) -> SearchBackend:
    """Return what steers a search.

    Args:
        chosen: A name, an object that does it, or None for the first that is installed.

    Raises:
        ValueError: If there is none of this name.
        ImportError: If it is not installed.
        RuntimeError: If none is.
    """
    chosen = plain(chosen)
    if chosen is None:
        found = next((name for name in BACKENDS if find_spec(name) is not None), None)
        if found is None:
            raise RuntimeError(
                "a search needs optuna or ray: pip install 'sparse-encoder[hpo]', or pip install 'ray[tune]'"
            )
        return BACKENDS[found]()
    if not isinstance(chosen, str):
        return chosen
    if chosen in _REFUSED:
        raise ValueError(f"backend {chosen!r} is not supported: {_REFUSED[chosen]}; choose from {sorted(BACKENDS)}")
    if chosen not in BACKENDS:
        raise ValueError(f"unknown backend {chosen!r}; choose from {sorted(BACKENDS)}")
    return BACKENDS[chosen]()
