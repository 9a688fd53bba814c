"""The README.md of a saved model: what it is, how long its inputs may be, how to use it.

It says only what it can read off the model or was told; results are not made up and nothing is fetched. What it tells
of training is in the other files of this name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sparse_encoder.checkpoint.hub_card import PLACEHOLDER_ID, named_card
from sparse_encoder.model_card_base import ModelCardData
from sparse_encoder.model_card_markdown import code, fence, one_line, sentence_list, with_article
from sparse_encoder.model_card_sections import base_model_fact, dataset_names, training_parts
from sparse_encoder.model_card_usage import usage_code
from sparse_encoder.modules import Router, SparseAutoEncoder, SparseStaticEmbedding, SpladePooling, Transformer

if TYPE_CHECKING:
    from sparse_encoder.model import SparseEncoder

SPARSE_ENCODER = "Sparse Encoder"

TRAINED_TAG = "generated_from_trainer"
"""The tag of a model that was trained since it was loaded: its old README no longer describes it."""

_KINDS = (
    (Router, "Asymmetric"),
    (SparseStaticEmbedding, "Inference-free"),
    (SpladePooling, "SPLADE"),
    (SparseAutoEncoder, "CSR"),
)

_SIMILARITY_NAMES = {
    "cosine": "Cosine Similarity",
    "dot": "Dot Product",
    "euclidean": "Euclidean Distance",
    "manhattan": "Manhattan Distance",
}


@dataclass
class SparseEncoderModelCardData(ModelCardData):
    """What is told of a SparseEncoder in its README.

    Args:
        language: Language codes, for example ``"en"`` or ``["en", "de"]``.
        license: Licence identifier, for example ``"apache-2.0"``.
        model_name: Title of the card.
        model_id: Hub id, ``"owner/name"``, for the usage code.
        train_datasets: Datasets the model was trained on: ``{"name": ..., "id": ...}``, one of the two at least. What a
            trainer finds out about them is added.
        eval_datasets: Datasets it was evaluated on, in the same form.
        task_name: What it is for; by default "semantic search and sparse retrieval".
        tags: Tags of the card; those that follow from the model's parts and its training are added.
        local_files_only: Whether to stay off the hub. No card asks the hub for anything, so this always holds.
        generate_widget_examples: Whether texts of the training data may be shown for trying the model.
    """

    default_task_name: ClassVar[str] = "semantic search and sparse retrieval"
    pipeline_tag: ClassVar[str | None] = "feature-extraction"

    tags: list[str] = field(default_factory=lambda: ["sentence-transformers", "sparse-encoder", "sparse"])
    model_type: str = field(default=SPARSE_ENCODER, init=False)
    """The kind of model, by its parts."""

    def register_model(self, model: SparseEncoder) -> None:
        """Add what follows from the model's parts."""
        kinds = _kinds(model)
        self.model_type = " ".join([*kinds, SPARSE_ENCODER])
        self.add_tags(kind.lower() for kind in kinds)
        origins = (getattr(module, "origin", None) for module in model.modules())
        origin = next(filter(None, origins), None)
        if self.base_model is None and origin is not None:
            self.set_base_model(*origin)

    def get_default_model_name(self) -> str:
        """Return the title of a card that was given none."""
        return f"{self.model_type} based on {self.base_model}" if self.base_model else self.model_type


def card_text(model: SparseEncoder, card: SparseEncoderModelCardData, readme: str | None) -> str:
    """Return the README of a model: the one it was loaded with as long as it was not trained, else a new one.

    Args:
        model: The model as it is now.
        card: What its author says about it.
        readme: The README it was loaded with, if there was one.

    Returns:
        Markdown with front matter.
    """
    if readme is None or TRAINED_TAG in card.tags:
        return write_card(model, card)
    return named_card(readme, card.model_id) if card.model_id else readme


def write_card(model: SparseEncoder, card: SparseEncoderModelCardData) -> str:
    """Write the README of a model: front matter and body.

    Args:
        model: The model as it is now.
        card: What its author says about it.

    Returns:
        Markdown.
    """
    card.bring_up_to_date()
    card.register_model(model)
    title = card.model_name or card.get_default_model_name()
    dim = model.get_embedding_dimension()
    space = f"{with_article(dim)}-dimensional sparse vector space" if dim else "a sparse vector space"
    named = dataset_names(card.train_datasets)
    data = f" trained on {sentence_list(named)}" if named else ""
    parts = [
        f"---\n{card.to_yaml()}\n---",
        f"# {one_line(title)}",
        f"This is a [sparse-encoder](https://pypi.org/project/sparse-encoder/) model{data}. It maps texts to {space} "
        f"and can be used for {one_line(str(card.task_name))}.",
        "## Model details",
        _facts(model, card),
        "### Model sources",
        "- **Repository:** [sparse-encoder](https://pypi.org/project/sparse-encoder/)\n"
        "- **Models alike:** [on the hub](https://huggingface.co/models?other=sparse-encoder)",
        "### Architecture",
        fence(str(model)),
        "## Usage",
        fence("pip install sparse-encoder", "bash"),
        usage_code(model, card.model_id or PLACEHOLDER_ID, card.usage_examples),
        "The folder has the layout of sentence-transformers: its `SparseEncoder` loads the model too.",
        *training_parts(card),
    ]
    return "\n\n".join(parts) + "\n"


def _kinds(model: SparseEncoder) -> list[str]:
    """Name the kinds of model whose parts are there."""
    return [kind for part, kind in _KINDS if any(isinstance(module, part) for module in model.modules())]


def _decoder_fact(model: SparseEncoder) -> str | None:
    """Tell of a backbone that was made to write; None of any other."""
    for module in model.modules():
        if isinstance(module, Transformer) and module.auto_model.family.is_decoder:
            sees = "all others" if module.bidirectional else "those before it"
            begin = "" if module.tokenizer.add_bos_token else "; texts have no begin token"
            return f"a decoder, `{module.auto_model.architecture}`, each token of which sees {sees}{begin}"
    return None


def _facts(model: SparseEncoder, card: SparseEncoderModelCardData) -> str:
    """List what is known of the model, a line each."""
    length = model.max_seq_length
    prompts = ", ".join(f"{name} {_quoted(prompt)}" for name, prompt in model.prompts.items() if prompt)
    facts = {
        "Model type": card.model_type,
        "Base model": base_model_fact(card),
        "Backbone": _decoder_fact(model),
        "Maximum sequence length": f"{length} tokens" if length else None,
        **_lengths_of_tasks(model),
        "Output dimensionality": f"{model.get_embedding_dimension()} dimensions",
        "Active dimensions": f"at most {model.max_active_dims}" if model.max_active_dims else None,
        "Similarity function": _SIMILARITY_NAMES[model.similarity_fn_name],
        "Supported modality": "Text",
        "Prompts": prompts or None,
        "Training datasets": ", ".join(dataset_names(card.train_datasets)) or None,
        "Evaluation datasets": ", ".join(dataset_names(card.eval_datasets)) or None,
        "Language": ", ".join(card.language or ()) or None,
        "License": one_line(card.license) if card.license else None,
    }
    return "\n".join(f"- **{name}:** {value}" for name, value in facts.items() if value)


def _quoted(prompt: str) -> str:
    return code(repr(prompt)) if "`" in prompt else f"`{prompt!r}`"


def _lengths_of_tasks(model: SparseEncoder) -> dict[str, str]:
    """Tell the lengths at which queries and documents are cut, where they are not those of other texts."""
    first = model.input_module
    lengths = {task: getattr(first, f"{task}_length", None) for task in ("query", "document")}
    return {f"Maximum {task} length": f"{length} tokens" for task, length in lengths.items() if length}
