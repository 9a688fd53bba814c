"""The batches of our samplers and of sentence-transformers': the same rows in the same order, epoch after epoch."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import write_masked_language_model
from torch.utils.data import BatchSampler, ConcatDataset, RandomSampler

from sparse_encoder import samplers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base import sampler as peer_samplers
    from sentence_transformers.sparse_encoder import losses as peer_losses

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

Model = Any  # of the peer
LABELS = ["label", "labels", "score", "scores"]
SEED = 17
BATCH = 4
SIZES = [0, 1, BATCH - 1, BATCH, BATCH + 1, 100]


def texts(count: int, duplicates: float, seed: int = 3, columns: tuple[str, ...] = ("anchor", "positive")) -> Dataset:
    """Return rows of which a share takes its texts from a few, whatever the column; labels are always few."""
    draw = random.Random(seed)
    table: dict[str, list[Any]] = {
        name: [f"w{draw.randrange(5)}" if draw.random() < duplicates else f"{name} {row}" for row in range(count)]
        for name in columns
    }
    table["label"] = [draw.randrange(3) for _ in range(count)]
    return Dataset.from_dict(table)


def epochs(sampler: Any, count: int = 3) -> list[list[list[int]]]:  # noqa: ANN401  (either library's)
    """Return the batches of some epochs."""
    passes = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        passes.append(list(sampler))
    return passes


@pytest.fixture(autouse=True)
def quiet_datasets() -> Iterator[None]:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("duplicates", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("count", SIZES)
def test_no_duplicates(count: int, duplicates: float, drop_last: bool) -> None:
    data = texts(count, duplicates)
    expected = epochs(
        peer_samplers.NoDuplicatesBatchSampler(data, BATCH, drop_last, LABELS, torch.Generator(), SEED),
    )
    ours = samplers.NoDuplicatesBatchSampler(data, BATCH, drop_last, LABELS, torch.Generator(), SEED)
    assert epochs(ours) == expected
    for epoch, batches in enumerate(expected):
        ours.set_epoch(epoch)
        assert len(ours) == len(batches)


@pytest.mark.parametrize("drop_last", [False, True])
def test_no_duplicates_hashed(drop_last: bool) -> None:
    pytest.importorskip("xxhash")
    data = texts(60, 0.5)
    arguments = (data, BATCH, drop_last, LABELS, torch.Generator(), SEED)
    theirs = peer_samplers.NoDuplicatesBatchSampler(*arguments, precompute_hashes=True, precompute_num_proc=1)
    ours = samplers.NoDuplicatesBatchSampler(*arguments, precompute_hashes=True, precompute_num_proc=1)
    assert epochs(ours) == epochs(theirs)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.integers(0, 12)] * 3), max_size=60),
    batch_size=st.integers(1, 9),
    drop_last=st.booleans(),
    seed=st.integers(0, 9),
)
def test_no_duplicates_of_any_kind(
    rows: list[tuple[int, int, int]], batch_size: int, drop_last: bool, seed: int
) -> None:
    data = Dataset.from_dict({name: [row[place] for row in rows] for place, name in enumerate("abc")})
    arguments = (data, batch_size, drop_last, LABELS, torch.Generator(), seed)
    ours, theirs = (
        kind.NoDuplicatesBatchSampler(*arguments)  # type: ignore[attr-defined]
        for kind in (samplers, peer_samplers)
    )
    assert epochs(ours, 2) == epochs(theirs, 2)


@pytest.mark.parametrize("values", [
    [1, "1", 1.0, True],
    [["a", "b"], ["a", "b"], ["b", "a"]],
    [{"x": 1, "y": ["a"]}, {"x": 1, "y": ["a"]}],
    [None, "None"],
    [[["a"], ["b"]], [["a"], ["b"]]],
    [b"a", "b'a'"],
    [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])],
])  # fmt: skip
def test_values_are_compared_as_in_the_peer(values: list[Any]) -> None:
    from sparse_encoder.samplers.row_hashes import value_text

    assert [value_text(value) for value in values] == [peer_samplers._sample_value_str(value) for value in values]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [4, 6, 8])
@pytest.mark.parametrize("labels", [2, 3, 7, 40])
def test_group_by_label(labels: int, batch_size: int, drop_last: bool) -> None:
    draw = random.Random(labels)
    data = Dataset.from_dict(
        {"text": ["a"] * 100, "label": [min(draw.randrange(labels), draw.randrange(labels)) for _ in range(100)]}
    )
    arguments = (data, batch_size, drop_last, LABELS, torch.Generator(), SEED)
    ours, theirs = samplers.GroupByLabelBatchSampler(*arguments), peer_samplers.GroupByLabelBatchSampler(*arguments)
    passes = epochs(ours)
    assert passes == epochs(theirs)
    assert {len(ours)} == {len(theirs)} == {len(batches) for batches in passes}
    assert len(passes[0]) > 1


@pytest.mark.parametrize("kind", ["RoundRobinBatchSampler", "ProportionalBatchSampler"])
def test_samplers_of_other_kinds_that_share_the_generator(kind: str) -> None:
    def build(library: Any) -> Any:  # noqa: ANN401  (either library)
        shared = torch.Generator()
        data = ConcatDataset([list(range(5)), list(range(9))])
        children = [BatchSampler(RandomSampler(rows, generator=shared), 2, False) for rows in data.datasets]
        return getattr(library, kind)(data, children, shared, SEED)

    assert epochs(build(samplers)) == epochs(build(peer_samplers))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_masked_language_model(folder / "plain")
    return peer.SparseEncoder(str(folder / "plain"), device="cpu")


def peers_loader(model: Model, folder: Path, data: Any, **options: Any) -> Any:  # noqa: ANN401  (the peer's)
    """Return the loader of the peer's trainer."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "seed": SEED,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        **options,
    }
    args = peer.SparseEncoderTrainingArguments(**settings)
    loss = peer_losses.SpladeLoss(
        model, peer_losses.SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1e-3
    )
    return peer.SparseEncoderTrainer(model=model, args=args, train_dataset=data, loss=loss).get_train_dataloader()


def ours_for(data: DatasetDict, mixing: str, sampling: str, drop_last: bool) -> Any:  # noqa: ANN401  (any sampler)
    """Build what our trainer builds for several datasets."""
    generator = torch.Generator().manual_seed(SEED)
    one = samplers.BATCH_SAMPLERS[samplers.BatchSamplers(sampling)]
    several = samplers.MULTI_DATASET_BATCH_SAMPLERS[samplers.MultiDatasetBatchSamplers(mixing)]
    children = [
        one(rows, batch_size=BATCH, drop_last=drop_last, valid_label_columns=LABELS, generator=generator, seed=SEED)
        for rows in data.values()
    ]
    return several(ConcatDataset(data.values()), batch_samplers=children, generator=generator, seed=SEED)


@pytest.mark.parametrize("sizes", [(23, 41), (3, 30), (40, 8), (30, 3, 21)])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("sampling", ["batch_sampler", "no_duplicates", "no_duplicates_hashed", "group_by_label"])
@pytest.mark.parametrize("mixing", ["proportional", "round_robin"])
def test_several_datasets_in_a_trainer(
    model: Model, tmp_path: Path, mixing: str, sampling: str, drop_last: bool, sizes: tuple[int, ...]
) -> None:
    if sampling == "group_by_label":
        sizes = tuple(size + 8 for size in sizes)
    data = DatasetDict({f"set{place}": texts(size, 0.4, seed=place) for place, size in enumerate(sizes)})
    options = {
        "dataloader_drop_last": drop_last,
        "batch_sampler": sampling,
        "multi_dataset_batch_sampler": mixing,
    }
    theirs = peers_loader(model, tmp_path, data, **options).batch_sampler
    ours = ours_for(data, mixing, sampling, drop_last)
    expected, found = epochs(theirs), epochs(ours)
    assert found == expected
    for epoch, batches in enumerate(found):
        ours.set_epoch(epoch)
        assert len(ours) == len(batches)
        assert list(ours) == batches


@pytest.mark.parametrize("sampling", ["batch_sampler", "no_duplicates", "group_by_label"])
def test_one_dataset_in_a_trainer(model: Model, tmp_path: Path, sampling: str) -> None:
    data = texts(37, 0.4)
    loader = peers_loader(model, tmp_path, data, batch_sampler=sampling)
    expected = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch)
        torch.manual_seed(
            SEED
        )  # where the order of the default sampler begins, if no generator was given to accelerate
        expected.append(list(loader.batch_sampler))
    kind = samplers.BATCH_SAMPLERS[samplers.BatchSamplers(sampling)]
    ours = kind(data, BATCH, False, LABELS, torch.Generator(), SEED)
    assert epochs(ours, 2) == expected


def our_loader(folder: Path, data: Any, **options: Any) -> Any:  # noqa: ANN401  (of any kind)
    """Return the loader of our trainer."""
    from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments, losses

    write_masked_language_model(folder / "plain")
    model = SparseEncoder(str(folder / "plain"), device="cpu")
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "seed": SEED,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        **options,
    }
    args = SparseEncoderTrainingArguments(**settings)
    loss = losses.SpladeLoss(model, losses.SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1e-3)
    return SparseEncoderTrainer(model=model, args=args, train_dataset=data, loss=loss).get_train_dataloader()


@pytest.mark.parametrize("sampling", ["batch_sampler", "no_duplicates", "group_by_label"])
@pytest.mark.parametrize("mixing", ["proportional", "round_robin"])
def test_our_trainer_has_the_batches_of_the_peers(model: Model, tmp_path: Path, mixing: str, sampling: str) -> None:
    data = DatasetDict({"a": texts(23, 0.4, seed=1), "b": texts(41, 0.4, seed=2)})
    options = {"batch_sampler": sampling, "multi_dataset_batch_sampler": mixing}
    theirs = peers_loader(model, tmp_path / "peer", data, **options)
    ours = our_loader(tmp_path / "ours", data, **options)
    assert epochs(ours.batch_sampler, 2) == epochs(theirs.batch_sampler, 2)
    one = texts(37, 0.4)
    theirs = peers_loader(model, tmp_path / "peer", one, batch_sampler=sampling)
    for epoch, batches in enumerate(epochs(our_loader(tmp_path / "ours", one, batch_sampler=sampling).batch_sampler)):
        theirs.set_epoch(epoch)
        assert list(theirs.batch_sampler) == batches


@pytest.mark.parametrize("name", sorted(set(peer_samplers.__all__) - {"BatchSamplers", "MultiDatasetBatchSamplers"}))
def test_constructors_take_what_the_peers_take(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(room, name)).parameters for room in (samplers, peer_samplers))
    assert [(each.name, each.kind, each.default) for each in ours.values()] == [
        (each.name, each.kind, each.default) for each in theirs.values()
    ]


@pytest.mark.parametrize("name", ["BatchSamplers", "MultiDatasetBatchSamplers"])
def test_names_are_those_of_the_peer(name: str) -> None:
    ours, theirs = (
        {each.name: each.value for each in getattr(room, name)}  # type: ignore[attr-defined]
        for room in (samplers, peer_samplers)
    )
    assert ours == theirs


def child_of(library: Any, kind: str, *arguments: Any) -> Any:  # noqa: ANN401  (of either library)
    """Build the sampler of one dataset as the trainer of that library does."""
    rows, *others = arguments
    if kind == "DefaultBatchSampler" and library is peer_samplers:
        rows = RandomSampler(rows, generator=others[3])
    return getattr(library, kind)(rows, *others)


@pytest.mark.parametrize("mixing", ["RoundRobinBatchSampler", "ProportionalBatchSampler"])
@pytest.mark.parametrize("case", range(15))
def test_samplers_of_several_kinds_side_by_side(case: int, mixing: str) -> None:
    draw = random.Random(case)
    kinds = draw.choices(["DefaultBatchSampler", "NoDuplicatesBatchSampler", "GroupByLabelBatchSampler"], k=3)
    data = [texts(draw.randint(20, 50), draw.choice([0.2, 0.6, 0.95]), seed=place) for place in range(3)]
    drop_last = draw.random() < 0.5

    def build(library: Any) -> Any:  # noqa: ANN401  (either library)
        shared = torch.Generator()
        children = [
            child_of(library, kind, rows, BATCH, drop_last, LABELS, shared, SEED)
            for kind, rows in zip(kinds, data, strict=True)
        ]
        return getattr(library, mixing)(ConcatDataset(data), children, shared, SEED)

    ours = build(samplers)
    passes = epochs(ours)
    assert passes == epochs(build(peer_samplers))
    assert samplers.epoch_lengths(ours, 3) == [len(batches) for batches in passes]
