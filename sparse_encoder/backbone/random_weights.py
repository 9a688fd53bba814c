"""Random values for the parameters of a model that have none yet. Never touches one that was loaded or drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from sparse_encoder.backbone.initialization import initialize_module, roles_of
from sparse_encoder.backbone.vocabulary_editing import VocabularyEditing


class RandomWeights(VocabularyEditing):
    """Draw parameters by the family's rule, each once; one base of a pretrained model."""

    _settled: frozenset[str] = frozenset()
    """Names of the parameters that have their values."""

    def mark_initialized(self, names: Iterable[str] | None = None) -> None:
        """Say which parameters have their values, so that none of these is drawn again.

        Args:
            names: As ``named_parameters`` has them, tied ones under any of their names; None means all.
        """
        everything = (name for name, _ in self.named_parameters(remove_duplicate=False))
        marked = frozenset(everything if names is None else names)
        for path, model in self.named_modules():
            if isinstance(model, RandomWeights):
                prefix = f"{path}." if path else ""
                model._settled |= {name.removeprefix(prefix) for name in marked if name.startswith(prefix)}

    def _settled_parameters(self) -> set[int]:
        """Return the identities of the parameters that have their values, by the word of any model inside too."""
        return {
            id(parameter)
            for model in self.modules()
            if isinstance(model, RandomWeights)
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if name in model._settled
        }

    def _init_weights(self, module: nn.Module) -> None:
        """Draw one module's own parameters by the family's rule; a model with parts of another kind adds theirs."""
        initialize_module(module, self.config, roles_of(self))

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Draw the parameters that are not marked, and mark them.

        Each is drawn by the innermost model around it. Marked parameters keep their values, whatever a model's own
        ``_init_weights`` does. Parameters on the meta device are passed over.
        """
        settled = self._settled_parameters()
        for module, owner in _with_owners(self, self, set()):
            own = list(module.parameters(recurse=False))
            if all(id(each) in settled or each.is_meta for each in own):
                continue
            kept = [(each, each.clone()) for each in own if id(each) in settled]
            owner._init_weights(module)
            for each, value in kept:
                each.copy_(value)
        everything = self.named_parameters(remove_duplicate=False)
        self.mark_initialized(name for name, parameter in everything if not parameter.is_meta)

    def init_weights(self) -> None:
        """Draw what has no values yet, as :meth:`initialize_weights`, and tie."""
        self.initialize_weights()
        self.tie_weights()

    def post_init(self) -> None:
        """Do what follows the construction of a model: draw and tie its weights; for constructors of subclasses."""
        self.init_weights()


def _with_owners(
    module: nn.Module, owner: RandomWeights, seen: set[nn.Module]
) -> Iterator[tuple[nn.Module, RandomWeights]]:
    """Go through modules as ``modules()`` does, each with the innermost model around it."""
    if module in seen:
        return
    seen.add(module)
    yield module, owner
    for child in module.children():
        yield from _with_owners(child, child if isinstance(child, RandomWeights) else owner, seen)
