"""A process that opens hostile folders, and writes down all it opens, imports, runs and connects to meanwhile.

Called with a folder that holds ``cases.json``; it writes ``results.json``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel, load_sharded_checkpoint
from sparse_encoder.checkpoint import LoadError
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel
from sparse_encoder.search import SparseIndex
from sparse_encoder.token_classification import TokenClassificationPipeline
from sparse_encoder.tokenizer import Tokenizer

Numbers = list[Any]  # plain values, to be compared
TEXT = "rain on the river stone"
IDS = torch.tensor([[2, 5, 9, 7, 3]])
CASES_PER_VISIT = 9
"""How many hostile folders are opened between two looks at a good one."""
CPU_SECONDS, REAL_SECONDS = 1.0, 20.0
"""Processor time is what a hostile file may cost; real time, on a busy machine, only tells what hangs."""
FORBIDDEN = (
    "import", "exec", "compile", "pickle.", "marshal.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork",
    "subprocess.", "socket.", "ctypes.dlopen", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link",
    "os.symlink", "os.chmod", "os.truncate", "shutil.", "tempfile.", "webbrowser.", "urllib.",
)  # fmt: skip


class Watch:
    """Note what must not happen while a folder is open."""

    def __init__(self, root: Path) -> None:
        self.folder = root
        self.on = False
        self.events: list[str] = []
        self.opened: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Judge an event."""
        if not self.on:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, int):  # open already
                return
            place = Path(os.path.realpath(os.fsdecode(path)))
            self.opened.append(place.name)
            if not place.is_relative_to(self.folder) or flags & (os.O_WRONLY | os.O_RDWR):
                self.events.append(f"open {place} {flags:o}")
        elif event.startswith(FORBIDDEN):
            self.events.append(f"{event} {args!r:.150}")


class TooLongError(BaseException):
    """The time is over; nothing in the library catches it."""


def stop(number: int, frame: object) -> None:
    raise TooLongError(f"signal {number}")


def encoder(folder: Path) -> Numbers:
    row = SparseEncoder(str(folder), device="cpu").encode([TEXT], convert_to_tensor=True).to_dense()
    return [round(each, 5) for each in row.flatten().tolist()]


def masked(folder: Path) -> Numbers:
    return logits(MaskedLanguageModel.from_pretrained(folder))


def masked_safe(folder: Path) -> Numbers:
    return logits(MaskedLanguageModel.from_pretrained(folder, use_safetensors=True))


def logits(model: MaskedLanguageModel) -> Numbers:
    with torch.inference_mode():
        return [round(each, 5) for each in model(IDS, torch.ones_like(IDS)).flatten().tolist()]


def sharded(folder: Path) -> Numbers:
    model = MaskedLanguageModel.from_config(CONFIG).eval()
    load_sharded_checkpoint(model, folder)
    return logits(model)


def tokenizer(folder: Path) -> Numbers:
    found = Tokenizer.from_pretrained(folder)
    return [found.encode(TEXT), found.tokenize("wa" * 40), found.encode_batch([TEXT * 40], max_length=9).input_ids]


def tagger(folder: Path) -> Numbers:
    tags = TokenClassificationPipeline.from_pretrained(folder, ignore_labels=())(TEXT)
    return [[str(tag["entity"]), round(float(tag["score"]), 5)] for tag in tags]


def index(folder: Path) -> Numbers:
    row = torch.zeros(9)
    row[[1, 4]] = torch.tensor([1.0, 2.0])
    return [[hit.id, round(hit.score, 5)] for hit in SparseIndex.load(folder).search(row, top_k=3)[0]]


def embeddings(folder: Path) -> Numbers:
    return [round(each, 5) for each in SparseEmbeddings.load(folder / "rows.safetensors").to_dense().flatten().tolist()]


def checkpoint(folder: Path) -> Numbers:
    from sparse_encoder.training.checkpoints.folders import check_checkpoint
    from sparse_encoder.training.checkpoints.saving import load_weights
    from sparse_encoder.training.checkpoints.snapshot import read_run, read_state

    check_checkpoint(folder)
    progress, state = read_run(folder, {}), read_state(folder)
    for parameter in LEARNER.parameters():
        torch.nn.init.zeros_(parameter)
    load_weights(LEARNER, folder)
    total = sum(float(each.double().abs().sum()) for each in LEARNER.parameters())
    return [state.global_step, repr(progress), round(total, 4)]


def adapter(folder: Path) -> Numbers:
    try:
        BASE.load_adapter(folder)
        return logits(BASE)
    finally:
        if BASE.has_adapters:
            BASE.delete_adapter("default")


def llama(folder: Path) -> Numbers:
    return written(CausalLanguageModel.from_pretrained(folder), {"input_ids": IDS})


def gpt2(folder: Path) -> Numbers:
    return written(CausalLanguageModel.from_pretrained(folder), {"input_ids": IDS})


def t5(folder: Path) -> Numbers:
    return written(Seq2SeqModel.from_pretrained(folder), {"input_ids": IDS, "decoder_input_ids": IDS})


def bart(folder: Path) -> Numbers:
    return written(Seq2SeqModel.from_pretrained(folder), {"input_ids": IDS, "decoder_input_ids": IDS})


def written(model: CausalLanguageModel | Seq2SeqModel, inputs: dict[str, torch.Tensor]) -> Numbers:
    with torch.inference_mode():
        found = model(**inputs).logits.flatten().tolist()
    return [*model.generate(IDS, max_new_tokens=3)[0].tolist(), *(round(each, 5) for each in found)]


def served(folder: Path) -> Numbers:
    row = SparseEncoder(str(folder), backend="onnx").encode([TEXT]).to_scipy().todense()
    return [round(each, 5) for each in row.flatten().tolist()]


ENTRIES: dict[str, Callable[[Path], Numbers]] = {
    each.__name__: each
    for each in (
        *(encoder, masked, masked_safe, sharded, tokenizer, tagger, index, embeddings, checkpoint, adapter),
        *(llama, gpt2, t5, bart, served),
    )
}
CONFIG: dict[str, Any] = {}
LEARNER: SparseEncoder
BASE: MaskedLanguageModel


def peak_bytes() -> int:
    """Return the most memory since it was last reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def attempt(entry: str, folder: Path, watch: Watch) -> dict[str, Any]:
    """Open one folder under watch."""
    modules = set(sys.modules)
    Path("/proc/self/clear_refs").write_text("5")
    before, started = peak_bytes(), time.process_time()
    watch.folder, watch.events, watch.opened = folder, [], []
    outcome: dict[str, Any] = {}
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, REAL_SECONDS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            watch.on = True
            numbers = ENTRIES[entry](folder)
            outcome = {"error": None, "numbers": numbers}
        except BaseException as reason:  # a panic is no Exception
            outcome = {"error": type(reason).__name__, "message": str(reason)[:2000], "typed": is_typed(reason, folder)}
        finally:
            watch.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        **outcome,
        "cpu_seconds": time.process_time() - started,
        "bytes": peak_bytes() - before,
        "events": watch.events,
        "opened": sorted(set(watch.opened)),
        "imported": sorted(set(sys.modules) - modules),
        "warnings": [str(each.message) for each in told],
    }


def is_typed(reason: BaseException, folder: Path) -> bool:
    """Tell whether an error is one of the library's that names the place."""
    return isinstance(reason, LoadError) and reason.path is not None and str(reason.path).startswith(str(folder))


def main(root: Path) -> None:
    global LEARNER, BASE  # the models that checkpoints and adapters are loaded into
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    CONFIG.update(json.loads((root / "sparse" / "config.json").read_text()))
    cases = json.loads((root / "cases.json").read_text())
    LEARNER = SparseEncoder(str(root / "sparse"), device="cpu")
    BASE = MaskedLanguageModel.from_pretrained(root / "sparse")
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, stop)
    watch = Watch(root)
    sys.addaudithook(watch)
    for entry in ENTRIES:  # what is imported late is imported now
        for folder in sorted(root.glob(f"warm {entry} *")):
            attempt(entry, folder, watch)
    good = {entry: attempt(entry, root / place, watch) for entry, place in cases["good"].items()}
    results = []
    for number, case in enumerate(cases["cases"], start=1):
        result = attempt(case["entry"], Path(case["folder"]), watch)
        healthy = True
        if number % CASES_PER_VISIT == 0 or number == len(cases["cases"]):
            again = attempt(case["entry"], root / cases["good"][case["entry"]], watch)
            healthy = again["error"] is None and again["numbers"] == good[case["entry"]]["numbers"]
        results.append({**result, "healthy": healthy})
    watch.folder, watch.events, watch.on = root / "none", [], True
    open(os.devnull).close()
    import rlcompleter  # noqa: F401

    watch.on = False
    control = sorted({event.split()[0] for event in watch.events} & {"open", "import"})
    (root / "results.json").write_text(json.dumps({"good": good, "results": results, "control": control}))


if __name__ == "__main__":
    main(Path(os.path.realpath(sys.argv[1])))
