"""A configuration that scripts read by attribute, as they read those of transformers."""

from __future__ import annotations

from typing import Any


class ConfigView(dict[str, Any]):  # values as in a config.json
    """A copy of a configuration whose keys are attributes too; the model does not look at it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return the value of a key."""
        if name not in self:
            raise AttributeError(f"the configuration has no {name!r}; there are {sorted(self)}")
        return self[name]
