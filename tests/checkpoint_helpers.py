"""Weight files made by hand, byte by byte, and a hub that runs on this machine."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Put a file together; a ``str`` header is taken as it is, and ``length`` may lie."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    """Describe one tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def floats(*values: float) -> bytes:
    """Return the bytes of float32 numbers."""
    return struct.pack(f"<{len(values)}f", *values)


GOOD_SAFETENSORS = safetensors_bytes({"a": entry([2], 0, 8), "b": entry([1, 1], 8, 12)}, floats(1, 2, 3))
BAD_SAFETENSORS = {
    "header length of all ones": (b"\xff" * 8 + b"{}", "says its header has 18446744073709551615 bytes"),
    "header length over a hundred megabytes": (safetensors_bytes("{}", length=100_000_001), "says its header has"),
    "header longer than the file": (safetensors_bytes("{}", length=100), "fit the file of 10 bytes"),
    "header length 0": (safetensors_bytes("{}", length=0), "says its header has 0 bytes"),
    "header over four megabytes": (safetensors_bytes("{" + " " * 4_000_000 + "}"), "2 to 4000000"),
    "empty": (b"", "has only 0 bytes"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "has only 7 bytes"),
    "a pointer of git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        "is a Git LFS pointer.*git lfs pull",
    ),
    "a web page": (b"\n<!DOCTYPE html><html><title>404</title></html>", "is a web page"),
    "a web page in capitals": (b"<HTML>Sign in</HTML>", "is a web page"),
    "a pytorch archive": (b"PK\x03\x04" + b"\0" * 60, "is a PyTorch file"),
    "an old pytorch file": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\0" * 60, "is a PyTorch file"),
    "header no JSON": (safetensors_bytes("{a}"), "is not valid JSON"),
    "header a list": (safetensors_bytes([1, 2]), "no JSON object"),
    "header after blanks": (safetensors_bytes(' {"a": 1}'), "no JSON object"),
    "header not UTF-8": (struct.pack("<Q", 9) + b'{"\xff": 1}' + b" ", "must be UTF-8"),
    "a name twice": (
        safetensors_bytes("{" + '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + '"b":1}', floats(1)),
        "the key 'a' is there twice",
    ),
    "trailing bytes": (GOOD_SAFETENSORS + b"\0", "no valid safetensors"),
    "cut off": (GOOD_SAFETENSORS[:-1], "no valid safetensors"),
    "overlap": (
        safetensors_bytes({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, floats(1, 2, 3)),
        "no valid safetensors",
    ),
    "a hole": (
        safetensors_bytes({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, floats(1, 2, 3)),
        "no valid safetensors",
    ),
    "a size that is not the shape's": (
        safetensors_bytes({"a": entry([3], 0, 8)}, floats(1, 2)),
        "no valid safetensors",
    ),
    "offsets below zero": (safetensors_bytes({"a": entry([1], -4, 0)}), "data_offsets"),
    "offsets the wrong way round": (safetensors_bytes({"a": entry([1], 4, 0)}, floats(1)), "data_offsets"),
    "offsets beyond 64 bits": (safetensors_bytes({"a": entry([1], 0, 2**64)}), "data_offsets"),
    "an overflowing shape": (safetensors_bytes({"a": entry([2**40, 2**40], 0, 4)}, floats(1)), "no valid safetensors"),
    "a huge axis beside an empty one": (safetensors_bytes({"a": entry([0, 2**62], 0, 0)}), "has the shape"),
    "an axis below zero": (safetensors_bytes({"a": entry([-1], 0, 4)}, floats(1)), "has the shape"),
    "an axis that is true": (
        safetensors_bytes('{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', floats(1)),
        "shape",
    ),
    "nine axes": (safetensors_bytes({"a": entry([1] * 9, 0, 4)}, floats(1)), "has the shape"),
    "a shape that is a text": (
        safetensors_bytes({"a": {**entry([1], 0, 4), "shape": "1"}}, floats(1)),
        "has the shape",
    ),
    "an entry that is a number": (safetensors_bytes({"a": 1}), "must have dtype, shape and data_offsets"),
    "an entry with more": (safetensors_bytes({"a": {**entry([1], 0, 4), "x": 1}}, floats(1)), "must have dtype"),
    "metadata of numbers": (
        safetensors_bytes({"__metadata__": {"a": 1}, "b": entry([1], 0, 4)}, floats(1)),
        "no valid",
    ),
    **{
        f"type {dtype}": (
            safetensors_bytes({"a": entry([4], 0, 4, dtype)}, b"\0" * 4),
            rf"has the type '{dtype}'; supported are \['BF16', 'BOOL', 'F16', 'F32', 'F64', 'I32', 'I64', 'U8'\]",
        )
        for dtype in ("F8_E4M3", "F8_E5M2", "F4", "I8", "U16", "C64", "", "f32")
    },
    **{
        f"value {value}": (safetensors_bytes({"a": entry([2], 0, 8)}, floats(1, value)), "has NaN or infinite values")
        for value in (float("nan"), float("inf"), float("-inf"))
    },
    **{
        f"name {name[:20]!r}": (safetensors_bytes({name: entry([1], 0, 4)}, floats(1)), "a tensor cannot be called")
        for name in ("../a", "a..b", "a/b", "a\\b", "a\0b", "a\nb", "", " ", "a\u202eb", "x" * 10_000)
    },
}
"""Files that lie about themselves, and what is said of them."""


@dataclass
class FakeHub:
    """Repositories served as the hub serves them, with a log of what was asked and ways to misbehave."""

    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    alter: dict[str, bytes] = field(default_factory=dict)
    """Content to send instead of a file's own, under the file's own hash."""
    portal: bool = False
    """Answer everything with a web page, as a captive portal does."""
    moves: list[tuple[str, str, str]] = field(default_factory=list)
    """Branches to move after the next look at one: repository, branch, commit."""
    private: dict[str, str] = field(default_factory=dict)
    """Tokens by repository."""
    gated: set[str] = field(default_factory=set)
    url: str = ""

    def add(self, repository: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Add a commit and put a branch on it; returns the commit."""
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[repository, digest] = dict(files)
        self.branches.setdefault(repository, {})[branch] = digest
        return digest

    def paths(self, verb: str = "GET") -> list[str]:
        """Return the paths asked for with one verb."""
        return [path for method, path, _ in self.requests if method == verb]


def is_large(name: str) -> bool:
    """Return whether the hub keeps a file outside git."""
    return name.endswith((".safetensors", ".bin", ".onnx"))


def etag_of(name: str, content: bytes) -> str:
    """Return the hash the hub knows a file by."""
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        token = self.headers.get("Authorization")
        self.hub.requests.append((self.command, unquote(path), token))
        if self.hub.portal:
            return self._send(200, b"<html>Welcome to the hotel</html>", {"Content-Type": "text/html"})
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._api("/".join(parts[2:4]), parts[4:], token)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), token)
        return self._error(404, "EntryNotFound")

    def _commit(self, repository: str, revision: str, token: str | None) -> str | None:
        """Return the commit, or answer with the error the hub has for it."""
        wanted = self.hub.private.get(repository)
        if repository not in self.hub.branches or (wanted and token != f"Bearer {wanted}"):
            self._error(401, "RepoNotFound")
            return None
        if repository in self.hub.gated:
            self._error(403, "GatedRepo")
            return None
        commit = self.hub.branches[repository].get(revision, revision)
        if (repository, commit) not in self.hub.commits:
            self._error(404, "RevisionNotFound")
            return None
        return commit

    def _api(self, repository: str, rest: list[str], token: str | None) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self._commit(repository, revision, token)
        if commit is None:
            return
        files = self.hub.commits[repository, commit]
        if rest[:1] == ["tree"]:
            body: object = [self._tree_entry(name, content) for name, content in files.items()]
        else:
            body = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            for moved, branch, target in self.hub.moves:
                self.hub.branches[moved][branch] = target
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def _tree_entry(name: str, content: bytes) -> dict[str, object]:
        git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        found: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git}
        if is_large(name):
            found["lfs"] = {"oid": etag_of(name, content), "size": len(content), "pointerSize": 134}
        return found

    def _file(self, repository: str, revision: str, name: str, token: str | None) -> None:
        commit = self._commit(repository, revision, token)
        if commit is None:
            return
        content = self.hub.commits[repository, commit].get(name)
        if content is None:
            self._error(404, "EntryNotFound")
            return
        headers = {"ETag": f'"{etag_of(name, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "none"}
        self._send(200, self.hub.alter.get(name, content), headers)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def forget_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tokens, the cache and the hub of this machine's user until the test ends."""
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "SENTENCE_TRANSFORMERS_HOME", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")


def be_the_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a hub that is served the one that clients talk to which are built until the test ends.

    The client reads HF_ENDPOINT when it is imported, into two constants, and those whenever it is used: so they are
    what a test has to change.
    """
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def serving(hub: FakeHub, handler_class: type[HubHandler] = HubHandler) -> Iterator[FakeHub]:
    """Serve a hub on a free port of this machine, until the block ends."""
    handler = type("Handler", (handler_class,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join(timeout=10)


def tree_of(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
