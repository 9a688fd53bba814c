"""A head with low-rank changes beside its table. Knows neither models nor files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.adapters.layer import LowRank
from sparse_encoder.backbone.heads import Factors, LinearHead


class LoraHead(LowRank, LinearHead):
    r"""Score every word of the vocabulary, and add what each active adapter adds to the scores.

    .. math:: W \, (s h) + b + \sum_a s_a \, B_a A_a \, d_a(s h)

    Parameters are those of the head it is made from, under the same names. A table that is tied to the word embeddings
    stays so: the changes concern the scores alone.

    Args:
        base: The head; its parameters are shared, not copied.
    """

    weight: nn.Parameter

    def __init__(self, base: LinearHead) -> None:
        nn.Module.__init__(self)
        _share(base, self)
        self._make_room()

    def plain(self) -> LinearHead:
        """Return a head without adapters, of the same parameters."""
        head = LinearHead.__new__(LinearHead)
        nn.Module.__init__(head)
        return _share(self, head)

    def factors(self, hidden: Tensor) -> Factors:
        """Return what the scores are a product of, with r columns more for each active adapter.

        So the table is copied once and B A, which is as large, is never made.

        Args:
            hidden: (.., D).
        """
        plain = super().factors(hidden)
        names = () if self.is_merged else self.active
        if not names:
            return plain
        read, table = [plain.hidden], [plain.weight]
        for name in names:
            read.append((self.narrowed(name, plain.hidden) * self.scaling[name]).to(plain.hidden.dtype))
            table.append(self.lora_B[name].to(plain.weight.dtype))
        return plain._replace(hidden=torch.cat(read, dim=-1), weight=torch.cat(table, dim=-1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (.., V) of hidden states (.., D)."""
        return self.with_changes(super().forward(hidden), self.transform(hidden))


def _share(one: LinearHead, other: LinearHead) -> LinearHead:
    """Give a head the parameters of another one."""
    other.weight, other.scale, other.training = one.weight, one.scale, one.training
    other.register_parameter("bias", one.bias)
    other.register_buffer("logits_bias", one.logits_bias)
    return other
