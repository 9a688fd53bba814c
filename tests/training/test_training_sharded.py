"""The trainer in two processes that share out a model (FSDP)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed_helpers import in_processes
from model_helpers import write_masked_language_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from training_helpers import arguments, pairs, tiny_encoder, trainer

from sparse_encoder import SparseEncoder
from sparse_encoder.losses import EmbeddingLoss, SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.sharding import whole

RANKS, ROWS, UPDATES, SIZE = 2, 48, 4, 3
Weights = dict[str, Tensor]
Anything = Any  # settings, and what a run gives
STEPS: dict[str, Any] = {"max_steps": UPDATES, "save_strategy": "steps", "save_steps": 2, "max_grad_norm": 0.05}
EVALUATION: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "metric_for_best_model": "evaluator",
    "greater_is_better": False,
    "load_best_model_at_end": True,
}
TEXTS = ["rain and sun", "the mill by the river of bread", "stone"]


class Scaled(EmbeddingLoss):
    """A loss with a parameter of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.ranking = SparseMultipleNegativesRankingLoss(model, gather_across_devices=True)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        value: Tensor = self.ranking.compute_loss_from_embeddings([self.scale * embeddings[0], embeddings[1]])
        return value

    def get_config_dict(self) -> dict[str, Any]:
        return {}


def loss(model: nn.Module) -> SpladeLoss:
    return SpladeLoss(model, Scaled(model), 0.3, 0.5)


def ranking(model: nn.Module) -> SpladeLoss:
    return SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), 0.3, 0.5)


def train(folder: Path, size: int, checkpoint: Path | None = None, **options: Anything) -> SparseEncoderTrainer:
    options = {"rows": pairs(ROWS), "loss": loss, "per_device_train_batch_size": size, **STEPS, **options}
    given = trainer(folder, tiny_encoder().double(), **options)
    given.train(resume_from_checkpoint=checkpoint)
    return given


def weights_of(given: SparseEncoderTrainer) -> Weights:
    with whole(given.model, keep=True):
        named = {f"model.{name}": each for name, each in given.model.state_dict().items() if name != "calls"}
        own = {name: each for name, each in given.objective.state_dict().items() if ".model." not in f".{name}"}
        return {name: each.detach().clone() for name, each in {**named, **own}.items()}


def score(model: Anything, output_path: str | None, epoch: float, steps: int) -> float:
    """Return something that only a model of all processes can give."""
    with torch.no_grad():
        return float(model(model.preprocess(TEXTS))["sentence_embedding"].sum())


def work(rank: int, folder: str) -> dict[str, Anything]:
    root = Path(folder)
    options: dict[str, Any] = {"fsdp": "full_shard auto_wrap", "gradient_accumulation_steps": 2}
    straight = train(root / "straight", SIZE, **options)
    assert all(isinstance(each, DTensor) for each in straight.model.parameters())
    again = train(root / "resumed", SIZE, root / "straight" / "checkpoint-2", **options)
    plain = train(root / "plain", SIZE, fsdp=True, loss=ranking)
    unsharded = train(root / "unsharded", SIZE, root / "plain" / "checkpoint-2", loss=ranking)
    best = train(root / "best", SIZE, fsdp="shard_grad_op", evaluator=score, eval_dataset=pairs(9), **EVALUATION)
    best.save_model(str(root / "saved"))
    named = {"straight": straight, "resumed": again, "best": best, "plain": plain, "unsharded": unsharded}
    results = {name: weights_of(each) for name, each in named.items()}
    logs = [row for row in best.state.log_history if "eval_evaluator" in row]
    scores = [row["eval_evaluator"] for row in logs]
    with pytest.raises(ValueError, match="several losses by dataset do not go with fsdp"):
        train(root / "losses", SIZE, fsdp=True, rows={"a": pairs(9), "b": pairs(9)}, loss={"a": loss, "b": ranking})
    return {**results, "scores": scores, "bestof": str(best.state.best_model_checkpoint), "real": real(rank, root)}


def real(rank: int, root: Path) -> Tensor:
    """Train a BERT with tied weights, whose layers are fetched one by one, and encode with it."""
    model = SparseEncoder(str(root / "bert"))
    args = arguments(root / "real", max_steps=2, save_strategy="steps", save_steps=1, fsdp=True, optim="adamw_torch")
    given = SparseEncoderTrainer(
        model, args, pairs(12), loss=lambda model: SpladeLoss(model, Scaled(model).ranking, 0.1)
    )
    given.train()
    rows: Tensor = model.encode(TEXTS).to_dense()
    dist.barrier()
    return rows


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Anything]]]:
    folder = tmp_path_factory.mktemp("sharded")
    write_masked_language_model(folder / "bert")
    return folder, in_processes(work, ranks=RANKS, folder=folder)


@pytest.mark.slow
def test_a_shared_out_model_trains_to_the_weights_of_one_process(
    results: tuple[Path, list[dict[str, Anything]]], tmp_path: Path
) -> None:
    expected = weights_of(train(tmp_path, RANKS * SIZE, gradient_accumulation_steps=2))
    assert "loss.scale" in expected
    for result in results[1]:
        assert sorted(result["straight"]) == sorted(expected)
        for name, tensor in expected.items():
            assert (result["straight"][name] - tensor).norm() <= 1e-9 * tensor.norm(), name


@pytest.mark.slow
def test_it_resumes_to_the_same_bits_shared_out_or_not(results: tuple[Path, list[dict[str, Anything]]]) -> None:
    expected = results[1][0]["straight"]
    for result in results[1]:
        for name, tensor in expected.items():
            assert torch.equal(result["resumed"][name], tensor), name
        for name, tensor in result["plain"].items():
            assert (result["unsharded"][name] - tensor).norm() <= 1e-9 * tensor.norm(), name


@pytest.mark.slow
def test_checkpoints_and_saved_models_are_whole(results: tuple[Path, list[dict[str, Anything]]]) -> None:
    folder, (first, second) = results
    resumed = train(folder / "alone", SIZE, None, max_steps=2)  # the layout of one process
    for name in ("straight", "alone"):
        files = sorted(path.name for path in (folder / name / "checkpoint-2").iterdir())
        assert files == sorted(path.name for path in (folder / "alone" / "checkpoint-2").iterdir())
    assert resumed.state.global_step == 2
    assert first["scores"] == second["scores"] and len(set(first["scores"])) == 2
    best = min(range(2), key=first["scores"].__getitem__)
    assert Path(first["bestof"]).name == Path(second["bestof"]).name == f"checkpoint-{2 * (best + 1)}"
    model = tiny_encoder().double()

    saved = load_file(folder / "saved" / "model.safetensors")
    for name, tensor in saved.items():
        if name != "calls":
            assert torch.equal(first["best"][f"model.{name}"], tensor)
    model.load_state_dict(saved)
    assert score(model.eval(), None, 0, 0) == pytest.approx(first["scores"][best], rel=1e-9)


@pytest.mark.slow
def test_an_encoder_that_was_trained_shared_out_encodes_and_loads(
    results: tuple[Path, list[dict[str, Anything]]],
) -> None:
    folder, (first, second) = results
    assert torch.equal(first["real"], second["real"])
    loaded = SparseEncoder(str(folder / "real" / "checkpoint-2"))
    torch.testing.assert_close(loaded.encode(TEXTS).to_dense(), first["real"], rtol=1e-5, atol=1e-6)
    before = SparseEncoder(str(folder / "bert")).encode(TEXTS).to_dense()
    assert float((before - first["real"]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fsdp": "offload full_shard"}, "fsdp='offload' is not supported"),
        ({"fsdp_config": {"version": 2}}, "needs fsdp='full_shard'"),
        ({"fsdp": True, "auto_find_batch_size": True}, "auto_find_batch_size does not go with fsdp"),
        ({"fsdp": True, "torch_compile": True}, "torch_compile does not go with fsdp"),
        ({"fsdp": True, "optim": "adafactor"}, "optim='adafactor' does not go with fsdp"),
    ],
)
def test_arguments_that_do_not_go_with_it_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments("folder", **options)


def test_one_process_has_nobody_to_share_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this is the only one; start several, for example with torchrun"):
        trainer(tmp_path, fsdp="full_shard")


def test_given_optimizers_are_refused(tmp_path: Path) -> None:
    model = tiny_encoder()
    with pytest.raises(RuntimeError, match="optimizers and fsdp exclude each other"):
        trainer(tmp_path, model, fsdp=True, optimizers=(torch.optim.SGD(model.parameters(), lr=1.0), None))
