"""Search documents and find the names in them, with one backbone in memory and one pass over each document.

A tagger is trained on top of a frozen sparse encoder: only its classifier learns, so the encoder's vectors stay what
they were. Then each document goes through the backbone once, and its states become both a sparse vector and tags. A
document may be as long as the model takes; longer ones are to be cut into passages first.

    python examples/tag_and_search.py documents.txt train.txt --model path/to/splade --query "who works in Berlin"
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import trange

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
from sparse_encoder.tokenizer import UNLIMITED, TokenBatch
from sparse_encoder.training import Trainer, TrainingArguments


def train_classifier(encoder: SparseEncoder, sentences: Path, options: argparse.Namespace) -> TokenClassificationModel:
    """Put a classifier on the encoder's backbone and train it alone."""
    data = load_conll(sentences, columns={"tokens": 0, "ner_tags": -1})
    names = get_label_names(data)
    tagger = TokenClassificationModel.from_backbone(encoder[0].auto_model, id2label=names)
    tagger.backbone.requires_grad_(False)
    prepare = partial(tokenize_and_align_labels, tokenizer=encoder.tokenizer, label_names=names, strategy="first")
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


def parts_of(encoder: SparseEncoder) -> tuple[Transformer, SpladePooling]:
    """Return the two modules of a SPLADE model.

    Raises:
        ValueError: If the encoder is made of others, or puts prompts before texts.
    """
    modules = list(encoder)
    if len(modules) != 2 or not isinstance(modules[0], Transformer) or not isinstance(modules[1], SpladePooling):
        raise ValueError(
            f"a model of Transformer and SpladePooling is needed, got {[type(m).__name__ for m in modules]}"
        )
    if any(encoder.prompts.values()):
        raise ValueError(f"a model without prompts is needed, whose tokens are the text's, got {encoder.prompts}")
    return modules[0], modules[1]


def tokens_of(transformer: Transformer, texts: list[str]) -> TokenBatch:
    """Return the tokens of texts, each whole.

    Raises:
        ValueError: If a text is too long for the model, naming its place.
    """
    limit = min(transformer.max_seq_length, transformer.document_length or transformer.max_seq_length)
    batch = transformer.tokenizer.encode_windows(texts, max_length=UNLIMITED)
    for number, length in enumerate(batch.lengths):
        if length > limit:
            raise ValueError(f"document {number} has {length} tokens, the model takes {limit}; cut it into passages")
    return batch


@torch.no_grad()
def encode_and_tag(
    encoder: SparseEncoder, tagger: TokenClassificationModel, texts: list[str], *, batch_size: int = 32
) -> tuple[SparseEmbeddings, list[list[str]]]:
    """Return the sparse vectors of some texts and the names in them, out of one pass through the backbone.

    Texts of about one length go together; the vectors are those of ``encode_document``.
    """
    transformer, pooling = parts_of(encoder)
    batch = tokens_of(transformer, texts)
    order = sorted(range(len(texts)), key=lambda row: batch.lengths[row])
    vectors, names = [SparseEmbeddings.empty(0)] * len(texts), [[""]] * len(texts)
    for begin in trange(0, len(order), batch_size, unit="batch", leave=False):
        rows = order[begin : begin + batch_size]
        features = batch.pad(rows, device=encoder.device)
        types = features.get("token_type_ids") if tagger.config.num_token_types else None
        hidden = tagger.backbone(features["input_ids"], features["attention_mask"], types)
        projected = transformer.outputs_of(hidden, features)
        dense = pooling(projected)["sentence_embedding"]
        best = tagger.head(hidden).argmax(dim=-1).tolist()
        for place, row in enumerate(rows):
            vectors[row] = SparseEmbeddings.from_dense(dense[place : place + 1])
            own = best[place][-batch.lengths[row] :] if batch.padding_side == "left" else best[place]
            labels = [tagger.id2label[label] for label in own[: batch.lengths[row]]]
            names[row] = names_in(texts[row], labels, batch.word_ids[row], batch.offsets[row])
    return SparseEmbeddings.concatenate(vectors), names


def names_in(text: str, labels: list[str], word_ids: list[int | None], offsets: list[tuple[int, int]]) -> list[str]:
    """Read the names out of a text whose tokens have labels; a word has the label of its first token."""
    spans: dict[int, tuple[int, int]] = {}
    for word, (begin, end) in zip(word_ids, offsets, strict=True):
        if word is not None:
            spans[word] = (spans.get(word, (begin, end))[0], end)
    tags = labels_of_words(labels, word_ids, num_words=max(spans, default=-1) + 1)
    entities = find_entities(tags)
    return [f"{text[spans[e.start][0] : spans[e.end - 1][1]].strip()} ({e.type})" for e in entities]


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
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    options = parser.parse_args(arguments)

    encoder = SparseEncoder(options.model)
    parts_of(encoder)  # what is wrong with it is known before the work
    tagger = train_classifier(encoder, options.sentences, options)
    documents = [line for line in options.documents.read_text(encoding="utf-8").splitlines() if line.strip()]
    vectors, names = encode_and_tag(encoder, tagger, documents, batch_size=options.batch_size)
    index = SparseIndex.build(vectors, ids=[str(number) for number in range(len(documents))])
    results = index.search(encoder.encode_query(options.query), top_k=options.top_k)
    for query, hits in zip(options.query, results, strict=True):
        print(query)
        for hit in hits:
            print(f"  {hit.score:8.3f}  {documents[int(hit.id)]}  [{', '.join(names[int(hit.id)])}]")


if __name__ == "__main__":
    main()
