"""What a forward pass is asked to keep of its way. Knows nothing of layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(kw_only=True, slots=True, eq=False)
class Record:
    """Collect hidden states and attention probabilities in the order of the steps; one for each call.

    Attention whose probabilities are asked for is computed by the formula, not by fused kernels.
    """

    keeps_hidden_states: bool = False
    keeps_attentions: bool = False
    hidden_states: list[Tensor] = field(default_factory=list)
    """The embeddings, then what each step gave, (B, T, D); the last one behind the final norm if there is one."""
    attentions: list[Tensor] = field(default_factory=list)
    """Of each step, (B, H, T, P + T)."""
    cross_attentions: list[Tensor] = field(default_factory=list)
    """Of each step to the memory, (B, H, T, S)."""

    def keep_hidden(self, hidden: Tensor) -> None:
        """Take hidden states, if they are asked for."""
        if self.keeps_hidden_states:
            self.hidden_states.append(hidden)
