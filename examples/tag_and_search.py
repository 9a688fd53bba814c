"""Search documents and find the names in them, with one backbone in memory and one pass over each document.

A tagger is trained on top of a frozen sparse encoder: only its classifier learns, so the encoder's vectors stay what
they were. Then each document goes through the backbone once, and its states become both a sparse vector and tags.

    python examples/tag_and_search.py documents.txt train.txt --model path/to/splade --query "who works in Berlin"
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

from sparse_encoder import SparseEmbeddings, SparseEncoder, SparseIndex
from sparse_encoder.modules import SpladePooling, Transformer
from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    TokenClassificationModel,
    find_entities,
    get_label_names,
    labels_of_words,
    load_conll,
    tokenize_and_align_labels,
)
from sparse_encoder.training import Trainer, TrainingArguments


def train_classifier(encoder: SparseEncoder, sentences: Path, options: argparse.Namespace) -> TokenClassificationModel:
    """Put a classifier on the encoder's backbone and train it alone."""
    data = load_conll(sentences, columns={"tokens": 0, "ner_tags": -1})
    names = get_label_names(data)
    tagger = TokenClassificationModel.from_backbone(encoder[0].auto_model, id2label=names)
    tagger.backbone.requires_grad_(False)
    prepare = partial(tokenize_and_align_labels, tokenizer=encoder.tokenizer, label_names=names)
    trainer = Trainer(
        model=tagger,
        args=TrainingArguments(
            output_dir=str(options.checkpoints),
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=16,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data.map(prepare, batched=True, remove_columns=data.column_names),
        data_collator=DataCollatorForTokenClassification(encoder.tokenizer),
    )
    trainer.train()
    return tagger.eval()


@torch.no_grad()
def encode_and_tag(
    encoder: SparseEncoder, tagger: TokenClassificationModel, texts: list[str]
) -> tuple[SparseEmbeddings, list[list[str]]]:
    """Return the sparse vectors of some texts and the names in them, out of one pass through the backbone."""
    transformer, pooling = encoder[0], encoder[1]
    assert isinstance(transformer, Transformer) and isinstance(pooling, SpladePooling)
    words = [text.split() for text in texts]
    batch = transformer.tokenizer.encode_windows(words, is_split_into_words=True)
    features = batch.pad(device=encoder.device)
    types = features.get("token_type_ids") if tagger.config.num_token_types else None
    hidden = tagger.backbone(features["input_ids"], features["attention_mask"], types)
    projected = transformer.outputs_of(hidden, features)
    vectors = SparseEmbeddings.from_dense(pooling(projected)["sentence_embedding"])
    best = tagger.head(hidden).argmax(dim=-1).tolist()
    names = []
    for row, text in enumerate(words):
        ids = batch.word_ids[row]
        labels = [tagger.id2label[label] for label in best[row][: len(ids)]]
        tags = labels_of_words(labels, ids, num_words=len(text))
        names.append([f"{' '.join(text[e.start : e.end])} ({e.type})" for e in find_entities(tags)])
    return vectors, names


def main(arguments: list[str] | None = None) -> None:
    """Train the classifier, index the documents, and answer the queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="a document a line")
    parser.add_argument("sentences", type=Path, help="tagged sentences in columns")
    parser.add_argument("--model", required=True, help="a SPLADE model, or a masked-language checkpoint")
    parser.add_argument("--query", action="append", required=True)
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    options = parser.parse_args(arguments)

    encoder = SparseEncoder(options.model)
    tagger = train_classifier(encoder, options.sentences, options)
    documents = [line for line in options.documents.read_text(encoding="utf-8").splitlines() if line.strip()]
    vectors, names = encode_and_tag(encoder, tagger, documents)
    index = SparseIndex.build(vectors, ids=[str(number) for number in range(len(documents))])
    results = index.search(encoder.encode_query(options.query), top_k=options.top_k)
    for query, hits in zip(options.query, results, strict=True):
        print(query)
        for hit in hits:
            print(f"  {hit.score:8.3f}  {documents[int(hit.id)]}  [{', '.join(names[int(hit.id)])}]")


if __name__ == "__main__":
    main()
