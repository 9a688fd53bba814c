"""``from_pretrained``, and what a class of models says about itself for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, overload

from torch import Tensor, nn

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.families.family import Family, Rows
from sparse_encoder.backbone.loading.load import load_pretrained
from sparse_encoder.backbone.loading.options import load_options
from sparse_encoder.backbone.weights import LoadingInfo, LoadReport
from sparse_encoder.checkpoint import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

    from sparse_encoder.backbone.pretrained import PretrainedModel

NameOrPath = str | Path | None


class ModelLoading(nn.Module):
    """Come from a folder or the hub; one base of a pretrained model."""

    has_head: bool
    head_may_be_new: ClassVar[bool] = False
    """Whether a checkpoint may lack the whole head, which starts with random weights then."""
    is_pair: ClassVar[bool] = False
    """Whether there is a decoder that looks at the encoder."""
    tied_targets: ClassVar[Mapping[str, str]] = {}
    """Parameters that are another one if the config ties the word embeddings, and which; by our names."""
    load_report: LoadReport | None
    """What became of the checkpoint's tensors; None for a model of random weights."""
    hf_device_map: dict[str, Any]  # Any: what accelerate takes for a device
    """Devices by module; only a model that is spread over several has it, which is how others know."""

    @classmethod
    def head_rows(cls, family: Family) -> Rows:
        """Return the names of the head's tensors: pairs of the family's and ours."""
        return family.head_rows if cls.has_head else ()

    @classmethod
    def own_config(cls, config: TransformerConfig, family: Family, path: Path | None = None) -> TransformerConfig:
        """Return what of a config this kind of model is built from: of a pair of stacks perhaps only one.

        Args:
            config: As it was read.
            family: Whose config it is.
            path: Where it came from, for errors.

        Raises:
            ConfigError: If this kind of model is not made of what the config describes.
        """
        if family.is_pair and not cls.is_pair:
            told = f"a {family.model_type} is an encoder with a decoder, and a {cls.__name__} is one stack"
            raise ConfigError(f"{told}; take sparse_encoder.generation.Seq2SeqModel", path=path, field="model_type")
        return config

    @classmethod
    def judge_arguments(cls, names: Collection[str]) -> None:
        """Refuse arguments of the constructor that belong elsewhere, and say where; most kinds know of none.

        Args:
            names: Of the arguments.
        """

    def read_beside(self, folder: Path) -> None:
        """Read what else of a model lies in the folder of its weights; most kinds have nothing.

        Args:
            folder: That the weights came from.
        """

    @overload
    @classmethod
    def from_pretrained(
        cls,
        name_or_path: NameOrPath,
        *model_args: Any,  # noqa: ANN401
        output_loading_info: Literal[True],
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Self, LoadingInfo]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        name_or_path: NameOrPath,
        *model_args: Any,  # noqa: ANN401
        output_loading_info: Literal[False] = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> Self: ...

    @classmethod
    def from_pretrained(  # house: peer signature
        cls,
        name_or_path: NameOrPath,
        *model_args: Any,  # of a subclass's constructor
        config: Mapping[str, Any] | str | Path | None = None,  # Any: parsed JSON
        state_dict: Mapping[str, Tensor] | None = None,
        cache_dir: str | Path | None = None,
        ignore_mismatched_sizes: bool = False,
        force_download: bool = False,
        local_files_only: bool = False,
        token: bool | str | None = None,
        revision: str = "main",
        use_safetensors: bool | None = None,
        weights_only: bool = True,
        output_loading_info: bool = False,
        **kwargs: Any,  # options, values of the config, arguments of the constructor
    ) -> Self | tuple[Self, LoadingInfo]:
        """Load a model from a folder or the hub; it comes in evaluation mode.

        Loading is strict: a tensor that is missing, unexpected or of another shape is refused. Tensors are read one at
        a time into a model without memory, so the peak is the model and one tensor; a pickle is read file by file.

        Args:
            name_or_path: A folder; a repository, ``organisation/model``; or None with ``config`` and ``state_dict``.
            model_args: Positional arguments of the model's constructor, behind the configuration.
            config: The content of a ``config.json``, or its path; else that of the folder.
            state_dict: Tensors in place of files, by the names of files or by ours; they are copied.
            cache_dir: Where downloads are kept.
            ignore_mismatched_sizes: Start parameters anew whose tensors have another shape, with a warning.
            force_download: Download again what is in the cache.
            local_files_only: Use only what is in the cache, as ``HF_HUB_OFFLINE=1`` does.
            token: Access token, True for the one that is stored, False for none.
            revision: Branch, tag or commit; it is resolved to a commit once, and every file is of that commit.
            use_safetensors: True refuses pickles, False reads only them.
            weights_only: Must be True: unlike elsewhere, no pickle is ever read that needs more.
            output_loading_info: Return also what became of the tensors. Unless ``strict=True``, missing and unexpected
                ones are then told, in it and in one warning, instead of refused.
            kwargs: ``dtype`` or ``torch_dtype`` (a dtype, its name, or ``"auto"``, the default: that of the config,
                else of the index, else of the first weight); ``attn_implementation`` (``"sdpa"``, ``"eager"``);
                ``strict`` (False tells instead of refusing); ``subfolder``; ``variant`` (``"fp16"`` reads
                ``model.fp16.safetensors``); ``key_mapping`` (patterns in the files' names to what they become);
                ``device_map`` (one device, devices by module, ``"auto"``, ``"balanced"``, ``"balanced_low_0"``,
                ``"sequential"``), ``max_memory``, ``offload_folder``, ``offload_buffers``; ``base_model`` (the base of
                an adapter, in the place of the one that its file names, which must be a repository or lie in its
                folder). Keys of the configuration replace its values, unless ``config`` is its content; all others go
                to the model's constructor.

        Returns:
            The model; with ``output_loading_info``, the model and the four lists of :class:`LoadingInfo`.

        Raises:
            TypeError: If an argument is unknown or of the wrong type.
            ValueError: If an argument is not supported, unknown or contradicts another.
            FileNotFoundError: If there is no such folder, repository, revision or ``config.json``.
            NotADirectoryError: If the name is that of a file.
            ConfigError: If the config is not one of ours or has a value out of range.
            CheckpointError: If the weights are damaged, or do not fit; the message lists every tensor.
        """
        named = {
            "config": config,
            "state_dict": state_dict,
            "cache_dir": cache_dir,
            "ignore_mismatched_sizes": ignore_mismatched_sizes,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
            "use_safetensors": use_safetensors,
            "weights_only": weights_only,
            "output_loading_info": output_loading_info,
        }
        kind = cast("type[PretrainedModel]", cls)
        model = load_pretrained(kind, name_or_path, load_options(model_args, named, kwargs)).model
        assert model.load_report is not None  # it has just been loaded
        return cast("Self", model) if not output_loading_info else (cast("Self", model), model.load_report.info())
