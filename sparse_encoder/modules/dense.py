"""A linear layer on embeddings, with an activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from sparse_encoder.checkpoint import ConfigError, write_tensors
from sparse_encoder.modules.base import (
    LoadSettings,
    Module,
    checked_flag,
    checked_integer,
    load_weights,
    without_values,
)
from sparse_encoder.modules.features import Features
from sparse_encoder.modules.row_linear import row_linear

if TYPE_CHECKING:
    from typing_extensions import Self

_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ELU,
    nn.GELU,
    nn.Identity,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)
ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: kind
    for kind in _ACTIVATIONS
    for name in (f"{kind.__module__}.{kind.__qualname__}", f"torch.nn.{kind.__qualname__}")
}
"""What a file may name; the first spelling of each is the one that is written."""


class Dense(Module):
    r"""Map embeddings linearly and activate them.

    .. math:: a(W x + b) \; (+ \; x \text{ or } R x)

    Args:
        in_features: Width of what is read.
        out_features: Width of what is made.
        bias: Whether there is a bias.
        activation_function: A module or function; ``None`` for none. Only modules without arguments that
            :data:`ACTIVATIONS` lists can be saved.
        init_weight: First value of the weight, (out_features, in_features).
        init_bias: First value of the bias, (out_features,).
        module_input_name: The feature to read, (B, D) or (B, T, D).
        module_output_name: The feature to write; by default the one that is read.
        use_residual: Add what was read, through a matrix of its own if the widths differ.
    """

    config_keys: ClassVar[tuple[str, ...]] = (
        "in_features",
        "out_features",
        "bias",
        "activation_function",
        "module_input_name",
        "module_output_name",
        "use_residual",
    )

    def __init__(  # house: peer signature
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: Callable[[Tensor], Tensor] | None = nn.Tanh(),  # noqa: B008 - it has no state
        init_weight: Tensor | None = None,
        init_bias: Tensor | None = None,
        module_input_name: str = "sentence_embedding",
        module_output_name: str | None = None,
        use_residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = checked_integer("in_features", in_features)
        self.out_features = checked_integer("out_features", out_features)
        self.bias = checked_flag("bias", bias)
        self.activation_function = nn.Identity() if activation_function is None else activation_function
        self.module_input_name = module_input_name
        self.module_output_name = module_input_name if module_output_name is None else module_output_name
        self.use_residual = checked_flag("use_residual", use_residual)
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)
        for parameter, first in ((self.linear.weight, init_weight), (self.linear.bias, init_bias)):
            if first is not None:
                if parameter is None or first.shape != parameter.shape:
                    expected = "none, as bias is False" if parameter is None else tuple(parameter.shape)
                    raise ValueError(f"initial values must be {expected}, got {tuple(first.shape)}")
                parameter.data = first.clone()

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Map one feature."""
        inputs: Tensor = features[self.module_input_name]
        outputs = self.activation_function(row_linear(inputs, self.linear.weight, self.linear.bias))
        if self.use_residual:
            outputs = outputs + (
                inputs if self.in_features == self.out_features else row_linear(inputs, self.residual.weight, None)
            )
        return Features({**features, self.module_output_name: outputs})

    def get_embedding_dimension(self) -> int | None:
        """Return ``out_features``."""
        return self.out_features

    def get_config_dict(self) -> dict[str, Any]:
        """Return the configuration; ``use_residual`` only where it is used, since older readers do not know it."""
        kind = type(self.activation_function)
        name = f"{kind.__module__}.{kind.__qualname__}"
        config = {**super().get_config_dict(), "activation_function": name}
        if not self.use_residual:
            del config["use_residual"]
        return config

    def save(self, folder: str | Path) -> None:
        """Write configuration and weights.

        Raises:
            ValueError: If the activation is not one that a file may name.
        """
        name = self.get_config_dict()["activation_function"]
        if name not in ACTIVATIONS:
            raise ValueError(f"activation_function {name} cannot be saved; choose from {sorted(ACTIVATIONS)}")
        super().save(folder)
        write_tensors(Path(folder), self.state_dict())

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a module from its folder, strictly."""
        config = cls.load_config(Path(folder))
        module: Self = without_values(cls.from_config, config, Path(folder))
        load_weights(module, Path(folder))
        return module

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path, *, parts: Mapping[str, Any] | None = None) -> Self:
        """Build a module from its configuration, where the activation is a name."""
        name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
        if name not in ACTIVATIONS:
            raise ConfigError(
                f"unknown activation {name!r}; choose from {sorted(ACTIVATIONS)}",
                path=folder / cls.config_file_name,
                field="activation_function",
            )
        return super().from_config({**config, "activation_function": ACTIVATIONS[name]()}, folder, parts=parts)
