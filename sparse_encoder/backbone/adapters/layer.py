"""Linear layers and heads with low-rank changes beside them. Knows neither models nor files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.few_rows import StepLinear
from sparse_encoder.backbone.few_rows import linear as multiply_few

KEPT = "unmerged_weight"
"""Buffer with the weight as it was before it took changes in."""


class LowRank(nn.Module):
    """What a layer or a head has whose weight has low-rank changes, whatever it computes beside."""

    weight: Tensor
    """(out, in)."""
    lora_A: nn.ParameterDict
    """By adapter, (r, in)."""
    lora_B: nn.ParameterDict
    """By adapter, (out, r)."""
    scaling: dict[str, float]
    active: tuple[str, ...]
    """The adapters that are added, in order."""

    def _make_room(self) -> None:
        """Begin without an adapter."""
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        self.lora_dropout = nn.ModuleDict()
        self.scaling, self.active = {}, ()
        self.register_buffer(KEPT, None, persistent=False)

    @property
    def is_merged(self) -> bool:
        """Whether the weight has taken the changes in."""
        return getattr(self, KEPT) is not None

    @property
    def base_weight(self) -> Tensor:
        """The weight without any change, (out, in)."""
        kept: Tensor | None = getattr(self, KEPT)
        return self.weight if kept is None else kept

    def add(self, name: str, rank: int, *, scaling: float, dropout: float) -> None:
        """Make room for an adapter; its numbers are not set.

        They are of the weight's type, but float32 beside one of 16 bits.

        Args:
            name: Of the adapter.
            rank: r.
            scaling: s.
            dropout: Share of the inputs that is dropped, in training.
        """
        weight = self.weight
        dtype = torch.float32 if weight.dtype in (torch.float16, torch.bfloat16) else weight.dtype
        self.lora_A[name] = nn.Parameter(torch.empty(rank, weight.shape[1], dtype=dtype, device=weight.device))
        self.lora_B[name] = nn.Parameter(torch.empty(weight.shape[0], rank, dtype=dtype, device=weight.device))
        self.lora_dropout[name] = Dropout(dropout).train(self.training)
        self.scaling[name] = scaling

    @torch.no_grad()
    def initialize(self, name: str, kind: bool | str) -> None:
        """Draw an adapter's numbers from torch's generator.

        Args:
            name: Of the adapter.
            kind: As :attr:`LoraConfig.init_lora_weights`.
        """
        a, b = self.lora_A[name], self.lora_B[name]
        if kind == "gaussian":
            a.normal_(0.0, 1 / a.shape[0])
        else:
            nn.init.kaiming_uniform_(a, a=sqrt(5))
        if kind is False:
            nn.init.kaiming_uniform_(b, a=sqrt(5))
        else:
            b.zero_()

    def remove(self, name: str) -> None:
        """Take an adapter away."""
        self.active = tuple(each for each in self.active if each != name)
        for held in (self.lora_A, self.lora_B, self.lora_dropout, self.scaling):
            del held[name]

    def change(self, name: str) -> Tensor:
        """Return what an adapter adds to the weight, s B A in float32 or wider, (out, in)."""
        a, b = (
            each.to(torch.promote_types(each.dtype, torch.float32)) for each in (self.lora_A[name], self.lora_B[name])
        )
        product: Tensor = b @ a
        return product * self.scaling[name]

    @torch.no_grad()
    def merge(self, names: Sequence[str]) -> None:
        """Let the weight take changes in; it is kept aside as it was.

        Args:
            names: Of adapters; those that are not of this layer are left out.
        """
        own = [name for name in names if name in self.lora_A]
        if own:
            setattr(self, KEPT, self.weight.detach().clone())
            merged = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
            for name in own:
                merged = merged + self.change(name)
            self.weight.copy_(merged)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Give the weight the bits back that it had before :meth:`merge`."""
        if self.is_merged:
            self.weight.copy_(self.base_weight)
            setattr(self, KEPT, None)

    def narrowed(self, name: str, hidden: Tensor) -> Tensor:
        """Return what an adapter makes of hidden states first, A d(x), (.., r)."""
        a = self.lora_A[name]
        return F.linear(self.lora_dropout[name](hidden).to(a.dtype), a)

    def with_changes(self, output: Tensor, hidden: Tensor) -> Tensor:
        """Add what the active adapters add to an output (.., out) of hidden states (.., in)."""
        for name in () if self.is_merged else self.active:
            widened = F.linear(self.narrowed(name, hidden), self.lora_B[name])
            output = output + (widened * self.scaling[name]).to(output.dtype)
        return output

    @abstractmethod
    def plain(self) -> nn.Module:
        """Return a layer without adapters, of the same parameters."""


class LoraLinear(LowRank, nn.Linear):
    r"""Compute a linear layer and what each active adapter adds.

    .. math:: W x + b + \sum_a s_a \, B_a A_a \, d_a(x)

    Weight and bias are those of the layer it is made from, under the same names.

    Args:
        base: The layer; its parameters are shared, not copied.
    """

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.takes_steps = isinstance(base, StepLinear)
        """Whether the layer is one of a model that writes."""
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = base.weight
        self.register_parameter("bias", base.bias)
        self.training = base.training
        self._make_room()

    def plain(self) -> nn.Linear:
        """Return a layer without adapters, of the same parameters."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight = self.weight
        linear.bias = self.bias
        linear.train(self.training)
        return StepLinear(linear) if self.takes_steps else linear

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform hidden states, (.., in) to (.., out)."""
        multiply = multiply_few if self.takes_steps else F.linear
        return self.with_changes(multiply(hidden, self.weight, self.bias), hidden)
