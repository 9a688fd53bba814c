"""Which fields of a generation config go together: what is refused, and what would have no effect.

Knows neither files nor models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparse_encoder.generation.config_fields import FieldError

if TYPE_CHECKING:
    from sparse_encoder.generation.config import GenerationConfig

EXTRA_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
_OF_SAMPLING = {
    "temperature": (1.0,),
    "top_p": (1.0,),
    "min_p": (),
    "top_h": (),
    "typical_p": (1.0,),
    "top_k": (50,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
"""What means something to sampling alone, and the values that would change nothing."""
_OF_BEAMS = {"early_stopping": (False,), "length_penalty": (1.0,)}


def check_together(config: GenerationConfig) -> None:
    """Refuse what `generate` could not do.

    Args:
        config: Its fields hold values that are right by themselves.

    Raises:
        FieldError: If two values contradict each other.
    """
    _check_sequences(config.num_return_sequences or 1, config.num_beams or 1, config.do_sample is True)
    if config.suppress_tokens is not None:
        for field in ("forced_bos_token_id", "forced_eos_token_id"):
            value = getattr(config, field)
            forced = [value] if isinstance(value, int) else value or []
            if forced and set(forced) <= set(config.suppress_tokens):
                raise FieldError(
                    field,
                    f"must not be among suppress_tokens, got {value}: nothing could be chosen where it is forced; take "
                    "it out of one of them (to put off the end of a text, use min_new_tokens)",
                )


def _check_sequences(returned: int, beams: int, samples: bool) -> None:
    if returned == 1:
        return
    if beams == 1 and not samples:
        raise FieldError(
            "num_return_sequences",
            f"must be 1 where nothing is drawn and there is one beam, got {returned}; set do_sample=True or num_beams",
        )
    if 1 < beams < returned:
        raise FieldError("num_return_sequences", f"must be at most num_beams, got {returned} and {beams}")


def minor_issues(config: GenerationConfig) -> dict[str, str]:
    """Return the fields that would have no effect, or cause trouble later, each with the reason."""
    issues: dict[str, str] = {}
    if config.pad_token_id is not None and config.pad_token_id < 0:
        issues["pad_token_id"] = f"is {config.pad_token_id}, and a batch with padding needs an id of at least 0"
    if config.do_sample is not True:
        for field in _with_effect(config, _OF_SAMPLING):
            issues[field] = f"is {getattr(config, field)!r} and means nothing without do_sample=True"
    if config.num_beams in (None, 1):
        for field in _with_effect(config, _OF_BEAMS):
            issues[field] = f"is {getattr(config, field)!r} and means nothing without num_beams of more than 1"
    if config.use_cache is False and config.cache_implementation is not None:
        issues["cache_implementation"] = f"is {config.cache_implementation!r} and means nothing with use_cache=False"
    if config.max_cache_len is not None and config.cache_implementation != "static":
        issues["max_cache_len"] = f"is {config.max_cache_len} and means nothing without cache_implementation='static'"
    if config.return_dict_in_generate is not True:
        for field in EXTRA_OUTPUTS:
            if getattr(config, field) is True:
                issues[field] = "is True and means nothing without return_dict_in_generate=True"
    return issues


def _with_effect(config: GenerationConfig, fields: Mapping[str, tuple[object, ...]]) -> list[str]:
    return [field for field, neutral in fields.items() if getattr(config, field) not in (None, *neutral)]
