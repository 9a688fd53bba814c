"""What a run does with its output folder before it starts: hold it, tidy it up, and find out where to go on.

The first process does it; the others hear from it, and raise what it raises. Knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sparse_encoder.checkpoint import CheckpointError, read_json_object
from sparse_encoder.training.checkpoints.folders import (
    check_checkpoint,
    find_checkpoint,
    list_checkpoints,
    replace_checkpoints,
    sweep,
)
from sparse_encoder.training.checkpoints.lock import hold_folder
from sparse_encoder.training.checkpoints.snapshot import RUN

if TYPE_CHECKING:
    from accelerate import Accelerator

Result = TypeVar("Result")
_TOLD = (
    CheckpointError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)  # after others the run's launcher ends all processes
_MAX_BYTES = 1_000_000_000


@contextmanager
def opened_folder(
    output_dir: Path, resume: str | Path | bool | None, *, overwrite: bool, accelerator: Accelerator
) -> Iterator[Path | None]:
    """Hold a folder for one run, remove what killed runs have left in it, and say from where the run goes on.

    All processes of the run must call this.

    Args:
        output_dir: Folder of the checkpoints; made if need be.
        resume: A checkpoint, or True for the last one in the folder that is whole.
        overwrite: Start anew where another run's checkpoints are; they are removed once a new one is written.
        accelerator: Knows the other processes.

    Yields:
        The checkpoint to resume from, checked; None to start anew.

    Raises:
        CheckpointError: If another run holds the folder, or has checkpoints in it; if the checkpoint is damaged; if
            nothing can be written in the folder.
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If there is no checkpoint to resume from.
    """
    with ExitStack() as held:

        def prepare() -> Path | None:
            held.enter_context(hold_folder(output_dir))
            sweep(output_dir)
            checkpoint = _chosen(output_dir, resume)
            _claim(output_dir, checkpoint, overwrite=overwrite)
            return checkpoint

        yield first_only(prepare, accelerator)


def first_only(work: Callable[[], Result], accelerator: Accelerator) -> Result:
    """Let the first process do something; all return its result, or raise its error.

    Args:
        work: Called in the first process; its result is sent to the others.
        accelerator: Knows the other processes.
    """
    from accelerate.utils import broadcast_object_list

    if accelerator.num_processes == 1:
        return work()
    outcome: list[tuple[Result | None, Exception | None]] = [(None, None)]
    if accelerator.is_main_process:
        try:
            outcome = [(work(), None)]
        except _TOLD as reason:
            outcome = [(None, reason)]
    broadcast_object_list(outcome, from_process=0)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None is a result too


def _chosen(output_dir: Path, resume: str | Path | bool | None) -> Path | None:
    """Return the checked checkpoint that is asked for."""
    if resume is True:
        return find_checkpoint(output_dir)
    if resume is None or resume is False:
        return None
    checkpoint = Path(resume)
    check_checkpoint(checkpoint)
    return checkpoint


def _claim(output_dir: Path, checkpoint: Path | None, *, overwrite: bool) -> None:
    """See that a folder has no checkpoints but those of the run that begins or goes on."""
    others = list_checkpoints(output_dir)
    if not others or (checkpoint is not None and checkpoint.resolve().parent == output_dir.resolve()):
        return
    if overwrite:
        replace_checkpoints(output_dir)
        return
    field = None
    if checkpoint is not None:
        field = _difference(checkpoint, others[-1])
        if field is None:
            return
    raise CheckpointError(
        f"holds checkpoints of another run, up to {others[-1].name}",
        path=output_dir,
        field=field,
        hint="Go on with that run by resume_from_checkpoint=True, start anew in their place by "
        "overwrite_output_dir=True, or give another output_dir",
    )


def _difference(left: Path, right: Path) -> str | None:
    """Return a setting in which the runs of two checkpoints differ; None if they are the same run."""
    identities = []
    for checkpoint in (left, right):
        if not (checkpoint / RUN).is_file():
            return RUN
        identity = read_json_object(checkpoint / RUN, max_bytes=_MAX_BYTES, error=CheckpointError).get("identity")
        identities.append(identity if isinstance(identity, dict) else {})
    ours, theirs = identities
    return next((name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)), None)
