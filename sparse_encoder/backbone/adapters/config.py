"""What an adapter is: its rank, its scale and the layers it stands on, under the names that PEFT has for them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields
from math import sqrt
from typing import Any

BIASES = ("all", "lora_only", "none")
ALL_LINEAR = "all-linear"
INITIALIZATIONS = (True, False, "gaussian")
LONGEST_EXPRESSION = 10_000
LARGEST_ALPHA = 1e6
"""Beyond any that is of use: a file with a larger one is damaged."""
DIRECTION = "is_causal"
"""Key of ``auto_mapping``, and of decoders' configurations."""
_INFORMATION = (
    "fan_in_fan_out",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
)
"""Fields of PEFT that change nothing by themselves."""
_NEUTRAL: tuple[object, ...] = (None, False, {}, [])
"""What a field of PEFT's that is not ours may hold: nothing that it would do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    r"""Describe one low-rank adapter; the fields are those of ``peft.LoraConfig`` that are offered here.

    A linear layer with weight W computes

    .. math:: W x + s \, B A \, d(x), \qquad s = \alpha / r \; \text{or, with use\_rslora,} \; \alpha / \sqrt r

    where d is dropout, A is (r, in) and B is (out, r).

    Adapters of all families but GTE and Nomic BERT can be exchanged with PEFT: for those two, transformers gives
    modules other names and shapes than the files of the models have, which are the names here.

    Sources: Hu et al., 2021, https://arxiv.org/abs/2106.09685; Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732.

    Raises:
        ValueError: If a value is out of range, or two do not go together.
    """

    r: int = 8
    target_modules: str | Sequence[str] | None = None
    """Ends of names of linear layers, one regular expression for whole names, or ``"all-linear"``: all but the head.
    A decoder's head may be named (``"lm_head"``): the changes concern the scores alone, also where it is tied to the
    words.
    Names are those of the family's files (``"query"``, ``"Wqkv"``) or ours (``"attention.q"``). None: the projections
    to queries and values, or the one that makes both."""
    exclude_modules: str | Sequence[str] | None = None
    """Layers that are left out, named likewise."""
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    bias: str = "none"
    """Which biases the adapter has copies of, to train: ``"none"``, ``"all"``, or ``"lora_only"``, those of its layers.
    Unlike in PEFT the base keeps its own, and has them again when the adapter is disabled."""
    use_rslora: bool = False
    modules_to_save: Sequence[str] | None = None
    """Modules whose parameters the adapter has copies of, to train; named as above. Of a head that is tied to the word
    embeddings (``"lm_head"``, ``"decoder"``), or of those, the copy is one of its own, and the other table stays the
    base's, as in PEFT."""
    init_lora_weights: bool | str = True
    """B starts at zero, so that nothing changes at first, and A uniform, or normal for ``"gaussian"``. False: both are
    uniform."""
    layers_to_transform: int | Sequence[int] | None = None
    """Numbers of layers; the others are left out."""
    layers_pattern: str | Sequence[str] | None = None
    """What stands before the number of a layer in its name, where that is not the first number."""
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    """Another ``r`` for some layers, by regular expressions for the end of their names."""
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    """Another ``lora_alpha`` likewise."""
    task_type: str | None = None
    """Written into the file, for PEFT."""
    base_model_name_or_path: str | None = None
    """Folder or repository of the model that the adapter stands on; filled in when it is added."""
    revision: str | None = None
    """Of that repository."""
    inference_mode: bool = False
    """Whether the adapter is not to be trained."""
    auto_mapping: Mapping[str, Any] | None = None  # Any: JSON
    """Which class PEFT opens the base with; here also ``is_causal``: false for an adapter of a decoder each token of
    which sees all others. It is filled in when the adapter is written; PEFT keeps it and does not look at it."""

    def __post_init__(self) -> None:
        """Check every value."""
        self._check_numbers()
        for name, choices in (("bias", BIASES), ("init_lora_weights", INITIALIZATIONS)):
            value = getattr(self, name)
            if value not in choices or isinstance(value, int) and not isinstance(value, bool):
                raise ValueError(f"{name} must be one of {list(choices)}, got {value!r:.80}")
        for name in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"):
            self._check_names(name)
        if isinstance(self.modules_to_save, str):
            raise ValueError(f"modules_to_save must be a list of names, got {self.modules_to_save!r:.80}")
        for name in ("use_rslora", "inference_mode"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r:.80}")
        layers = self.layers_to_transform
        layers = (layers,) if isinstance(layers, int) else () if layers is None else layers
        if not isinstance(layers, Sequence) or any(
            isinstance(layer, bool) or not isinstance(layer, int) or layer < 0 for layer in layers
        ):
            raise ValueError(f"layers_to_transform must hold numbers of layers, got {self.layers_to_transform!r:.80}")
        if layers and isinstance(self.target_modules, str):
            raise ValueError("layers_to_transform needs target_modules as a list of names, not a regular expression")
        for name in ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
            self._check_expressions(name)
        if self.layers_pattern and not layers:
            raise ValueError("layers_pattern says where the numbers of layers_to_transform are; give both or neither")

        self._check_mapping()

    def _check_mapping(self) -> None:
        values = {} if self.auto_mapping is None else self.auto_mapping
        if not isinstance(values, Mapping) or not all(
            isinstance(each, (str, bool, type(None))) and isinstance(name, str) for name, each in values.items()
        ):
            raise ValueError(f"auto_mapping must map names to texts, true or false, got {self.auto_mapping!r:.80}")
        if not isinstance(values.get(DIRECTION, False), bool):
            raise ValueError(f"{DIRECTION} of auto_mapping must be true or false, got {values[DIRECTION]!r:.80}")

    @property
    def is_causal(self) -> bool | None:
        """Whether each token of the base saw those before it alone; None if nothing is said of it."""
        return (self.auto_mapping or {}).get(DIRECTION)

    def _check_numbers(self) -> None:
        for name in ("rank_pattern", "alpha_pattern"):
            if not isinstance(getattr(self, name), Mapping) or not all(getattr(self, name)):
                raise ValueError(f"{name} must map expressions to numbers, got {getattr(self, name)!r:.80}")
        for name, value in (("r", self.r), *(("rank_pattern", each) for each in self.rank_pattern.values())):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r:.80}")
        alphas = (("lora_alpha", self.lora_alpha), *(("alpha_pattern", each) for each in self.alpha_pattern.values()))
        for name, alpha in alphas:
            if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= LARGEST_ALPHA:
                raise ValueError(f"{name} must be a number up to {LARGEST_ALPHA:g}, got {alpha!r:.80}")
        dropout = self.lora_dropout
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ValueError(f"lora_dropout must be at least 0 and below 1, got {dropout!r:.80}")

    def _check_names(self, name: str) -> None:
        value = getattr(self, name)
        if value is None or isinstance(value, str):
            return
        if not isinstance(value, (Sequence, Set)) or not all(isinstance(each, str) and each for each in value):
            raise ValueError(f"{name} must be a text or a list of names, got {value!r:.80}")

    def _check_expressions(self, name: str) -> None:
        value = getattr(self, name) or ()
        if not isinstance(value, (str, Mapping)) and name != "layers_pattern":
            return  # names
        for expression in (value,) if isinstance(value, str) else value:
            if not isinstance(expression, str) or len(expression) > LONGEST_EXPRESSION:
                raise ValueError(f"{name} must have texts of up to {LONGEST_EXPRESSION} characters")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)
                    re.compile(expression)
            except (re.error, RecursionError, OverflowError) as reason:
                raise ValueError(f"{name} {expression!r:.80} is no regular expression: {reason}") from reason

    def scaling(self, rank: int, alpha: float) -> float:
        """Return s for a layer of this rank and alpha."""
        return alpha / sqrt(rank) if self.use_rslora else alpha / rank

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file that PEFT reads."""
        values = {name: _plain(value) for name, value in asdict(self).items()}
        return {**values, "peft_type": "LORA"}

    @classmethod
    def of(cls, value: object) -> LoraConfig:
        """Return a config of ours, also from one of ``peft``'s.

        Raises:
            TypeError: If it is neither.
            ValueError: As :meth:`from_dict`.
        """
        if isinstance(value, cls):
            return value
        to_dict = getattr(value, "to_dict", None)
        if callable(to_dict) and hasattr(value, "peft_type"):
            return cls.from_dict(to_dict())
        raise TypeError(f"adapter_config must be a LoraConfig, got {type(value).__name__}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoraConfig:
        """Read what PEFT calls a LoRA config.

        Args:
            values: Its fields. Those that are not ours may be there as long as they would do nothing.

        Raises:
            ValueError: If it is of another kind, a field that is not ours would do something, or a value is wrong.
        """
        kind = values.get("peft_type")
        if not isinstance(kind, str) or str(getattr(kind, "value", kind)) != "LORA":
            raise ValueError(f"peft_type must be 'LORA', got {kind!r:.80}")
        names = {each.name for each in fields(cls)}
        for name, value in values.items():
            if name not in names and name not in (*_INFORMATION, "peft_type") and value not in _NEUTRAL:
                raise ValueError(f"{name} is not supported, and it is {value!r:.80}; choose from {sorted(names)}")
        known = {name: _plain(value) for name, value in values.items() if name in names}
        optional = ("rank_pattern", "alpha_pattern")
        return cls(**{name: value for name, value in known.items() if value is not None or name not in optional})


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Turn sets and tuples into lists, in an order that is always the same, and enumerations into texts."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return getattr(value, "value", value)
