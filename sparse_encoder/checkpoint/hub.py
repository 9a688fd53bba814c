"""A model's folder, from the disk or from the hub.

The hub's own client downloads. This file decides which files are wanted, that all are of one commit, and that what has
just been downloaded is what its hash says. Nothing here touches the network for a folder that exists.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from sparse_encoder.checkpoint.errors import LoadError
from sparse_encoder.checkpoint.hub_names import redacted, repository_of
from sparse_encoder.checkpoint.json_files import read_json_object
from sparse_encoder.checkpoint.paths import resolve_inside
from sparse_encoder.checkpoint.reading import MAX_INDEX_BYTES

_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
_WANTED = ("*.json", "*.txt", "*.model", "README.md", *_WEIGHTS, *(f"*/{name}" for name in _WEIGHTS))
_UNWANTED = (".*", "checkpoint-*", "onnx/*", "openvino/*", "coreml/*", "runs/*", "*/runs/*")
_PICKLES = "pytorch_model*.bin"
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's hash of a file, or the SHA-256 of a large one
_CHUNK_BYTES = 1 << 20


def fetch_model_folder(
    name_or_path: str | os.PathLike[str],
    *,
    cache_folder: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Return the folder of a model, downloaded first if it is on the hub.

    Args:
        name_or_path: A folder; or a repository, ``organisation/model``; or a bare name, which is one of the hub's
            original models (``bert-base-uncased``) or a model of the organisation ``sparse-encoder``.
        cache_folder: Where downloads are kept; else the environment variable ``SENTENCE_TRANSFORMERS_HOME``, else the
            hub client's own cache.
        revision: Branch, tag or commit; it is resolved to a commit once, and every file is of that commit.
        token: Access token, True for the one that is stored, False for none, None for the stored one if there is one.
        local_files_only: Use only what is in the cache. ``HF_HUB_OFFLINE=1`` does the same.
        endpoint: Address of the hub; else the environment variable ``HF_ENDPOINT``, else the public one.

    Returns:
        The folder. Pickles are fetched only for folders that have no safetensors.

    Raises:
        ValueError: If the name is empty or no name of a repository.
        FileNotFoundError: If there is no such folder, repository or revision.
        NotADirectoryError: If the name is a file.
        LoadError: If the files cannot be had, are not all there, or are not what their hashes say.
    """
    name = os.fspath(name_or_path)
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    repository = repository_of(name)
    from huggingface_hub import constants, snapshot_download

    cache = Path(cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME") or constants.HF_HUB_CACHE).expanduser()
    command = f"hf download {repository}" + (f" --revision {revision}" if revision else "") + f" --cache-dir {cache}"

    def snapshot(wanted_revision: str | None, patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=wanted_revision,
                cache_dir=cache,
                token=token,
                local_files_only=local_files_only,
                endpoint=endpoint,
                allow_patterns=list(patterns),
                ignore_patterns=list(_UNWANTED),
                library_name="sparse-encoder",
            )
        )

    blobs = cache / f"models--{repository.replace('/', '--')}" / "blobs"
    known = set(os.listdir(blobs)) if blobs.is_dir() else set()
    root = _guarded(lambda: snapshot(revision, _WANTED), repository, revision, command, token)
    pickles = _folders_without_weights(root)
    _guarded(lambda: snapshot(root.name, [*_WANTED, *pickles]), repository, revision, command, token)
    _verify(root, known, command)
    _check_complete(root, command)
    return root


def _folders_without_weights(root: Path) -> list[str]:
    """Return the patterns of the pickles that may stand in for safetensors."""
    folders = {path.parent for path in root.rglob("*.json")}
    bare = sorted(folder for folder in folders if not any(folder.glob("model*.safetensors*")))
    return [
        glob.escape((folder / _PICKLES).relative_to(root).as_posix()[: -len(_PICKLES)]) + _PICKLES for folder in bare
    ]


def _guarded(
    action: Callable[[], Path], repository: str, revision: str | None, command: str, token: bool | str | None
) -> Path:
    """Run a download and turn the client's errors into ours, without tokens in their texts."""
    from huggingface_hub import errors

    transport: type[Exception] = errors.HfHubHTTPError.__mro__[1]  # of httpx, which the client has under two names
    try:
        return action()
    except errors.HFValidationError as reason:
        raise ValueError(f"{repository!r} is no name of a repository: {redacted(str(reason), token)}") from None
    except errors.GatedRepoError:
        hint = f"Accept its conditions on its page, then pass token=... or run `hf auth login`; and try `{command}`"
        raise LoadError(f"the repository {repository!r} is gated", hint=hint) from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{repository!r} is neither a folder nor a repository that you may read; a private one needs token=..."
        ) from None
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"the repository {repository!r} has no revision {revision!r}") from None
    except errors.LocalTokenNotFoundError:
        raise LoadError("token=True, and no token is stored", hint="Run `hf auth login`") from None
    except (transport, OSError, ValueError, AssertionError) as reason:
        text = " ".join(redacted(str(reason), token).split()).rstrip(".")
        message = f"the files of {repository!r} cannot be had: {type(reason).__name__}: {text}"
        raise LoadError(message, hint=f"With a connection, run `{command}`") from None


def _verify(root: Path, known: set[str], command: str) -> None:
    """Compare what has just been downloaded with its hash, which is its name in the cache.

    What was in the cache before is trusted, and so is all on systems where the cache cannot use links.
    """
    for path in sorted(root.rglob("*")):
        if not path.is_symlink() or not path.is_file():
            continue
        blob = Path(os.readlink(path)).name
        if blob in known or not _HEX.fullmatch(blob) or _hash(path, len(blob)) == blob:
            continue
        content = path.resolve()
        path.unlink()
        content.unlink(missing_ok=True)
        raise LoadError(
            "was altered on its way here, and has been removed from the cache",
            path=path,
            hint=f"Run `{command}` on another connection",
        )


def _hash(path: Path, digits: int) -> str:
    digest = hashlib.sha256()
    if digits == 40:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_complete(root: Path, command: str) -> None:
    """Refuse a snapshot that lacks files which those that are there speak of."""
    missing = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() and not path.exists()}
    if not any((root / name).exists() for name in ("config.json", "modules.json", "router_config.json")):
        missing.add("config.json or modules.json")
    for index in (*root.rglob("model.safetensors.index.json"), *root.rglob("pytorch_model.bin.index.json")):
        missing |= {(index.parent / shard).relative_to(root).as_posix() for shard in _missing_shards(index)}
    if missing:
        raise LoadError(f"lacks {sorted(missing)[:20]}", path=root, hint=f"With a connection, run `{command}`")


def _missing_shards(index: Path) -> set[str]:
    """Return the shards an index lists that are not beside it, unless other weights are read before them."""
    single = index.with_name(index.name.removesuffix(".index.json"))
    if single.exists() or (single.suffix == ".bin" and any(index.parent.glob("model*.safetensors*"))):
        return set()
    weight_map = read_json_object(index, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    shards = weight_map.values() if isinstance(weight_map, dict) else ()
    paths = {resolve_inside(index.parent, str(shard)) for shard in shards}
    return {path.name for path in paths if not path.exists()}
