"""The README.md of a saved model: what it is, how long its inputs may be, how to use it.

It says only what it can read off the model or was told; results are not made up and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparse_encoder.modules import Router, SparseAutoEncoder, SparseStaticEmbedding, SpladePooling

if TYPE_CHECKING:
    from sparse_encoder.model import SparseEncoder

PLACEHOLDER_ID = "sparse_encoder_model_id"
"""Stands in the usage code of a card until the model has a name; sentence-transformers writes the same."""

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
class SparseEncoderModelCardData:
    """What the author of a model says about it, for its README.

    The training tables, widget examples and energy figures of sentence-transformers' cards are not written here, so
    there are no arguments for them.

    Args:
        language: Language codes, for example ``"en"`` or ``["en", "de"]``.
        license: Licence identifier, for example ``"apache-2.0"``.
        model_name: Title of the card.
        model_id: Hub id, ``"owner/name"``, for the usage code.
        train_datasets: Datasets the model was trained on: ``{"name": ..., "id": ...}``, one of the two at least.
        eval_datasets: Datasets it was evaluated on, in the same form.
        task_name: What it is for; by default "semantic search and sparse retrieval".
        tags: Tags of the card; those that follow from the model's parts are added.
    """

    language: str | list[str] = field(default_factory=list)
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: list[dict[str, str]] = field(default_factory=list)
    eval_datasets: list[dict[str, str]] = field(default_factory=list)
    task_name: str = "semantic search and sparse retrieval"
    tags: list[str] = field(default_factory=lambda: ["sentence-transformers", "sparse-encoder", "sparse"])
    base_model: str | None = field(default=None, init=False)
    base_model_revision: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check what a README could not hold."""
        self.set_language(self.language)
        for dataset in (*self.train_datasets, *self.eval_datasets):
            if not isinstance(dataset, Mapping) or not {"name", "id"} & set(dataset):
                raise ValueError(f'a dataset must be {{"name": ..., "id": ...}} with one of the two, got {dataset!r}')

    def set_language(self, language: str | list[str]) -> None:
        """Set the language codes."""
        self.language = [language] if isinstance(language, str) else list(language)

    def set_license(self, license: str) -> None:  # noqa: A002  (the peer's name)
        """Set the licence identifier."""
        self.license = license

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags that are not there yet."""
        for tag in [tags] if isinstance(tags, str) else tags:
            if tag not in self.tags:
                self.tags.append(tag)

    def set_model_id(self, model_id: str) -> None:
        """Set the Hub id."""
        self.model_id = model_id

    def set_base_model(self, model_id: str, revision: str | None = None) -> None:
        """Set the model this one started from."""
        self.base_model, self.base_model_revision = model_id, revision

    def add_train_datasets(self, names: Iterable[str]) -> None:
        """Add datasets that are not there yet, by their hub id."""
        known = {dataset.get("id") for dataset in self.train_datasets}
        self.train_datasets += [{"id": name} for name in dict.fromkeys(names) if name not in known]

    def register_model(self, model: SparseEncoder) -> None:
        """Add the tags that follow from the model's parts."""
        self.add_tags(kind.lower() for kind in _kinds(model))

    def to_yaml(self) -> str:
        """Write the front matter, without its fences."""
        from huggingface_hub import ModelCardData  # heavy, and of use only here

        datasets = [dataset["id"] for dataset in self.train_datasets if "id" in dataset]
        return ModelCardData(
            language=self.language or None,
            license=self.license,
            library_name="sparse-encoder",
            tags=self.tags,
            datasets=datasets or None,
            pipeline_tag="feature-extraction",
            base_model=self.base_model,
        ).to_yaml()


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
    placeholder, own = (f'SparseEncoder("{name}"' for name in (PLACEHOLDER_ID, card.model_id))
    return readme.replace(placeholder, own) if card.model_id else readme


def write_card(model: SparseEncoder, card: SparseEncoderModelCardData) -> str:
    """Write the README of a model: front matter and body.

    Args:
        model: The model as it is now.
        card: What its author says about it.

    Returns:
        Markdown.
    """
    card.register_model(model)
    kind = " ".join([*_kinds(model), "Sparse Encoder"])
    title = card.model_name or (f"{kind} based on {card.base_model}" if card.base_model else kind)
    dim = model.get_embedding_dimension()
    space = f"a {dim}-dimensional sparse vector space" if dim else "a sparse vector space"
    return f"""---
{card.to_yaml().strip()}
---

# {title}

This is a [sparse-encoder](https://pypi.org/project/sparse-encoder/) model. It maps texts to {space} and can be used for
{card.task_name}.

## Model details

{_facts(model, card, kind)}

### Architecture

```
{model}
```

## Usage

```bash
pip install sparse-encoder
```

{_usage(model, card)}

The folder has the layout of sentence-transformers: its `SparseEncoder` loads the model too.
"""


def _kinds(model: SparseEncoder) -> list[str]:
    """Name the kinds of model whose parts are there."""
    return [kind for part, kind in _KINDS if any(isinstance(module, part) for module in model.modules())]


def _facts(model: SparseEncoder, card: SparseEncoderModelCardData, kind: str) -> str:
    """List what is known of the model, a line each."""
    revision = f" at revision `{card.base_model_revision}`" if card.base_model_revision else ""
    length = model.max_seq_length
    prompts = ", ".join(f"{name} `{prompt!r}`" for name, prompt in model.prompts.items() if prompt)
    languages = ", ".join(card.language)
    facts = {
        "Model type": kind,
        "Base model": f"`{card.base_model}`{revision}" if card.base_model else None,
        "Maximum sequence length": f"{length} tokens" if length else None,
        "Output dimensionality": f"{model.get_embedding_dimension()} dimensions",
        "Active dimensions": f"at most {model.max_active_dims}" if model.max_active_dims else None,
        "Similarity function": _SIMILARITY_NAMES[model.similarity_fn_name],
        "Prompts": prompts or None,
        "Training datasets": _dataset_names(card.train_datasets),
        "Evaluation datasets": _dataset_names(card.eval_datasets),
        "Language": languages or None,
        "License": card.license,
    }
    return "\n".join(f"- **{name}:** {value}" for name, value in facts.items() if value)


def _dataset_names(datasets: list[dict[str, str]]) -> str | None:
    """Name datasets in one line; ``None`` if there are none."""
    return ", ".join(dataset.get("name") or dataset["id"] for dataset in datasets) or None


def _usage(model: SparseEncoder, card: SparseEncoderModelCardData) -> str:
    """Write the code that encodes and compares texts with this model."""
    tokens = (
        ""
        if any(isinstance(module, SparseAutoEncoder) for module in model.modules())
        else ("print(model.decode(query_embeddings[0], top_k=5))  # the terms that weigh most\n")
    )
    return f"""```python
from sparse_encoder import SparseEncoder

model = SparseEncoder("{card.model_id or PLACEHOLDER_ID}")
query_embeddings = model.encode_query(["what causes rain?"])
document_embeddings = model.encode_document(["Clouds form drops.", "Bread is baked from flour and water."])
print(query_embeddings.shape, document_embeddings.shape)
print(model.similarity(query_embeddings, document_embeddings))  # one row per query, one column per document
{tokens}```"""
