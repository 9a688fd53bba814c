from __future__ import annotations

import json
import logging
import socket
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from torch import nn
from training_helpers import Anything, TinyEncoder, arguments, pairs, tiny_encoder, trainer

from sparse_encoder.training import TrainerCallback, TrainerControl, TrainerState
from sparse_encoder.training.events import reporting
from sparse_encoder.training.events.codecarbon import emissions_of
from sparse_encoder.training.events.reporting import by_section, model_config, reporting_callbacks, tracker_names


class Writer:
    """Stand in for a SummaryWriter."""

    made: list[Writer] = []

    def __init__(self, log_dir: str) -> None:
        self.log_dir, self.is_open = log_dir, True
        self.texts: dict[str, str] = {}
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_text(self, name: str, value: str, step: int = 0) -> None:
        self.texts[name] = value

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.is_open = False


class Run:
    """Stand in for a run of wandb."""

    def __init__(self, **options: Anything) -> None:
        self.options = options
        self.config: Anything = Settings()
        self.summary: dict[str, Anything] = {}
        self.rows: list[dict[str, Anything]] = []
        self.metrics: list[Anything] = []
        self.is_finished = False

    def log(self, row: dict[str, Anything]) -> None:
        self.rows.append(row)

    def define_metric(self, name: str, **options: Anything) -> None:
        self.metrics.append((name, options))

    def finish(self) -> None:
        self.is_finished = True


class Settings(dict[str, Anything]):
    def update(self, values: Anything, *, allow_val_change: bool) -> None:  # type: ignore[override]
        assert allow_val_change
        super().update(values)


class Meter:
    """Stand in for an EmissionsTracker."""

    made: list[Meter] = []
    result: float | None = 0.0025

    def __init__(self, output_dir: str) -> None:
        assert Path(output_dir).is_dir()
        self.calls: list[str] = []
        self.final_emissions_data = SimpleNamespace(
            emissions=0.0025,
            energy_consumed=0.125,
            on_cloud="N",
            cpu_model="Some CPU",
            ram_total_size=24.5,
            duration=1800.0,
            gpu_model="",
        )
        self.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> float | None:
        self.calls.append("stop")
        return self.result


def stub(monkeypatch: pytest.MonkeyPatch, name: str, **names: Anything) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setattr(Writer, "made", [])
    stub(monkeypatch, "torch.utils.tensorboard", SummaryWriter=Writer)
    return Writer.made


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Anything:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return stub(monkeypatch, "wandb", run=None, init=Run)


@pytest.fixture
def meters(monkeypatch: pytest.MonkeyPatch) -> list[Meter]:
    monkeypatch.setattr(Meter, "made", [])
    stub(monkeypatch, "codecarbon", EmissionsTracker=Meter)
    return Meter.made


@pytest.mark.parametrize(
    ("report_to", "names"),
    [
        (None, []),
        ([], []),
        ("none", []),
        (["none"], []),
        ("wandb", ["wandb"]),
        (["wandb", "tensorboard", "wandb"], ["wandb", "tensorboard"]),
    ],
)
def test_trackers_are_named(report_to: Anything, names: list[str]) -> None:
    assert tracker_names(report_to) == names


@pytest.mark.parametrize("report_to", ["mlflow", ["wandb", "mlflow"], ["none", "wandb"], ["all", "wandb"], ""])
def test_an_unknown_tracker_is_refused(report_to: Anything) -> None:
    with pytest.raises(ValueError, match=r"some of \['codecarbon', 'tensorboard', 'wandb'\], got"):
        tracker_names(report_to)


def test_all_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"wandb", "codecarbon"}
    monkeypatch.setattr(reporting, "find_spec", lambda name: object() if name in installed else None)
    assert tracker_names("all") == tracker_names(["all"]) == ["codecarbon", "wandb"]


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("codecarbon", "codecarbon")],
)
def test_a_missing_tracker_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"reporting to {name} .*pip install 'sparse-encoder\[trackers\]'"):
        reporting_callbacks(name)


def test_names_get_a_section() -> None:
    logs = {"eval_loss": 1, "test_a_b": 2, "loss": 3, "evaluation": 4, "eval_": 5, "train_loss": 6}
    assert by_section(logs) == {
        "eval/loss": 1,
        "test/a_b": 2,
        "train/loss": 3,
        "train/evaluation": 4,
        "train/eval_": 5,
        "train/train_loss": 6,
    }


def test_the_configuration_of_a_model_is_a_dict() -> None:
    assert model_config(nn.Linear(1, 1)) == {}
    assert model_config(SimpleNamespace(config=None)) == {}
    assert model_config(SimpleNamespace(config={"a": 1})) == {"a": 1}
    assert model_config(SimpleNamespace(config=SimpleNamespace(to_dict=lambda: {"b": 2}))) == {"b": 2}


def configured() -> TinyEncoder:
    model: Anything = tiny_encoder()
    model.config = {"hidden_size": 12}
    model.model_card_data = SimpleNamespace(co2_eq_emissions=None, tags=[])
    return model  # type: ignore[no-any-return]


def test_a_run_is_written_to_tensorboard(tmp_path: Path, writers: list[Writer]) -> None:
    run = trainer(tmp_path, configured(), num_train_epochs=1, callbacks=reporting_callbacks("tensorboard"))
    run.train()
    (writer,) = writers
    assert Path(writer.log_dir).parent == tmp_path / "runs"
    assert writer.log_dir.endswith(f"_{socket.gethostname()}")
    assert json.loads(writer.texts["args"])["learning_rate"] == 1e-2
    assert json.loads(writer.texts["model_config"]) == {"hidden_size": 12}
    losses = [(value, step) for name, value, step in writer.scalars if name == "train/loss"]
    assert losses == [(row["loss"], row["step"]) for row in run.state.log_history if "loss" in row]
    assert [step for _, step in losses] == [1, 2, 3]
    assert not writer.is_open
    run.evaluate(pairs(4))
    assert writers[1].log_dir == writer.log_dir  # rows behind a run stay with it
    assert "eval/loss" in {name for name, *_ in writers[1].scalars}


def test_a_trainer_reports_to_what_its_settings_name(tmp_path: Path, writers: list[Writer]) -> None:
    run = trainer(tmp_path, num_train_epochs=1, report_to="tensorboard", callbacks=[TrainerCallback])
    names = [type(each).__name__ for each in run.callback_handler.callbacks]
    assert names[3:5] == ["TensorBoardCallback", "TrainerCallback"]  # behind flow, weights, monitor; before own ones
    run.train()
    assert [name for name, *_ in writers[0].scalars].count("train/document_regularizer_weight") == 4


def tensorboard_row(logs: dict[str, Anything], **state: Anything) -> Anything:
    (callback,) = reporting_callbacks("tensorboard")
    for _ in range(2):
        callback.on_log(arguments("out"), TrainerState(**{"global_step": 4, **state}), TrainerControl(), logs=logs)
    return callback


def test_numbers_are_scalars_and_texts_are_texts(writers: list[Writer], caplog: pytest.LogCaptureFixture) -> None:
    logs = {"a": 1, "b": np.float32(0.5), "eval_c": 2.5, "note": "hello", "list": [1], "none": None}
    with caplog.at_level(logging.WARNING):
        tensorboard_row(logs)
    expected = [("train/a", 1.0, 4), ("train/b", 0.5, 4), ("eval/c", 2.5, 4)]
    assert writers[0].scalars == expected * 2
    assert writers[0].texts == {"train/note": "hello"}
    assert caplog.messages == ["TensorBoard takes numbers and texts; train/list and the like are dropped: [1]"]


def test_the_folder_of_tensorboard(writers: list[Writer], monkeypatch: pytest.MonkeyPatch) -> None:
    assert reporting.tensorboard_folder(arguments("out", logging_dir="mine"), TrainerState()) == "mine"
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "~/there")
    trial = TrainerState(trial_name="run-3", is_hyper_param_search=True)
    there = reporting.tensorboard_folder(arguments("out", logging_dir="mine"), trial)
    assert there == str(Path.home() / "there" / "run-3")


def test_other_processes_write_nothing(writers: list[Writer], wandb: Anything, meters: list[Meter]) -> None:
    elsewhere = {"is_world_process_zero": False, "is_local_process_zero": False}
    for callback in reporting_callbacks(["tensorboard", "wandb", "codecarbon"]):
        context = {"model": tiny_encoder(), "logs": {"loss": 1.0}, "metrics": {"test_a": 1.0}}
        for event in ("on_train_begin", "on_log", "on_predict", "on_train_end"):
            getattr(callback, event)(arguments("out"), TrainerState(**elsewhere), TrainerControl(), **context)
        assert getattr(callback, "run", None) is None
    assert writers == [] == meters


def test_a_run_is_logged_to_wandb(tmp_path: Path, wandb: Anything) -> None:
    (callback,) = reporting_callbacks("wandb")
    run = trainer(tmp_path, configured(), num_train_epochs=1, run_name="first", project="mine", callbacks=[callback])
    run.train()
    logged = callback.run
    assert logged.options == {"project": "mine", "name": "first", "group": None}
    assert (logged.config["hidden_size"], logged.config["per_device_train_batch_size"]) == (12, 4)
    step = {"step_metric": "train/global_step", "step_sync": True}
    assert logged.metrics == [("train/global_step", {}), ("*", step)]
    assert [row["train/global_step"] for row in logged.rows] == [1, 2, 3, 3]
    assert [row["train/loss"] for row in logged.rows[:3]] == [row["loss"] for row in run.state.log_history[:3]]
    assert set(logged.rows[3]) == {  # what there is one value of is no row
        "train/epoch",
        "train/global_step",
        "train/document_regularizer_weight",
        "train/query_regularizer_weight",
    }
    assert logged.summary["train_loss"] == run.state.log_history[-1]["train_loss"]
    callback.on_predict(run.args, run.state, run.control, metrics={"test_map": 0.5}, model=run.model)
    assert logged.rows[-1] == {"test/map": 0.5, "train/global_step": 3}


def test_the_project_of_wandb(wandb: Anything, monkeypatch: pytest.MonkeyPatch) -> None:
    def project() -> str:
        (callback,) = reporting_callbacks("wandb")
        callback.on_train_begin(arguments("out"), TrainerState(), TrainerControl(), model=tiny_encoder())
        return callback.run.options["project"]  # type: ignore[no-any-return]

    assert project() == "sparse-encoder"
    monkeypatch.setenv("WANDB_PROJECT", "by-environment")
    assert project() == "by-environment"
    wandb.run = Run(project="begun-before")
    assert project() == "begun-before"


def test_each_trial_of_a_search_is_a_run_of_wandb(wandb: Anything) -> None:
    (callback,) = reporting_callbacks("wandb")
    runs = []
    for name in ("run-0", "run-1"):
        state = TrainerState(trial_name=name, is_hyper_param_search=True)
        callback.on_train_begin(arguments(f"out/{name}"), state, TrainerControl(), model=tiny_encoder())
        runs.append(callback.run)
    assert [(run.options["name"], run.options["group"]) for run in runs] == [("run-0", "out"), ("run-1", "out")]
    assert [run.is_finished for run in runs] == [True, False]


def test_a_second_training_goes_on_in_the_run_of_wandb(wandb: Anything) -> None:
    (callback,) = reporting_callbacks("wandb")
    callback.on_train_begin(arguments("out"), TrainerState(), TrainerControl(), model=tiny_encoder())
    run = callback.run
    callback.on_train_begin(arguments("out"), TrainerState(), TrainerControl(), model=tiny_encoder())
    assert callback.run is run
    assert not run.is_finished


def test_emissions_go_to_the_card(tmp_path: Path, meters: list[Meter]) -> None:
    model: Anything = configured()
    trainer(tmp_path / "new", model, num_train_epochs=1, callbacks=reporting_callbacks("codecarbon")).train()
    assert [meter.calls for meter in meters] == [["start", "stop"]]
    assert model.model_card_data.co2_eq_emissions == {
        "emissions": 2.5,
        "energy_consumed": 0.125,
        "source": "codecarbon",
        "training_type": "fine-tuning",
        "on_cloud": False,
        "cpu_model": "Some CPU",
        "ram_total_size": 24.5,
        "hours_used": 0.5,
    }


def test_emissions_that_were_not_measured_are_not_told(
    tmp_path: Path, meters: list[Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "result", None)
    model: Anything = configured()
    trainer(tmp_path, model, num_train_epochs=1, callbacks=reporting_callbacks("codecarbon")).train()
    assert model.model_card_data.co2_eq_emissions is None


def test_models_without_a_card_are_measured_too(tmp_path: Path, meters: list[Meter]) -> None:
    run = trainer(tmp_path, num_train_epochs=1, callbacks=reporting_callbacks("codecarbon"))
    run.train()
    assert meters[0].calls == ["start", "stop"]
    meters[0].final_emissions_data.gpu_model = "Some GPU"
    assert emissions_of(meters[0].final_emissions_data)["hardware_used"] == "Some GPU"
