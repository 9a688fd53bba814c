"""A hub on this machine that can be written to, as far as the real client needs it: repositories, branches, commits.

Reading is that of checkpoint_helpers. Large files come by git-lfs (the client's newer way, xet, is switched off).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from checkpoint_helpers import FakeHub, HubHandler, be_the_hub, forget_account, is_large, serving
from huggingface_hub import CommitOperationAdd

Anything = Any  # options of a call
OWNER, TOKEN = "me", "hf_secretsecret"
CLIENTS_OWN = "ignore:Use 'content=<...>':DeprecationWarning"  # of huggingface_hub when it sends large files


@dataclass
class Pushed:
    """One commit that came in."""

    repository: str
    branch: str
    message: str
    files: dict[str, bytes]
    """All files of the repository after it."""
    changed: list[str]
    """Those that came with it."""
    deleted: list[str] = field(default_factory=list)
    description: str = ""


@dataclass
class WritableHub(FakeHub):
    """Repositories of one owner, whose token is asked for; keeps every commit, and can be made slow or broken."""

    pushed: list[Pushed] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    """What the client asked for when it made repositories."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256."""
    gate: threading.Event | None = None
    """Commits wait until it is set."""
    broken: bool = False
    """Answer every commit with an error."""
    read_only: bool = False
    """Make nothing but pull requests."""

    def messages(self) -> list[str]:
        """Return the messages of all commits in their order."""
        return [commit.message for commit in self.pushed]

    def files(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        """Return the files of a branch."""
        return self.commits[repository, self.branches[repository][branch]]

    def commit(self, repository: str, branch: str, lines: list[dict[str, Any]]) -> str:
        """Put a commit, as the client sends it, on a branch; returns its digest."""
        files = dict(self.files(repository, branch))
        header = lines[0]["value"]
        new = Pushed(repository, branch, header["summary"], files, [], description=header.get("description", ""))
        for line in lines[1:]:
            value = line["value"]
            name = value["path"]
            if line["key"] == "deletedFile":
                del files[name]
                new.deleted.append(name)
                continue
            files[name] = self.objects[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
            new.changed.append(name)
        self.pushed.append(new)
        return self.add(repository, files, branch=branch)


class WritableHandler(HubHandler):
    """Answer the requests of an upload."""

    hub: WritableHub

    def do_POST(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        token = self.headers.get("Authorization")
        self.hub.requests.append((self.command, unquote(path), token))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if token != f"Bearer {TOKEN}":
            self._send(401, b'{"error": "Invalid credentials"}', {})
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            self._json({"objects": [self._place(each) for each in json.loads(body)["objects"]], "transfer": "basic"})
        else:
            self._write("/".join(parts[2:4]), *parts[4:6], body)

    def _api(self, repository: str, rest: list[str], token: str | None) -> None:
        if rest != ["refs"]:
            super()._api(repository, rest, token)
            return
        refs = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in self.hub.branches[repository].items()
        ]
        self._json({"branches": refs, "converts": [], "tags": []})

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self._send(200, b"", {})

    def _body(self) -> bytes:
        """Read what comes with a request, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _create(self, wanted: dict[str, Any]) -> None:
        repository = f"{wanted['organization'] or OWNER}/{wanted['name']}"
        self.hub.made.append(wanted)
        if self.hub.read_only:
            self._send(403, b'{"error": "Forbidden"}', {})
            return
        status = 409 if repository in self.hub.branches else 200
        if status == 200:
            self.hub.add(repository, {".gitattributes": b""})
        self._json({"url": f"{self.hub.url}/{repository}", "id": repository}, status)

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        action = {"upload": {"href": f"{self.hub.url}/objects/{wanted['oid']}", "header": {}}}
        return {**wanted} if wanted["oid"] in self.hub.objects else {**wanted, "actions": action}

    def _write(self, repository: str, action: str, branch: str, body: bytes) -> None:
        branches = self.hub.branches.get(repository)
        if branches is None:
            self._error(404, "RepoNotFound")
        elif action == "branch" and self.hub.read_only:
            self._send(403, b'{"error": "Forbidden"}', {})
        elif action == "branch":
            status = 409 if branch in branches else 201
            branches.setdefault(branch, branches["main"])
            self._json({}, status)
        elif branch not in branches:
            self._error(404, "RevisionNotFound")
        elif action == "preupload":
            modes = {each["path"]: "lfs" if is_large(each["path"]) else "regular" for each in json.loads(body)["files"]}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self._json({"files": files})
        else:
            assert action == "commit"
            if self.hub.gate is not None:
                assert self.hub.gate.wait(60)
            if self.hub.broken:
                self._send(500, json.dumps({"error": "the disk of the hub is full"}).encode(), {})
                return
            answer = {}
            if urlsplit(self.path).query == "create_pr=1":
                number = 1 + sum(name.startswith("refs/pr/") for name in branches)
                branches[f"refs/pr/{number}"] = branches[branch]
                branch = f"refs/pr/{number}"
                answer["pullRequestUrl"] = f"{self.hub.url}/{repository}/discussions/{number}"
            digest = self.hub.commit(repository, branch, [json.loads(line) for line in body.splitlines()])
            answer |= {"commitUrl": f"{self.hub.url}/{repository}/commit/{digest}", "commitOid": digest}
            self._json(answer)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@contextmanager
def writable_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """Serve an empty hub, and make it the one that clients talk to which are built until the test ends."""
    forget_account(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serving(WritableHub(), WritableHandler) as hub:
        be_the_hub(hub, monkeypatch)
        assert isinstance(hub, WritableHub)
        yield hub


class FakeApi:
    """In the place of HfApi: keeps what it is asked for, and can be slow or broken."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.remote: tuple[str, ...] = ()
        """Files that are in every repository."""

    def __call__(self, token: str | None = None) -> FakeApi:
        return self

    def create_repo(self, repo_id: str, **options: Anything) -> SimpleNamespace:
        self.calls.append(("create", {"repo_id": repo_id, **options}))
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def create_branch(self, repo_id: str, **options: Anything) -> None:
        self.calls.append(("branch", {"repo_id": repo_id, **options}))

    def list_repo_files(self, repo_id: str, **options: Anything) -> list[str]:
        return list(self.remote)

    def create_commit(self, repo_id: str, operations: list[Any], **options: Anything) -> SimpleNamespace:
        assert self.gate.wait(60)
        if self.fault is not None:
            raise self.fault
        added = [each for each in operations if isinstance(each, CommitOperationAdd)]
        files = {each.path_in_repo: Path(each.path_or_fileobj).read_bytes() for each in added}  # type: ignore[arg-type]
        deleted = [each.path_in_repo for each in operations if each not in added]
        self.calls.append(("upload", {"repo_id": repo_id, **options, "files": files, "deleted": deleted}))
        return SimpleNamespace(oid=str(len(self.calls)), commit_url="the commit", pr_url="the pull request")

    def uploads(self) -> list[dict[str, Any]]:
        return [call for kind, call in self.calls if kind == "upload"]

    def messages(self) -> list[str]:
        return [call["commit_message"] for call in self.uploads()]
