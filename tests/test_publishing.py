from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd

from sparse_encoder.publishing import Upload, upload


class FakeHub:
    """Answers what the hub's client would, and keeps what it was asked for."""

    def __init__(self, readme: bool) -> None:
        self.readme = readme
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.files: dict[str, str] = {}

    def __call__(self, token: str | None = None) -> FakeHub:
        self.calls.append(("client", {"token": token}))
        return self

    def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
        self.calls.append(("create", options))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def create_branch(self, repo_id: str, **options: object) -> None:
        self.calls.append(("branch", {"repo_id": repo_id, **options}))

    def file_exists(self, repo_id: str, filename: str, **options: object) -> bool:
        self.calls.append(("look", {"repo_id": repo_id, "filename": filename, **options}))
        return self.readme

    def create_commit(self, repo_id: str, operations: list[CommitOperationAdd], **options: object) -> SimpleNamespace:
        self.files = {each.path_in_repo: Path(str(each.path_or_fileobj)).read_text() for each in operations}
        self.calls.append(("upload", {"repo_id": repo_id, **options}))
        return SimpleNamespace(commit_url="the commit", pr_url="the pull request")


@pytest.fixture
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(readme=getattr(request, "param", False))
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    return fake


def save(folder: Path, repository: str, with_card: bool) -> None:
    folder.mkdir()
    (folder / "model").write_text(repository)
    if with_card:
        (folder / "README.md").write_text("card")


def test_a_new_repository(hub: FakeHub) -> None:
    assert upload(Upload(repo_id="model", token="t", private=True), save=save) == "the commit"
    assert hub.files == {"model": "me/model", "README.md": "card"}
    calls = dict(hub.calls)
    assert calls["client"] == {"token": "t"}
    assert calls["create"] == {"private": True, "exist_ok": False}
    assert calls["upload"] == {
        "repo_id": "me/model",
        "commit_message": "Add new SparseEncoder model",
        "commit_description": None,
        "create_pr": False,
        "revision": None,
    }
    assert "branch" not in calls


@pytest.mark.parametrize("hub", [True], indirect=True)
@pytest.mark.parametrize("replace", [False, True])
def test_a_readme_that_is_there_stays_unless_it_is_to_be_replaced(hub: FakeHub, replace: bool) -> None:
    upload(Upload(repo_id="me/model", exist_ok=True, replace_model_card=replace), save=save)
    assert ("README.md" in hub.files) == replace


def test_a_pull_request_says_how_to_try_it(hub: FakeHub) -> None:
    target = Upload(repo_id="me/model", create_pr=True, commit_message="mine", architecture="Parts()")
    assert upload(target, save=save) == "the pull request"
    calls = dict(hub.calls)
    assert calls["create"]["exist_ok"]
    assert calls["upload"]["commit_message"] == "mine"
    text = calls["upload"]["commit_description"]
    assert "Parts()" in text
    assert 'SparseEncoder("me/model", revision=f"refs/pr/{pr_number}")' in text
    compile(text.split("```python\n")[1].split("```")[0], "snippet", "exec")


def test_a_branch_and_a_folder_that_is_there(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("w")

    def never(folder: Path, repository: str, with_card: bool) -> None:
        raise AssertionError

    assert upload(Upload(repo_id="me/model", revision="next"), save=never, folder=tmp_path) == "the commit"
    assert hub.files == {"config.json": "w"}
    assert dict(hub.calls)["branch"] == {"repo_id": "me/model", "branch": "next", "exist_ok": True}
    assert dict(hub.calls)["upload"]["revision"] == "next"


def test_the_branch_of_a_pull_request_is_there_already_and_tokens_are_not_shown(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("w")
    target = Upload(repo_id="me/model", revision="refs/pr/3", token="hidden")
    upload(target, save=save, folder=tmp_path)
    assert "branch" not in dict(hub.calls) and dict(hub.calls)["upload"]["revision"] == "refs/pr/3"
    assert "hidden" not in repr(target)


def test_a_folder_without_a_model_makes_no_repository(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").mkdir()
    for folder, told in (("nowhere", "which is no folder"), ("~/empty", "which has neither modules.json nor config")):
        with pytest.raises(ValueError, match=f"local_model_path must be a folder with a saved model.*{told}"):
            upload(Upload(repo_id="me/model"), save=save, folder=Path(folder))
    assert hub.calls == []
    (tmp_path / "empty" / "modules.json").write_text("[]")
    upload(Upload(repo_id="me/model"), save=save, folder=Path("~/empty"))
    assert hub.files == {"modules.json": "[]"}


def test_an_error_that_holds_a_token_is_told_without_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeHub, repo_id: str, **options: object) -> SimpleNamespace:
        raise OSError("no way to https://user:hidden@host")

    monkeypatch.setattr(FakeHub, "create_repo", fail)
    with pytest.raises(ConnectionError, match="no way to") as caught:
        upload(Upload(repo_id="me/model", token="hidden"), save=save)
    assert "hidden" not in str(caught.value) and caught.value.__cause__ is caught.value.__context__ is None
