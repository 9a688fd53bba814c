"""What a trainer uploads and when, with a client that is a fake and with the real one against a hub on this machine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from checkpoint_helpers import tree_of
from hub_server import CLIENTS_OWN, TOKEN, FakeApi, WritableHub, writable_hub
from training_helpers import Anything, arguments, trainer

from sparse_encoder.checkpoint.hub_push import without_secrets
from sparse_encoder.training.hub import HubPublisher, model_files
from sparse_encoder.training.hub_uploads import set_aside


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    return fake


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with writable_hub(monkeypatch) as served:
        yield served


def publisher(folder: Path, announced: list[int] | None = None, *, rank: int = 0, **options: Anything) -> HubPublisher:
    events = [] if announced is None else announced
    args = arguments(folder / "run", **{"push_to_hub": True, **options})
    return HubPublisher(args, is_world_process_zero=rank == 0, announce=lambda: events.append(1))


def write_checkpoint(folder: Path, step: int) -> Path:
    checkpoint = folder / "run" / f"checkpoint-{step}"
    files = {
        "modules.json": "[]",
        "model.safetensors": f"weights {step}",
        "1_SpladePooling/config.json": "{}",
        "2_Dense/model.safetensors": f"more {step}",
        "README.md": "# card",
        "training_args.json": "{}",
        "optimizer.safetensors": "o",
        "optimizer.json": "{}",
        "scheduler.json": "{}",
        "scaler.json": "{}",
        "rng_state_1.pth": "r",
        "loss.safetensors": "l",
        "run.json": "{}",
        "trainer_state.json": "{}",
        "MANIFEST.json": "{}",
    }
    for name, text in files.items():
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_text(text)
    return checkpoint


MODEL = [
    "1_SpladePooling/config.json",
    "2_Dense/model.safetensors",
    "README.md",
    "model.safetensors",
    "modules.json",
    "training_args.json",
]
ONE, TWO = "Training in progress, step 1", "Training in progress, step 2"
EXPECTED = {
    "end": [],
    "every_save": [(ONE, None), (TWO, None)],
    "checkpoint": [
        (ONE, None),
        (f"{ONE}, checkpoint", "last-checkpoint"),
        (TWO, None),
        (f"{TWO}, checkpoint", "last-checkpoint"),
    ],
    "all_checkpoints": [
        (ONE, None),
        (f"{ONE}, checkpoint", "checkpoint-1"),
        (TWO, None),
        (f"{TWO}, checkpoint", "checkpoint-2"),
    ],
}


def top_folder(files: dict[str, bytes]) -> str | None:
    """Return the folder that all files are in, or None."""
    folders = {name.rpartition("/")[0].partition("/")[0] for name in files}
    return None if "" in folders else folders.pop()


@pytest.mark.parametrize("strategy", sorted(EXPECTED))
def test_each_strategy_makes_its_commits(api: FakeApi, tmp_path: Path, strategy: str) -> None:
    announced: list[int] = []
    publishing = publisher(tmp_path, announced, hub_strategy=strategy, hub_private_repo=True)
    api.remote = ("last-checkpoint/stale", "checkpoint-1/stale", "checkpoint-2/stale", "stale")
    assert api.calls == []
    for step in (1, 2):
        publishing.on_save(step, step / 2, write_checkpoint(tmp_path, step))
        publishing.wait()
    assert [(each["commit_message"], top_folder(each["files"])) for each in api.uploads()] == EXPECTED[strategy]
    assert len(announced) == (0 if strategy == "end" else 2)
    made = [call for kind, call in api.calls if kind == "create"]
    assert made == [] if strategy == "end" else [{"repo_id": "run", "private": True, "exist_ok": True}]
    for upload in api.uploads():
        assert upload["repo_id"] == "me/run"
        step = 1 if ONE in upload["commit_message"] else 2
        top = top_folder(upload["files"])
        files = {name.removeprefix(f"{top}/"): content for name, content in upload["files"].items()}
        assert files["model.safetensors"] == f"weights {step}".encode()
        checkpoint = tree_of(tmp_path / "run" / f"checkpoint-{step}")
        assert sorted(files) == (MODEL if top is None else sorted(checkpoint))
        assert upload["deleted"] == ([] if top is None else [f"{top}/stale"])
    if strategy != "end":
        output = tree_of(tmp_path / "run")
        assert sorted(name for name in output if not name.startswith("checkpoint-")) == MODEL
        assert output["model.safetensors"] == b"weights 2"


def test_an_epoch_is_told_as_a_whole_number(api: FakeApi, tmp_path: Path) -> None:
    publishing = publisher(tmp_path, save_strategy="epoch")
    publishing.on_save(7, 2.0, write_checkpoint(tmp_path, 7))
    publishing.wait()
    assert api.messages() == ["Training in progress, epoch 2"]


@pytest.mark.parametrize("always", [False, True])
def test_a_save_during_an_upload_is_left_out_unless_all_are_to_be_pushed(
    api: FakeApi, tmp_path: Path, always: bool
) -> None:
    announced: list[int] = []
    publishing = publisher(tmp_path, announced, hub_always_push=always, hub_strategy="checkpoint")
    api.gate.clear()
    for step in (1, 2):
        publishing.on_save(step, 1.0, write_checkpoint(tmp_path, step))
    shutil.rmtree(tmp_path / "run" / "checkpoint-1")  # as save_total_limit does
    assert publishing.uploads.is_busy
    api.gate.set()
    publishing.wait()
    steps = [1, 2] if always else [1]
    uploaded = [{name.rpartition("/")[2]: each["files"][name] for name in each["files"]} for each in api.uploads()]
    assert [files["model.safetensors"] for files in uploaded] == [
        f"weights {step}".encode() for step in steps for _ in range(2)
    ]
    assert len(announced) == len(steps)
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")] == []


def test_a_failed_upload_is_told_without_the_token_and_the_next_one_runs(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publishing = publisher(tmp_path, hub_token="my own secret")
    api.fault = ValueError("Illegal header value b'Bearer my own secret'")
    publishing.on_save(1, 1.0, write_checkpoint(tmp_path, 1))
    publishing.wait()
    assert "an upload to 'run' failed, the run goes on: ConnectionError: ValueError: Illegal header" in caplog.text
    with pytest.raises(ConnectionError, match="<token>") as caught:
        publishing.push()
    assert "my own" not in caplog.text and "my own" not in str(caught.value)
    api.fault = None
    publishing.on_save(2, 1.0, write_checkpoint(tmp_path, 2))
    publishing.wait()
    assert api.messages() == [TWO]
    assert "secret" not in repr(publishing.uploads._opened)


def test_errors_without_secrets_are_left_as_they_are() -> None:
    fault = ValueError("no secret")

    def fail() -> None:
        raise fault

    with pytest.raises(ValueError) as caught:
        without_secrets(fail, "token")
    assert caught.value is fault


def test_a_push_waits_for_the_upload_before_it_and_gives_the_commit(api: FakeApi, tmp_path: Path) -> None:
    announced: list[int] = []
    publishing = publisher(tmp_path, announced, hub_model_id="model", hub_revision="next")
    api.gate.clear()
    publishing.on_save(1, 1.0, write_checkpoint(tmp_path, 1))
    (tmp_path / "run" / "_mine").write_text("x")
    (tmp_path / "run" / "eval.csv").write_text("old")
    later = publishing.push("later", blocking=False)
    assert isinstance(later, Future) and not later.done()
    (tmp_path / "run" / "eval.csv").write_text("new")
    api.gate.set()
    commit: Any = publishing.push("last", token="other", revision="else", private=True)
    assert [each["commit_message"] for each in api.uploads()] == [ONE, "later", "last"]
    assert commit.oid == str(len(api.calls)) and later.done()
    assert [each["revision"] for each in api.uploads()] == ["next", "next", "else"]
    assert [each["files"].get("eval.csv") for each in api.uploads()] == [None, b"old", b"new"]
    assert "_mine" not in {**api.uploads()[1]["files"], **api.uploads()[2]["files"]}
    assert [call["branch"] for kind, call in api.calls if kind == "branch"] == ["next", "else"]
    assert [call["private"] for kind, call in api.calls if kind == "create"] == [None, True]
    assert len(announced) == 3


def test_a_copy_that_cannot_be_made_leaves_nothing_and_the_run_goes_on(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoint = write_checkpoint(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        publisher(tmp_path).on_save(1, 1.0, checkpoint)
        with pytest.raises(OSError, match="No space"):
            set_aside(checkpoint, tmp_path / "run", linked=lambda name: False)
    assert "checkpoint-1 is not uploaded, it cannot be copied: [Errno 28]" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-1"] and api.calls == []


def test_other_processes_upload_nothing(api: FakeApi, tmp_path: Path) -> None:
    announced: list[int] = []
    publishing = publisher(tmp_path, announced, rank=1)
    publishing.on_save(1, 1.0, write_checkpoint(tmp_path, 1))
    assert publishing.push() is None
    publishing.wait()
    assert api.calls == [] and announced == []
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_nothing_to_push_and_unknown_strategies_are_refused(api: FakeApi, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="save the model first"):
        publisher(tmp_path).push()
    args = arguments(tmp_path)
    args.hub_strategy = "sometimes"
    with pytest.raises(ValueError, match="unknown hub_strategy 'sometimes'; choose from"):
        HubPublisher(args, is_world_process_zero=True, announce=lambda: None)
    assert api.calls == []


def test_the_files_of_a_run_are_told_from_those_of_its_model(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    run.train()
    run.save_model(str(tmp_path / "model"))
    assert model_files(tmp_path / "checkpoint-2") == sorted(tree_of(tmp_path / "model"))


def test_what_is_set_aside_survives_where_links_are_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError("no links here")

    checkpoint = write_checkpoint(tmp_path, 1)
    linked = set_aside(checkpoint, tmp_path / "run", linked=lambda name: name == "model.safetensors")
    assert (linked / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert not (linked / "run.json").samefile(checkpoint / "run.json")
    monkeypatch.setattr("os.link", refuse)
    copied = set_aside(checkpoint, tmp_path / "run", linked=lambda name: True)
    assert tree_of(copied) == tree_of(checkpoint) == tree_of(linked)
    assert not (copied / "model.safetensors").samefile(checkpoint / "model.safetensors")


@pytest.mark.filterwarnings(CLIENTS_OWN)
def test_the_real_client_makes_a_repository_commits_to_it_and_reads_it_again(hub: WritableHub, tmp_path: Path) -> None:
    publishing = publisher(tmp_path, hub_strategy="checkpoint", hub_token=TOKEN, hub_private_repo=True)
    assert hub.requests == []
    for step in (1, 2):
        publishing.on_save(step, 1.0, write_checkpoint(tmp_path, step))
        publishing.wait()
        if step == 1:
            hub.files("me/run")["last-checkpoint/loss-of-another-run.json"] = b"old"
    assert hub.messages() == [ONE, f"{ONE}, checkpoint", TWO, f"{TWO}, checkpoint"]
    assert [{**made, "type": None} for made in hub.made] == [
        {"name": "run", "organization": None, "visibility": "private", "type": None}
    ]
    expected = {f"last-checkpoint/{name}": data for name, data in tree_of(tmp_path / "run" / "checkpoint-2").items()}
    expected |= {name: data for name, data in tree_of(tmp_path / "run").items() if not name.startswith("checkpoint-")}
    assert hub.files("me/run") == {".gitattributes": b"", **expected}
    assert "last-checkpoint/loss-of-another-run.json" in hub.pushed[-1].deleted
    commit: Any = publishing.push(revision="next")
    assert commit.commit_message == "End of training" and commit.oid == hub.branches["me/run"]["next"]
    fetched = huggingface_hub.snapshot_download(
        "me/run", revision="next", token=TOKEN, endpoint=hub.url, cache_dir=tmp_path / "cache", allow_patterns=MODEL
    )
    assert sorted(tree_of(Path(fetched))) == MODEL
    assert (Path(fetched) / "model.safetensors").read_bytes() == b"weights 2"


@pytest.mark.filterwarnings(CLIENTS_OWN)
def test_the_real_clients_errors_stop_no_run_and_hold_no_token(
    hub: WritableHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.broken = True
    publishing = publisher(tmp_path, hub_token=TOKEN)
    publishing.on_save(1, 1.0, write_checkpoint(tmp_path, 1))
    publishing.wait()
    assert "the disk of the hub is full" in caplog.text
    with pytest.raises(OSError, match="the disk of the hub is full"):
        publishing.push()
    with pytest.raises(OSError, match="401"):
        publishing.push(token="hf_wrongwrong")
    wrong: Any = publishing.push(token="hf_new\nline", blocking=False)
    fault = wrong.exception()
    assert fault is not None and "hf_new" not in str(fault)
    hub.broken = False
    publishing.push("again")
    assert hub.messages() == ["again"]
    for secret in (TOKEN, "hf_wrongwrong", "hf_new"):
        assert secret not in caplog.text


def test_the_servers_handlers_are_gone_after_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    with monkeypatch.context() as patch, writable_hub(patch) as hub:
        assert HfApi().endpoint == hub.url
    assert HfApi().endpoint == huggingface_hub.constants.ENDPOINT != hub.url
