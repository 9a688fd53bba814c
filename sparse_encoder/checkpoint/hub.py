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
from typing import NamedTuple

from sparse_encoder.checkpoint.errors import LoadError
from sparse_encoder.checkpoint.graph_names import GRAPH_FOLDER, GRAPH_PATTERNS
from sparse_encoder.checkpoint.hub_names import redacted, repository_of
from sparse_encoder.checkpoint.json_files import read_json_object
from sparse_encoder.checkpoint.paths import resolve_inside
from sparse_encoder.checkpoint.weight_names import MAX_INDEX_BYTES, WeightNames, set_of

_WANTED = ("*.json", "*.txt", "*.model", "README.md", "adapter_model.safetensors")
_DESCRIPTIONS = ("config.json", "modules.json", "router_config.json", "adapter_config.json")
"""Files of which a model's folder has one."""
_UNWANTED = (".*", "checkpoint-*", f"{GRAPH_FOLDER}/*", "openvino/*", "coreml/*", "runs/*", "*/runs/*")
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's hash of a file, or the SHA-256 of a large one
_CHUNK_BYTES = 1 << 20


class _Selection(NamedTuple):
    """Which files of a repository are wanted."""

    subfolder: str
    """Nothing outside it is; empty for everything."""
    variant: str | None
    use_safetensors: bool | None
    """True for no pickles, False for no safetensors in their place at the top."""
    descriptions_only: bool
    only_file: str | None = None
    """Nothing but this one is, which need not be there."""
    graphs: bool = False
    """Whether ONNX graphs are wanted too."""

    @property
    def safetensors(self) -> WeightNames:
        return WeightNames("safetensors", self.variant)

    @property
    def pickles(self) -> WeightNames:
        return WeightNames("bin", self.variant)

    @property
    def sets(self) -> tuple[WeightNames, ...]:
        """Those of which all shards must be there."""
        if self.descriptions_only or self.only_file is not None:
            return ()
        if self.use_safetensors is None:
            return (self.safetensors, self.pickles)
        return (self.safetensors,) if self.use_safetensors else (self.pickles,)

    def wanted(self) -> list[str]:
        if self.only_file is not None:
            return self._inside([glob.escape(self.only_file)])
        if self.descriptions_only:
            return self._inside(_DESCRIPTIONS)
        top = self.pickles if self.use_safetensors is False else self.safetensors
        below = {top, self.safetensors, WeightNames()}  # other modules have no variants, and are asked nothing
        inside = [f"*/{name}" for names in sorted(below, key=repr) for name in _patterns(names)]
        graphs = GRAPH_PATTERNS if self.graphs else ()
        return self._inside([*_WANTED, *graphs, *_patterns(top), *inside])

    def unwanted(self) -> list[str]:
        return self._inside([name for name in _UNWANTED if name != f"{GRAPH_FOLDER}/*" or not self.graphs])

    def _inside(self, patterns: Sequence[str]) -> list[str]:
        folder = f"{glob.escape(self.subfolder.strip('/'))}/" if self.subfolder else ""
        return [folder + pattern for pattern in patterns]

    def pickles_instead(self, root: Path) -> list[str]:
        """Return the patterns of the pickles that may stand in for safetensors, where there are none."""
        if self.use_safetensors is not None or self.descriptions_only or self.only_file is not None:
            return []
        folders = {path.parent for path in root.rglob("*.json")}
        bare = (each for each in folders if not any(set_of(path.name) == self.safetensors for path in each.iterdir()))
        pattern = self.pickles.pattern.format(suffix="*")
        inside = sorted(folder.relative_to(root).as_posix() for folder in bare)
        return [pattern if folder == "." else f"{glob.escape(folder)}/{pattern}" for folder in inside]


def _patterns(names: WeightNames) -> tuple[str, str]:
    """Return what finds the files of a set, but for the index."""
    return names.single, names.pattern.format(suffix="-*-of-*")


def fetch_model_folder(  # house: peer signature
    name_or_path: str | os.PathLike[str],
    *,
    cache_folder: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
    force_download: bool = False,
    subfolder: str = "",
    variant: str | None = None,
    use_safetensors: bool | None = None,
    descriptions_only: bool = False,
    repository_only: bool = False,
    graphs: bool = False,
    only_file: str | None = None,
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
        force_download: Download again what is in the cache.
        subfolder: Fetch only this folder of the repository.
        variant: Fetch ``model.VARIANT.safetensors`` and its like in place of the plain weights.
        use_safetensors: True fetches no pickles, False those of the model in place of its safetensors.
        descriptions_only: Fetch ``config.json`` and its like, and no weights.
        repository_only: Take the name for one of the hub even if there is a folder that is called so.
        graphs: Fetch ONNX graphs too.
        only_file: Fetch nothing but this file, which need not be there.

    Returns:
        The folder, which a subfolder is a part of. Pickles are fetched only for folders that have no safetensors.

    Raises:
        ValueError: If the name is empty or no name of a repository, or subfolder or variant can be no part of a path.
        FileNotFoundError: If there is no such folder, repository or revision.
        NotADirectoryError: If the name is a file.
        LoadError: If the files cannot be had, are not all there, or are not what their hashes say.
    """
    name = os.fspath(name_or_path)
    if name and not repository_only and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    repository = repository_of(name)
    selection = _Selection(subfolder, variant, use_safetensors, descriptions_only, only_file, graphs)
    if subfolder:
        resolve_inside(Path(repository), subfolder)
    from huggingface_hub import constants, snapshot_download

    cache = Path(cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME") or constants.HF_HUB_CACHE).expanduser()
    command = f"hf download {repository}" + (f" --revision {revision}" if revision else "") + f" --cache-dir {cache}"

    def snapshot(wanted_revision: str | None, patterns: Sequence[str], *, again: bool = False) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=wanted_revision,
                cache_dir=cache,
                token=token,
                local_files_only=local_files_only,
                endpoint=endpoint,
                force_download=again,
                allow_patterns=list(patterns),
                ignore_patterns=selection.unwanted(),
                library_name="sparse-encoder",
            )
        )

    blobs = cache / f"models--{repository.replace('/', '--')}" / "blobs"
    known = set(os.listdir(blobs)) if blobs.is_dir() else set()
    wanted = selection.wanted()

    def download() -> Path:
        found = snapshot(revision, wanted, again=force_download)
        if pickles := selection.pickles_instead(found):
            snapshot(found.name, pickles, again=force_download)
        return snapshot(found.name, wanted)

    root = _guarded(download, repository, revision, command, token)
    _verify(root, set() if force_download else known, command)
    _check_complete(root, selection, command)
    return root


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


def _check_complete(root: Path, selection: _Selection, command: str) -> None:
    """Refuse a snapshot that lacks files which those that are there speak of."""
    missing = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() and not path.exists()}
    folder = root / selection.subfolder
    if selection.only_file is None and not any((folder / name).exists() for name in _DESCRIPTIONS):
        missing.add((Path(selection.subfolder) / "config.json").as_posix() + " or modules.json")
    for names in selection.sets:
        for index in root.rglob(names.index):
            missing |= {(index.parent / shard).relative_to(root).as_posix() for shard in _missing_shards(index, names)}
    if missing:
        raise LoadError(f"lacks {sorted(missing)[:20]}", path=root, hint=f"With a connection, run `{command}`")


def _missing_shards(index: Path, names: WeightNames) -> set[str]:
    """Return the shards an index lists that are not beside it, unless other weights are read before them."""
    before = [names.single] if names.ending == "safetensors" else [names.single, *_names_of_safetensors(names)]
    if any((index.parent / name).exists() for name in before):
        return set()
    weight_map = read_json_object(index, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    shards = weight_map.values() if isinstance(weight_map, dict) else ()
    paths = {resolve_inside(index.parent, str(shard)) for shard in shards}
    return {path.name for path in paths if not path.exists()}


def _names_of_safetensors(names: WeightNames) -> tuple[str, str]:
    first = WeightNames("safetensors", names.variant)
    return first.single, first.index
