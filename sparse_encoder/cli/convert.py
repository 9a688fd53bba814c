"""``sparse-encoder convert FOLDER``: weights in pickles become safetensors, without running what is in the pickles."""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from pathlib import Path

from torch import Tensor

from sparse_encoder.backbone.families import family_of, read_config
from sparse_encoder.backbone.families.family import HEAD_BIAS, HEAD_WEIGHT
from sparse_encoder.checkpoint import (
    CheckpointError,
    LoadError,
    WeightNames,
    open_weights,
    read_json_object,
    resolve_inside,
    set_of,
    write_tensors,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which options there are."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a model, or its modules, with pytorch_model.bin")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="a new folder for a copy of the model without its pickles (default: write beside the pickles)",
    )


def run(options: argparse.Namespace) -> None:
    """Read every pickle strictly and write its tensors as safetensors.

    Raises:
        FileNotFoundError: If the folder is not there.
        NotADirectoryError: If it is a file.
        FileExistsError: If the output is there and not empty.
        ValueError: If the folder has no pickles, or safetensors beside them.
        CheckpointError: If a pickle is damaged, or needs code to run.
    """
    root, output = options.folder.expanduser(), options.output
    if not root.is_dir():
        raise (NotADirectoryError if root.exists() else FileNotFoundError)(f"{root} is no folder with a model")
    pickles = [(Path(folder), each) for folder, _, names in os.walk(root) for each in _pickles(names)]
    if not pickles:
        raise ValueError(f"{root} has no {WeightNames('bin').single}: there is nothing to convert")
    if done := [str(folder) for folder, each in pickles if _is_converted(folder, each)]:
        raise ValueError(f"{done[0]} has safetensors beside its pickle already, and those are what is read")
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is there and not an empty folder")
    for folder, pickle in sorted(pickles, key=lambda each: (each[0], each[1].single)):
        tensors = _without_ties(_read(folder, pickle.variant), folder)
        target = folder if output is None else output / folder.relative_to(root)
        write_tensors(target, tensors, variant=pickle.variant)
        print(f"{target}: {len(tensors)} tensors")
    if output is not None:
        _copy_the_rest(root, output)


def _pickles(names: list[str]) -> set[WeightNames]:
    """Return the sets of pickles in a folder, of each variant, that have the file a reader begins with."""
    found = {each for each in map(set_of, names) if each is not None and each.ending == "bin"}
    return {each for each in found if {each.single, each.index} & set(names)}


def _is_converted(folder: Path, pickle: WeightNames) -> bool:
    safe = WeightNames("safetensors", pickle.variant)
    return (folder / safe.single).exists() or (folder / safe.index).exists()


def _read(folder: Path, variant: str | None) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is a pickle is why this command was called
        return dict(open_weights(folder, use_safetensors=False, variant=variant).stream())


def _without_ties(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Leave out second names that the model ties anyway; copy what shares memory for no reason that is known."""
    places: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            places.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
    tied = _tied_names(folder)
    left_out = {name for names in places.values() if len(names) > 1 for name in names if name in tied}
    first = {names[0] for names in ([n for n in names if n not in left_out] for names in places.values()) if names}
    return {
        name: tensor if name in first or not tensor.numel() else tensor.clone()
        for name, tensor in tensors.items()
        if name not in left_out
    }


def _tied_names(folder: Path) -> set[str]:
    """Return the names of a decoder that is the word embeddings; none for a module that is no backbone or unties it."""
    try:
        values = read_json_object(resolve_inside(folder, "config.json"))
        family, config = family_of(values), read_config(values)
    except (LoadError, FileNotFoundError):
        return set()
    if not config.tie_word_embeddings:
        return set()
    names = {theirs for theirs, ours in family.head_rows if ours == HEAD_WEIGHT}
    has_bias = any(ours == HEAD_BIAS for _, ours in family.head_rows)
    return names | ({family.decoder_bias_copy} if has_bias and family.decoder_bias_copy else set())


def _copy_the_rest(root: Path, output: Path) -> None:
    """Copy the files that are no weights of any library; links may not lead out of the model."""
    for folder, _, names in os.walk(root):
        for name in names:
            weights = set_of(name)
            is_pickle = weights is not None and weights.ending == "bin"  # which an index of them is, too
            if is_pickle or name.endswith((".bin", ".h5", ".msgpack", ".ckpt", ".pt", ".pth")):
                continue
            relative = (Path(folder) / name).relative_to(root)
            source = resolve_inside(root, relative.as_posix(), error=CheckpointError)
            if not source.is_file():
                raise CheckpointError("must be a regular file", path=source)
            (output / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, output / relative)
