"""How `generate` is to choose tokens and when it is to stop: one object of plain values, saved beside a model.

Knows nothing of models, and what each value does is where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.loading.options import HubOptions
from sparse_encoder.checkpoint import ConfigError, write_text
from sparse_encoder.generation.callers import warn
from sparse_encoder.generation.config_fields import (
    FIELDS,
    NOT_OFFERED,
    FieldError,
    check_name,
    check_not_offered,
    checked,
    is_field,
)
from sparse_encoder.generation.config_files import (
    GENERATION_CONFIG_NAME,
    fetch_folder,
    json_text,
    read_file,
    sort_values,
    values_for_file,
    values_of_model,
    write_file,
)
from sparse_encoder.generation.config_rules import EXTRA_OUTPUTS, check_together, minor_issues
from sparse_encoder.generation.modes import GenerationMode


class GenerationConfig:
    """Describe how text is to be generated; the fields are those of transformers' class of this name.

    A field that is None is not set: `generate` then takes the model's, and else the default. Fields can be assigned;
    each assignment checks its value. Fields of transformers that are not offered here (groups of beams, contrastive
    search, constraints, watermarks, guidance, assistants) are accepted as long as they would do nothing. A file may
    hold any of those that change no token by themselves; they are kept and written again.

    Unlike transformers' class it has no fields but these: another name is an error. Names in a file that neither
    knows are kept and written again, and do nothing; a warning tells of those that are nearly a field's.

    Args:
        values: Fields by their names.

    Raises:
        TypeError: If there is no field of a name.
        FieldError: If a value is of the wrong type or out of range, if two contradict each other, if a field that is
            not offered would do something, or if a name is one of the arguments of `generate`; it is a ValueError.
    """

    max_length: int | None = None
    """Tokens of a result, the prompt's included (but for encoder-decoder models, which count the decoder's)."""
    max_new_tokens: int | None = None
    """Tokens to generate; goes before ``max_length``."""
    min_length: int | None = None
    """Tokens of a result before it may end, the prompt's included."""
    min_new_tokens: int | None = None
    early_stopping: bool | str | None = None
    """When beam search ends: True as soon as there are ``num_beams`` results, False when better ones are unlikely,
    ``"never"`` when there can be none."""
    max_time: float | None = None
    """Seconds after which no further token is begun."""
    stop_strings: str | list[str] | None = None
    """Texts that end a result; `generate` then needs the tokenizer."""

    do_sample: bool | None = None
    num_beams: int | None = None

    use_cache: bool | None = None
    cache_implementation: str | None = None
    """``"dynamic"`` or ``"static"``."""
    max_cache_len: int | None = None
    """Places of a static cache, if it is to have more than the call needs."""

    temperature: float | None = None
    """Divides the scores."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    length_penalty: float | None = None
    """Power of the number of generated tokens that the score of a beam is divided by: above 0 favours long results."""
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    bad_words_ids: list[list[int]] | None = None
    renormalize_logits: bool | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    remove_invalid_values: bool | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    sequence_bias: dict[tuple[int, ...], float] | None = None

    num_return_sequences: int | None = None
    output_attentions: bool | None = None
    output_hidden_states: bool | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None
    return_dict_in_generate: bool | None = None

    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    """Ends of texts; -1 for none, also where the model's config names some."""
    decoder_start_token_id: int | list[int] | None = None
    """One for all rows or one for each."""

    _others: dict[str, Any]  # Any: JSON that nobody here reads
    _as_loaded: dict[str, Any] | None

    def __init__(self, **values: object) -> None:
        object.__setattr__(self, "_others", {})
        object.__setattr__(self, "_as_loaded", None)
        for name, value in values.items():
            setattr(self, name, value)
        self.validate()

    def __setattr__(self, name: str, value: object) -> None:
        """Check a value and set the field."""
        check_name(name)
        self._others.pop(name, None)
        if name in NOT_OFFERED:
            check_not_offered(name, value)
        else:
            object.__setattr__(self, name, checked(name, value))

    if not TYPE_CHECKING:  # or a checker would take every name for a field

        def __getattr__(self, name: str) -> object:
            """Return what a file says of a field that is not offered; None where it says nothing."""
            if name in NOT_OFFERED:
                return self._others.get(name)
            raise AttributeError(f"a generation config has no field {name!r}")

    def __eq__(self, other: object) -> bool:
        """Return whether all fields are equal."""
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        """Show the fields that are set."""
        return f"GenerationConfig({', '.join(f'{name}={value!r}' for name, value in self.to_diff_dict().items())})"

    def copy(self) -> GenerationConfig:
        """Return a config of its own with the same values."""
        return deepcopy(self)

    def validate(self, strict: bool = False) -> None:
        """Check how the fields go together.

        Args:
            strict: Refuse also what would only have no effect; else a warning tells of it.

        Raises:
            FieldError: If a value is out of range or two contradict each other.
            ValueError: With ``strict``, if a field would have no effect.
        """
        check_together(self)
        if issues := minor_issues(self):
            text = "; ".join(f"{name} {reason}" for name, reason in issues.items())
            if strict:
                raise ValueError(f"the generation config has fields that would have no effect: {text}")
            warn(f"fields of the generation config have no effect: {text}")

    def update(self, defaults_only: bool = False, **values: object) -> dict[str, object]:
        """Set several fields, all or none.

        Args:
            defaults_only: Leave those alone that are set.
            values: Fields by their names.

        Returns:
            The values whose names are no fields.

        Raises:
            FieldError: As the constructor; nothing is changed then.
        """
        changed, used = self.copy(), set()
        for name, value in values.items():
            if name in FIELDS and not (defaults_only and getattr(self, name) is not None) or name in NOT_OFFERED:
                setattr(changed, name, value)
                used.add(name)
        check_together(changed)
        if issues := {name: reason for name, reason in minor_issues(changed).items() if name in used}:
            text = "; ".join(f"{name} {reason}" for name, reason in issues.items())
            warn(f"fields of the generation config have no effect: {text}")
        for name in used:
            setattr(self, name, getattr(changed, name, None))
        return {name: value for name, value in values.items() if name not in used}

    def get_generation_mode(self, assistant_model: None = None) -> GenerationMode:
        """Return how tokens are chosen, as far as this config says it; an assistant raises a FieldError."""
        if assistant_model is not None:
            raise FieldError("assistant_model", "is not offered: speculation with a second model; leave it out")
        return GenerationMode.of(num_beams=self.num_beams or 1, do_sample=self.do_sample is True)

    def to_dict(self) -> dict[str, Any]:  # Any: FIELDS has the type of each
        """Return all fields, and what a file had besides; the values are copies."""
        return deepcopy({**{name: getattr(self, name) for name in FIELDS}, **self._others})

    def to_diff_dict(self) -> dict[str, Any]:  # Any: FIELDS has the type of each
        """Return the fields that are set, and what a file had besides; the values are copies."""
        return {name: value for name, value in self.to_dict().items() if name in self._others or value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: object) -> GenerationConfig:  # Any: JSON
        """Make a config of what a file holds.

        Args:
            values: Fields by their names; other names are kept and do nothing.
            changes: Fields that take the place of those in ``values``.

        Raises:
            TypeError: If there is no field of a name in ``changes``.
            FieldError: As the constructor.
        """
        config, found = cls(), sort_values(values)
        config._others.update(deepcopy(found.others))
        for name, value in {**found.fields, **changes}.items():
            setattr(config, name, value)
        check_together(config)
        return config

    @classmethod
    def from_model_config(
        cls,
        model_config: TransformerConfig | Mapping[str, Any],  # Any: JSON
    ) -> GenerationConfig:
        """Take what a model's ``config.json`` says about generation, as those of older models do.

        Args:
            model_config: ``model.config``, or the file's content. What is not there is looked for in its part about the
                decoder.

        Raises:
            FieldError: As the constructor.
        """
        values = model_config.published if isinstance(model_config, TransformerConfig) else model_config
        config = cls.from_dict(values_of_model(values))
        if config.return_dict_in_generate is not True and any(getattr(config, name) is True for name in EXTRA_OUTPUTS):
            config.return_dict_in_generate = True
        return _remembered(config)

    if TYPE_CHECKING:

        @overload
        @classmethod
        def from_pretrained(
            cls,
            pretrained_model_name: str | os.PathLike[str],
            config_file_name: str | None = None,
            *,
            return_unused_kwargs: Literal[True],
            **changes: Any,  # noqa: ANN401
        ) -> tuple[GenerationConfig, dict[str, object]]: ...

        @overload
        @classmethod
        def from_pretrained(
            cls,
            pretrained_model_name: str | os.PathLike[str],
            config_file_name: str | None = None,
            *,
            return_unused_kwargs: Literal[False] = False,
            **changes: Any,  # noqa: ANN401
        ) -> GenerationConfig: ...

    @classmethod
    def from_pretrained(  # house: peer signature
        cls,
        pretrained_model_name: str | os.PathLike[str],
        config_file_name: str | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        return_unused_kwargs: bool = False,
        **changes: Any,  # fields
    ) -> GenerationConfig | tuple[GenerationConfig, dict[str, object]]:
        """Read a config that was saved beside a model.

        Args:
            pretrained_model_name: Folder or repository of the model.
            config_file_name: The file in it; None for ``generation_config.json``.
            cache_dir: Where downloads are kept; None for the hub client's cache.
            force_download: Download again what is in the cache.
            local_files_only: Use only what is in the cache.
            token: Access token for the hub.
            revision: Branch, tag or commit.
            subfolder: Of the folder or repository.
            return_unused_kwargs: Return those of ``changes`` that are no fields, instead of refusing them.
            changes: Fields that take the place of those in the file.

        Returns:
            The config; with ``return_unused_kwargs`` the config, and what is no field by its name.

        Raises:
            FileNotFoundError: If there is no such folder, repository or file.
            ConfigError: If the file is no JSON, a field cannot hold its value, or one that is not offered would do
                something.
            TypeError: If there is no field of a name in ``changes``, or an option of the hub is of another type.
        """
        name = GENERATION_CONFIG_NAME if config_file_name is None else os.fspath(config_file_name)
        hub = HubOptions(
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
            subfolder=subfolder or "",  # scripts also give None
        )
        folder = fetch_folder(pretrained_model_name, name, hub)
        try:
            config = _remembered(cls.from_dict(read_file(folder, name)))
        except FieldError as reason:
            raise ConfigError(reason.rule, path=folder / name, field=reason.field) from reason
        unused = {each: changes.pop(each) for each in list(changes) if return_unused_kwargs and not is_field(each)}
        for field, value in changes.items():
            setattr(config, field, value)
        check_together(config)
        return (config, unused) if return_unused_kwargs else config

    def save_pretrained(self, save_directory: str | os.PathLike[str], config_file_name: str | None = None) -> None:
        """Write the fields that are set beside a model; transformers reads the file as well.

        Args:
            save_directory: The folder; made if it is not there.
            config_file_name: The file in it; None for ``generation_config.json``.

        Raises:
            ValueError: If a field would have no effect, unless all is as it was loaded.
            FieldError: As :meth:`validate`, or if a bias is infinite, which a file cannot hold.
            NotADirectoryError: If the folder is a file.
        """
        write_file(save_directory, config_file_name or GENERATION_CONFIG_NAME, self.to_file())

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return what :meth:`save_pretrained` would write, without the checks of :meth:`validate`.

        Args:
            use_diff: Leave out the fields that are not set.

        Raises:
            FieldError: If a bias is infinite, which JSON cannot hold.
        """
        return json_text(values_for_file(self.to_diff_dict() if use_diff else self.to_dict()))

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write what :meth:`to_json_string` returns.

        Args:
            json_file_path: The file; its folder is there.
            use_diff: Leave out the fields that are not set.

        Raises:
            FieldError: If a bias is infinite, which JSON cannot hold.
        """
        write_text(Path(json_file_path), self.to_json_string(use_diff))

    def to_file(self) -> dict[str, Any]:  # Any: JSON
        """Return what a file of this config holds.

        Raises:
            ValueError: If a field would have no effect, unless all is as it was loaded.
            FieldError: As :meth:`validate`, or if a bias is infinite, which a file cannot hold.
        """
        if self.to_dict() == self._as_loaded:
            check_together(self)
        else:
            self.validate(strict=True)
        return values_for_file(self.to_diff_dict())


def _remembered(config: GenerationConfig) -> GenerationConfig:
    """Note that this is what was loaded, which may be saved as it is."""
    object.__setattr__(config, "_as_loaded", config.to_dict())
    return config
