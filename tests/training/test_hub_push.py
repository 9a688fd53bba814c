"""The callback that uploads by a schedule of its own, with a fake client and with the real one."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from checkpoint_helpers import tree_of
from hub_server import CLIENTS_OWN, TOKEN, FakeApi, WritableHub, writable_hub
from model_helpers import write_encoder
from training_helpers import Anything, arguments, digest, tiny_encoder, trainer

from sparse_encoder import SparseEncoder
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.training.checkpoints.manifest import write_manifest
from sparse_encoder.training.events.hub_push import HubPushCallback
from sparse_encoder.training.loop import TrainingRun
from sparse_encoder.training.state import TrainerControl, TrainerState


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    return fake


class Tokenizer:
    def save_pretrained(self, save_directory: str) -> None:
        (Path(save_directory) / "tokenizer.json").write_text("{}")


class Driver:
    """Fires the events of a run of several epochs at a callback, as a trainer does."""

    def __init__(self, callback: HubPushCallback, folder: Path, *, rank: int = 0, **options: Anything) -> None:
        self.callback = callback
        self.args = arguments(folder / "trainer", **{"max_steps": 6, **options})
        self.state = TrainerState(is_world_process_zero=rank == 0, max_steps=6)
        self.saves: list[str] = []

    def save(self, folder: Path) -> None:
        self.saves.append(folder.name)
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / "model.safetensors").write_text(f"step {self.state.global_step}")

    def fire(self, event: str) -> None:
        context = {"model": tiny_encoder(), "save_model": self.save, "save_checkpoint": self.save}
        getattr(self.callback, event)(self.args, self.state, TrainerControl(), **context)

    def run(self, epochs: int = 2, steps: int = 3, *, wait: bool = True) -> Driver:
        self.fire("on_train_begin")
        for epoch in range(epochs):
            for step in range(steps):
                self.state.global_step += 1
                self.state.epoch = epoch + (step + 1) / steps
                self.state.log_history.append({"loss": 0.5, "step": self.state.global_step, "epoch": self.state.epoch})
                self.fire("on_step_end")
                if wait:
                    self.callback.uploads.wait()
            self.fire("on_epoch_end")
            if wait:
                self.callback.uploads.wait()
        self.fire("on_train_end")
        return self


END = "End of training"
PROGRESS = "Training in progress, "
EXPECTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no": ({"save_strategy": "NO"}, [END]),
    "epoch": ({}, [f"{PROGRESS}epoch 1", f"{PROGRESS}epoch 2", END]),
    "steps": ({"save_strategy": "Steps", "save_steps": 2}, [f"{PROGRESS}step {step}" for step in (2, 4, 6)] + [END]),
    "checkpoint": ({"checkpoint": True}, [f"{PROGRESS}epoch 1", f"{PROGRESS}epoch 2", END]),
}


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_each_strategy_makes_its_commits(api: FakeApi, tmp_path: Path, kind: str) -> None:
    options, messages = EXPECTED[kind]
    callback = HubPushCallback(tmp_path / "pushed", tokenizer=Tokenizer(), hub_token="t", **options)
    api.remote = ("checkpoint/stale", "stale", "checkpoints/stale")
    assert api.calls == []
    Driver(callback, tmp_path).run()
    assert api.messages() == messages
    assert [call for name, call in api.calls if name == "create"] == [
        {"repo_id": "pushed", "private": None, "exist_ok": True}
    ]
    for upload in api.uploads():
        step = {"epoch 1": 3, "epoch 2": 6, END: 6}.get(upload["commit_message"].removeprefix(PROGRESS))
        step = int(upload["commit_message"][-1]) if step is None else step
        files = upload["files"]
        assert files["model.safetensors"] == f"step {step}".encode()
        assert "tokenizer.json" in files and upload["repo_id"] == "me/pushed"
        assert files.get("checkpoint/model.safetensors") == (f"step {step}".encode() if kind == "checkpoint" else None)
        assert upload["deleted"] == (["checkpoint/stale"] if kind == "checkpoint" else [])


def test_an_upload_that_runs_makes_the_next_be_left_out_but_never_the_last(api: FakeApi, tmp_path: Path) -> None:
    callback = HubPushCallback(tmp_path / "pushed")
    api.gate.clear()
    driver = Driver(callback, tmp_path)
    opened: list[bool] = []

    def open_at_the_end(folder: Path) -> None:
        Driver.save(driver, folder)
        if driver.state.global_step == 6:
            opened.append(callback.uploads.is_busy)
            api.gate.set()

    driver.save = open_at_the_end  # type: ignore[method-assign]
    driver.run(wait=False)
    assert opened == [True]
    assert api.messages() == [f"{PROGRESS}epoch 1", END]
    assert [each["files"]["model.safetensors"] for each in api.uploads()] == [b"step 3", b"step 6"]


def test_a_failure_in_between_is_told_and_that_of_the_last_push_is_raised(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.fault = OSError("the hub hates Bearer mytoken")
    callback = HubPushCallback(tmp_path / "pushed", hub_token="mytoken")
    with pytest.raises(ConnectionError, match="the hub hates Bearer <token>"):
        Driver(callback, tmp_path).run()
    assert caplog.text.count("the run goes on") == 2
    assert "mytoken" not in caplog.text and "mytoken" not in repr(callback.target)


def test_only_the_first_process_uploads_and_all_save(api: FakeApi, tmp_path: Path) -> None:
    driver = Driver(HubPushCallback(tmp_path / "pushed", checkpoint=True), tmp_path, rank=1).run()
    assert api.calls == []
    assert driver.saves == ["pushed", "checkpoint", "pushed", "checkpoint", "pushed"]
    assert not (tmp_path / "pushed" / "README.md").exists()


def test_it_does_nothing_if_the_trainer_uploads(api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for options in ({}, {"save_strategy": "steps", "save_steps": 1}):
        driver = Driver(HubPushCallback(tmp_path / "pushed", **options), tmp_path)  # type: ignore[arg-type]
        driver.args.push_to_hub = True
        driver.run()
        assert driver.saves == []
    assert api.calls == [] and caplog.text.count("HubPushCallback does nothing") == 2


def test_the_readme_has_the_arguments_and_the_history_which_stays_as_it_is(api: FakeApi, tmp_path: Path) -> None:
    callback = HubPushCallback(tmp_path / "pushed", language="nl", license="mit", tags="mine", model_name="Ours")
    driver = Driver(callback, tmp_path)
    driver.fire("on_train_begin")
    driver.state.global_step, driver.state.epoch = 3, 1.0
    driver.state.log_history.append({"loss": 0.4321, "step": 3, "epoch": 1.0})
    history = copy.deepcopy(driver.state.log_history)
    driver.fire("on_epoch_end")
    callback.uploads.wait()
    assert driver.state.log_history == history
    readme = api.uploads()[0]["files"]["README.md"].decode()
    data = huggingface_hub.ModelCard(readme).data.to_dict()
    assert (data["language"], data["license"]) == (["nl"], "mit") or (data["language"], data["license"]) == (
        "nl",
        "mit",
    )
    assert "mine" in data["tags"]
    assert "# Ours" in readme and "0.4321" in readme


def test_a_sparse_encoder_writes_its_own_readme_with_the_arguments(api: FakeApi, tmp_path: Path) -> None:
    model = SparseEncoder(str(write_encoder(tmp_path / "model")), device="cpu")
    callback = HubPushCallback(tmp_path / "pushed", "no", license="mit", model_name="Ours")
    writers = {"save_model": lambda folder: model.save_pretrained(str(folder))}
    callback.on_train_end(arguments(tmp_path), TrainerState(), TrainerControl(), model=model, **writers)
    readme = api.uploads()[0]["files"]["README.md"].decode()
    assert huggingface_hub.ModelCard(readme).data.to_dict()["license"] == "mit"
    assert "# Ours" in readme and "SparseEncoder(" in readme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_strategy": "daily"}, r"unknown save_strategy 'daily'; choose from \['epoch', 'no', 'steps'\]"),
        ({"save_strategy": "steps"}, "needs save_steps"),
        ({"save_strategy": "steps", "save_steps": 0}, "above 0, got 0"),
        ({"save_strategy": "steps", "save_steps": 2.0}, "above 0, got 2.0"),
        ({"save_steps": 5}, "save_steps=5 needs save_strategy='steps'"),
        (
            {"save_strategy": "steps", "save_steps": 2, "checkpoint": True},
            "checkpoint=True needs save_strategy='epoch'",
        ),
        ({"save_strategy": "no", "checkpoint": True}, "checkpoint=True needs save_strategy='epoch'"),
    ],
)
def test_what_does_not_apply_is_refused_at_once(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubPushCallback(tmp_path, **options)


def test_unknown_arguments_and_trainers_without_writers_are_refused(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        HubPushCallback(tmp_path, colour="red")
    driver = Driver(HubPushCallback(tmp_path / "pushed"), tmp_path)
    with pytest.raises(RuntimeError, match="a trainer that offers save_model"):
        driver.callback.on_epoch_end(driver.args, driver.state, TrainerControl(), model=tiny_encoder())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with writable_hub(monkeypatch) as served:
        yield served


def offer_writers(run: Anything, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give callbacks the two writers, unless the trainer does."""
    runs: list[TrainingRun] = []
    plain = TrainingRun.run

    def remember(self: TrainingRun, *args: Anything) -> Anything:
        runs.append(self)
        return plain(self, *args)

    def save_checkpoint(folder: Path) -> None:
        runs[-1].files.save(runs[-1]._progress())
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(run.args.output_dir) / f"checkpoint-{run.state.global_step}", folder)

    monkeypatch.setattr(TrainingRun, "run", remember)
    context = run.callback_handler.context
    context.setdefault("save_model", lambda folder: run.save_model(str(folder), _internal_call=True))
    context.setdefault("save_checkpoint", save_checkpoint)


@pytest.mark.filterwarnings(CLIENTS_OWN)
def test_a_run_goes_on_bit_for_bit_from_what_was_uploaded(
    hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = trainer(tmp_path / "straight", tiny_encoder(dropout=0.3), num_train_epochs=3)
    straight.train()
    first = trainer(tmp_path / "first", tiny_encoder(dropout=0.3), num_train_epochs=3)
    callback = HubPushCallback(tmp_path / "pushed", hub_token=TOKEN, checkpoint=True)
    offer_writers(first, monkeypatch)
    first.add_callback(callback)
    first.train()
    assert hub.messages()[0] == f"{PROGRESS}epoch 1" and hub.messages()[-1] == END
    assert hub.files("me/pushed")["model.safetensors"] == tree_of(tmp_path / "pushed")["model.safetensors"]
    after_one = {
        name.removeprefix("checkpoint/"): data
        for name, data in hub.pushed[0].files.items()
        if name.startswith("checkpoint/")
    }
    # the first commit's own files: ``files`` is what the repository held after it
    fetched = tmp_path / "fetched" / "checkpoint-3"
    for name, data in after_one.items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        (fetched / name).write_bytes(data)
    resumed = trainer(tmp_path / "resumed", tiny_encoder(dropout=0.3), num_train_epochs=3)
    resumed.train(resume_from_checkpoint=fetched)
    assert resumed.state.global_step == straight.state.global_step == 9
    for run in (first, resumed):
        for name, value in digest(straight.model).items():
            assert torch.equal(value, digest(run.model)[name]), name


def test_nothing_is_saved_while_an_upload_runs(api: FakeApi, tmp_path: Path) -> None:
    api.gate.clear()
    driver = Driver(HubPushCallback(tmp_path / "pushed", checkpoint=True), tmp_path)
    driver.fire("on_train_begin")
    for _ in range(3):
        driver.fire("on_epoch_end")
    assert driver.saves == ["pushed", "checkpoint"]
    api.gate.set()
    driver.callback.uploads.wait()


@pytest.mark.parametrize("part", ["pushed", "checkpoint"])
def test_a_full_disk_is_told_and_the_run_goes_on(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    driver = Driver(HubPushCallback(tmp_path / "pushed", checkpoint=True), tmp_path)

    def save(folder: Path) -> None:
        if folder.name == part and driver.state.global_step == 3:
            raise (
                CheckpointError("no space left", path=folder) if part == "checkpoint" else OSError(28, "no space left")
            )
        Driver.save(driver, folder)

    driver.save = save  # type: ignore[method-assign]
    driver.run()
    assert api.messages() == [f"{PROGRESS}epoch 2", END]
    (message,) = [each.getMessage() for each in caplog.records if "no space left" in each.getMessage()]
    assert message.startswith(f"'{PROGRESS}epoch 1' is left out and the run goes on")


def test_a_full_disk_at_the_end_is_an_error(api: FakeApi, tmp_path: Path) -> None:
    driver = Driver(HubPushCallback(tmp_path / "pushed", "no"), tmp_path)

    def save(folder: Path) -> None:
        raise OSError(28, "no space left")

    driver.save = save  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no space left"):
        driver.run()


def test_what_a_killed_run_left_is_tidied_up_and_never_uploaded(api: FakeApi, tmp_path: Path) -> None:
    pushed = tmp_path / "pushed"
    for name, word in (
        ("checkpoint", "old"),
        ("checkpoint.1", "new"),
        (".trash-checkpoint-ab", "x"),
        (".tmp-0-ab", "x"),
    ):
        (pushed / name).mkdir(parents=True)
        (pushed / name / "model.safetensors").write_text(word)
    write_manifest(pushed / "checkpoint.1")
    driver = Driver(HubPushCallback(pushed, "no"), tmp_path)
    for name in ("checkpoint.7", ".trash-checkpoint-cd"):  # of a run that is killed beside this one
        (tmp_path / "later" / name).mkdir(parents=True)
        (tmp_path / "later" / name / "model.safetensors").write_text("x")
    driver.fire("on_train_begin")
    assert sorted(path.name for path in pushed.iterdir()) == ["checkpoint"]
    assert (pushed / "checkpoint" / "model.safetensors").read_text() == "new"
    shutil.copytree(tmp_path / "later", pushed, dirs_exist_ok=True)
    driver.fire("on_train_end")
    (upload,) = api.uploads()
    assert {name.partition("/")[0] for name in upload["files"]} == {"README.md", "checkpoint", "model.safetensors"}


def test_the_folder_of_the_trainer_is_refused(tmp_path: Path) -> None:
    driver = Driver(HubPushCallback(tmp_path / "trainer"), tmp_path)
    with pytest.raises(ValueError, match=r"another output_dir than the trainer's, .*trainer"):
        driver.fire("on_train_begin")
