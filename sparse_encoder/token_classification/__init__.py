"""Tagging of words: named entities, parts of speech, chunks; on any encoder of the library."""

from __future__ import annotations

from sparse_encoder.backbone.label_maps import label_maps
from sparse_encoder.token_classification.alignment import align_labels_with_tokens, tokenize_and_align_labels
from sparse_encoder.token_classification.collator import DataCollatorForTokenClassification
from sparse_encoder.token_classification.conll import load_conll, write_conll
from sparse_encoder.token_classification.factory import pipeline
from sparse_encoder.token_classification.label_names import get_label_names
from sparse_encoder.token_classification.metrics import (
    EntityMetrics,
    WordMetrics,
    entity_scores,
    labels_of_words,
    word_accuracy,
)
from sparse_encoder.token_classification.model import TokenClassificationModel, TokenClassifierOutput
from sparse_encoder.token_classification.spans import Span, load_spans, tags_of_spans
from sparse_encoder.token_classification.tagging_pipeline import TokenClassificationPipeline
from sparse_encoder.token_classification.tags import (
    Entity,
    check_tags,
    convert_tags,
    detect_scheme,
    find_entities,
    write_tags,
)

__all__ = [
    "DataCollatorForTokenClassification",
    "Entity",
    "EntityMetrics",
    "Span",
    "TokenClassificationModel",
    "TokenClassificationPipeline",
    "TokenClassifierOutput",
    "WordMetrics",
    "align_labels_with_tokens",
    "check_tags",
    "convert_tags",
    "detect_scheme",
    "entity_scores",
    "find_entities",
    "get_label_names",
    "label_maps",
    "labels_of_words",
    "load_conll",
    "load_spans",
    "pipeline",
    "tags_of_spans",
    "tokenize_and_align_labels",
    "word_accuracy",
    "write_conll",
    "write_tags",
]
