"""All that changes a model in place, as bases of a pretrained model; one file for each idea.

::

    ModelEditing
    ├── RandomWeights        init_weights, post_init           random_weights.py
    │   └── VocabularyEditing   embeddings, resize, tie        vocabulary_editing.py
    ├── HeadEditing          prune_heads, get_head_mask        head_editing.py
    └── Recomputing          gradient checkpointing            recomputing.py
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.head_editing import HeadEditing
from sparse_encoder.backbone.random_weights import RandomWeights
from sparse_encoder.backbone.recomputing import Recomputing


class ModelEditing(RandomWeights, HeadEditing, Recomputing):
    """Edit a model in place."""

    def set_attn_implementation(self, attn_implementation: str | Mapping[str, str]) -> None:
        """Compute attention in another way from now on.

        Args:
            attn_implementation: ``"sdpa"`` for torch's fused kernels, ``"eager"`` for the plain formula; ``{"": name}``
                says the same, and no part has a way of its own.

        Raises:
            TypeError: If it is neither a name nor such a mapping.
            ValueError: If it is another name.
        """
        if isinstance(attn_implementation, Mapping) and list(attn_implementation) == [""]:
            attn_implementation = attn_implementation[""]
        if not isinstance(attn_implementation, str):
            rule = "a name for the whole model, 'sdpa' or 'eager', or {'': name}"
            raise TypeError(f"attn_implementation must be {rule}, got {attn_implementation!r:.100}")
        for module in self.modules():
            if isinstance(module, Attention):
                module.set_implementation(attn_implementation)

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Take other word embeddings, as in :class:`VocabularyEditing`; gradients are asked of them as of the old."""
        asked = self._input_hook is not None
        super().set_input_embeddings(value)
        if asked:
            self.enable_input_require_grads()
