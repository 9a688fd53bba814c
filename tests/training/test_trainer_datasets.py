"""The trainer on several datasets and streams, with losses, prompts and routes by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import nn
from training_helpers import TinyEncoder, pairs, rows_of, splade_loss, tiny_encoder, trainer

from sparse_encoder.evaluation import SentenceEvaluator
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss
from sparse_encoder.training import SparseEncoderDataCollator, SparseEncoderTrainer, TrainerCallback

Anything = Any  # a setting, a dataset, a batch


def questions(count: int) -> Dataset:
    return Dataset.from_dict(
        {
            "question": [f"who keeps number {i}" for i in range(count)],
            "answer": [f"the {i % 3} keeper of number {i} does" for i in range(count)],
        }
    )


def two(kind: type = DatasetDict) -> Anything:
    return kind({"pairs": pairs(10), "questions": questions(17)})


def streams(kind: type = IterableDatasetDict) -> Anything:
    return kind({name: part.to_iterable_dataset() for name, part in two().items()})


def losses(model: nn.Module) -> dict[str, nn.Module]:
    return {"pairs": splade_loss(model), "questions": SparseMultipleNegativesRankingLoss(model), "other": nn.Identity()}


@pytest.mark.parametrize("kind", [dict, DatasetDict])
def test_each_batch_is_of_one_dataset_and_has_its_loss(kind: type, tmp_path: Path) -> None:
    model = tiny_encoder()
    run = trainer(tmp_path, model, rows=two(kind), loss=losses(model), num_train_epochs=1)
    assert run.train().global_step == 3 + 5
    batches = list(run.get_train_dataloader())
    assert [batch["dataset_name"] for batch in batches].count("questions") == 5
    for batch in batches:
        columns = {key.rsplit("_", 2)[0] for key in batch if key.endswith("_input_ids")}
        assert columns == ({"question", "answer"} if batch["dataset_name"] == "questions" else {"anchor", "positive"})
    rows = [row for row in run.state.log_history if "loss" in row]
    assert sum("document_regularizer_loss" in row for row in rows) == 3  # only the first dataset's loss has terms


def test_losses_may_be_functions_by_dataset(tmp_path: Path) -> None:
    made: list[TinyEncoder] = []

    def make(model: TinyEncoder) -> nn.Module:
        made.append(model)
        return splade_loss(model)

    model = tiny_encoder()
    run = trainer(tmp_path, model, rows=two(), loss={"pairs": make, "questions": make}, num_train_epochs=1)
    run.train()
    assert made == [model, model]


def test_names_that_modules_may_not_have_are_kept_apart(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self, model: nn.Module, start: float) -> None:
            super().__init__()
            self.model, self.scale = model, nn.Parameter(torch.tensor(start))

        def forward(self, columns: list[dict[str, Any]], labels: None) -> torch.Tensor:
            return self.scale * torch.stack([self.model(each)["sentence_embedding"].mean() for each in columns]).sum()

    model = tiny_encoder()
    data = {"v1.0": pairs(6), "v1%2E0": pairs(6), "": pairs(6), "train": pairs(6)}
    given = {name: Scaled(model, 1.0 + i) for i, name in enumerate(data)}
    run = trainer(tmp_path, model, rows=data, loss=given, num_train_epochs=1, save_strategy="epoch")
    run.train()
    assert all(loss.scale.item() != 1.0 + i for i, loss in enumerate(given.values()))
    names = [name for name, _ in run.objective.named_parameters() if name.endswith("scale")]
    assert len(names) == 4
    resumed_model = tiny_encoder(seed=9)
    others = {name: Scaled(resumed_model, 0.0) for name in data}
    resumed = trainer(tmp_path, resumed_model, rows=data, loss=others, num_train_epochs=1, save_strategy="epoch")
    resumed.train(resume_from_checkpoint=True)
    assert [loss.scale.item() for loss in others.values()] == [loss.scale.item() for loss in given.values()]


def test_datasets_of_the_user_stay_as_they_were(tmp_path: Path) -> None:
    data = two()
    data["pairs"] = data["pairs"].with_format("numpy")
    before = {name: (part.format, part.column_names, part._fingerprint) for name, part in data.items()}
    model = tiny_encoder()
    run = trainer(tmp_path, model, rows=data, eval_dataset=data, loss=losses(model), num_train_epochs=1)
    run.train()
    run.evaluate()
    assert {name: (part.format, part.column_names, part._fingerprint) for name, part in data.items()} == before
    assert "dataset_name" not in data["pairs"][0]


def test_every_evaluation_set_has_its_keys_and_terms(tmp_path: Path) -> None:
    class Evaluator(SentenceEvaluator):
        calls = 0

        def __call__(
            self, model: Anything, output_path: Anything = None, epoch: Anything = -1, steps: int = -1
        ) -> Anything:
            Evaluator.calls += 1
            return {"ndcg": 0.5}

    class Told(TrainerCallback):
        names: list[list[str]] = []

        def on_evaluate(self, args: Anything, state: Anything, control: Anything, **context: Anything) -> None:
            self.names.append(sorted(name for name in context["metrics"] if name.endswith("_loss")))

    model = tiny_encoder()
    run = trainer(
        tmp_path, model, rows=two(), eval_dataset=two(), loss=losses(model), evaluator=Evaluator(), callbacks=[Told()]
    )
    metrics = run.evaluate()
    assert {"eval_pairs_loss", "eval_questions_loss", "eval_ndcg", "eval_pairs_runtime"} <= set(metrics)
    assert Evaluator.calls == 1
    assert Told.names == [["eval_pairs_loss"], ["eval_questions_loss"]]
    logged = {name for row in rows_of(run) for name in row}
    assert {"eval_pairs_document_regularizer_loss", "eval_pairs_base_loss"} <= logged
    assert "eval_pairs_base_loss" not in metrics
    one = run.evaluate("questions", metric_key_prefix="dev")
    assert {"dev_questions_loss", "dev_ndcg"} <= set(one)
    assert "dev_pairs_loss" not in one
    with pytest.raises(ValueError, match="no dataset 'answers'"):
        run.evaluate("answers")


def test_predictions_are_metrics_and_no_evaluator_runs(tmp_path: Path) -> None:
    model = tiny_encoder()
    run = trainer(tmp_path, model, eval_dataset=pairs(6))
    output = run.predict(pairs(6))
    assert output.predictions is None
    assert output.metrics["test_loss"] == pytest.approx(run.evaluate(pairs(6))["eval_loss"])
    assert [row for row in run.state.log_history if "test_loss" in row] == []


def test_prompts_and_routes_go_by_the_name_of_the_dataset(tmp_path: Path) -> None:
    seen: set[tuple[str | None, str | None]] = set()

    class Watched(TinyEncoder):
        def preprocess(
            self, texts: Anything, prompt: str | None = None, task: str | None = None, **rest: Anything
        ) -> Anything:
            seen.add((prompt, task))
            return super().preprocess(texts, **{"prompt": prompt, "task": task, **rest})

    run = trainer(
        tmp_path,
        Watched(),
        rows=two(),
        prompts={"pairs": {"anchor": "find: "}, "questions": "q: "},
        router_mapping={"questions": {"question": "query"}},
        num_train_epochs=1,
    )
    run.train()
    assert seen == {("find: ", None), (None, None), ("q: ", "query"), ("q: ", None)}


NAMES: list[tuple[dict[str, Any], str]] = [
    ({"prompts": {"anchr": "find: "}}, r"prompts has 'anchr', which is no column.*'anchor', 'answer'.*datasets \['pai"),
    ({"prompts": {"questons": {"question": "q: "}}}, r"'questons', which is none of the datasets; there are \['pairs'"),
    ({"prompts": {"pairs": {"question": "q: "}}}, r"prompts\['pairs'\] has 'question', which is no column of it"),
    ({"router_mapping": {"anchor": "query", "postive": "document"}}, "router_mapping has 'postive', which is no col"),
]


@pytest.mark.parametrize("kind", [two, streams])
@pytest.mark.parametrize(("options", "message"), NAMES)
def test_a_name_that_nothing_has_is_refused(
    kind: Anything, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, rows=kind(), max_steps=1, **options).get_train_dataloader()


def test_a_name_may_be_one_of_the_data_to_evaluate_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts": {"anchor": "find: ", "question": "q: "}, "num_train_epochs": 1}
    with pytest.raises(ValueError, match=r"prompts has 'question', which is no column; there are \['anchor', 'posit"):
        trainer(tmp_path, **options).train()
    assert trainer(tmp_path, eval_dataset=questions(4), **options).train().global_step == 3
    plain = pairs(4).with_transform(lambda batch: {**batch, "question": batch["anchor"]})
    assert trainer(tmp_path, rows=plain, **options).train().global_step == 1


def test_a_collator_that_gets_no_prompts_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_encoder()
    options: dict[str, Any] = {"prompts": "find: ", "router_mapping": {"elsewhere": "query"}, "max_steps": 1}
    collate = SparseEncoderDataCollator(model.preprocess, prompts="find: ")
    trainer(tmp_path, model, data_collator=collate, **options).train()
    told = [message for message in caplog.messages if "reach no batch" in message]
    assert len(told) == 1
    assert told[0].startswith("router_mapping of the arguments reach no batch unless the data_collator reads them")


def test_a_function_for_several_datasets_does_no_harm_to_one_stream(tmp_path: Path) -> None:
    options = {"multi_dataset_batch_sampler": lambda *args, **rest: None, "max_steps": 2}
    assert trainer(tmp_path, rows=pairs(10).to_iterable_dataset(), **options).train().global_step == 2
    with pytest.raises(ValueError, match="multi_dataset_batch_sampler must be one of"):
        trainer(tmp_path, rows=streams(), **options).train()


@pytest.mark.parametrize("order", ["proportional", "round_robin"])
@pytest.mark.parametrize("kind", [dict, IterableDatasetDict])
def test_several_streams_are_trained_on_together(kind: type, order: str, tmp_path: Path) -> None:
    model = tiny_encoder()
    run = trainer(
        tmp_path, model, rows=streams(kind), loss=losses(model), max_steps=9, multi_dataset_batch_sampler=order
    )
    assert run.train().global_step == 9
    assert run.state.epoch > 0


def test_one_stream_needs_the_number_of_updates(tmp_path: Path) -> None:
    stream: IterableDataset = pairs(10).to_iterable_dataset()
    with pytest.raises(ValueError, match="max_steps must be given"):
        trainer(tmp_path, rows=stream).train()
    run = trainer(tmp_path, rows=stream, eval_dataset=stream, max_steps=7)
    assert run.train().global_step == 7  # through the stream three times
    assert run.evaluate()["eval_loss"] > 0


def test_streams_and_datasets_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="streams.*beside datasets"):
        trainer(tmp_path, rows={"a": pairs(4), "b": pairs(4).to_iterable_dataset()})


def test_a_batch_without_a_name_has_no_loss_among_several(tmp_path: Path) -> None:
    model = tiny_encoder()
    run = trainer(tmp_path, model, rows=two(), loss=losses(model))
    batch = run.data_collator([pairs(2)[0], pairs(2)[1]])
    with pytest.raises(ValueError, match=r"dataset None has no loss; there are losses for \['other', 'pairs'"):
        run.compute_loss(model, batch)


def test_the_methods_of_the_documentation_are_there() -> None:
    documented = (
        "add_callback add_dataset_name_column add_dataset_name_transform add_model_card_callback call_model_init "
        "collect_features compute_loss create_model_card create_optimizer create_optimizer_and_scheduler "
        "create_scheduler evaluate evaluation_loop get_batch_sampler get_data_collator get_default_loss "
        "get_eval_dataloader get_learning_rates get_multi_dataset_batch_sampler get_num_trainable_parameters "
        "get_optimizer_cls_and_kwargs get_optimizer_group get_test_dataloader get_train_dataloader "
        "hyperparameter_search is_local_process_zero is_world_process_zero log log_metrics "
        "maybe_add_dataset_name_column override_model_in_loss pop_callback predict prepare_loss preprocess_dataset "
        "propagate_args_to_deepspeed push_to_hub remove_callback save_metrics save_model save_state "
        "set_initial_training_values should_dataset_name_column_be_added track_loss_components train "
        "validate_column_names"
    )
    assert [name for name in documented.split() if not callable(getattr(SparseEncoderTrainer, name, None))] == []


def test_transforms_add_names_behind_others() -> None:
    add = SparseEncoderTrainer.add_dataset_name_transform
    assert add({"a": ["x", "y"]}, "pairs") == {"a": ["x", "y"], "dataset_name": ["pairs", "pairs"]}
    assert add({"a": ["x"]}, "pairs", lambda batch: {"b": batch["a"]}) == {"b": ["x"], "dataset_name": ["pairs"]}
    assert add({"a": ["x"]}, None) == {"a": ["x"]}
    assert add({}, "pairs") == {}
    assert add({"a": []}, "pairs") == {"a": []}
