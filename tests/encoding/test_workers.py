"""Worker processes: equal results, errors that arrive, deaths that are noticed, interrupts that leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from model_helpers import mixed_texts, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.encoding import workers
from sparse_encoder.encoding.workers import RemoteTracebackError, WorkerPool

TEXTS = mixed_texts(23)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    return SparseEncoder(str(write_masked_language_model(tmp_path_factory.mktemp("model"))), device="cpu")


@pytest.fixture(scope="module")
def pool(model: SparseEncoder) -> Iterator[WorkerPool]:
    with model.start_multi_process_pool(["cpu", "cpu"]) as workers:
        yield workers


@pytest.mark.parametrize("chunk_size", [None, 1, 5, 100])
def test_workers_give_the_same_rows(model: SparseEncoder, pool: WorkerPool, chunk_size: int | None) -> None:
    expected = model.encode_document(TEXTS)
    rows = model.encode_document(TEXTS, pool=pool, chunk_size=chunk_size)
    assert torch.equal(rows.to_dense(), expected.to_dense())
    assert rows.dtype == torch.float32
    assert torch.equal(model.encode("rain", pool=pool).to_dense(), model.encode("rain").to_dense())
    assert model.encode([], pool=pool).shape == (0, expected.shape[1])


def test_settings_reach_the_workers(model: SparseEncoder, pool: WorkerPool) -> None:
    options = {"prompt": "sun ", "max_active_dims": 3, "batch_size": 2}
    rows = model.encode(TEXTS, pool=pool, **options)
    assert torch.equal(rows.to_dense(), model.encode(TEXTS, **options).to_dense())
    assert rows.crow_indices().diff().max() == 3


def test_a_pool_answers_like_the_peers(pool: WorkerPool) -> None:
    assert set(pool) == {"input", "output", "processes"}
    assert len(pool["processes"]) == len(pool["input"]) == 2
    assert all(process.is_alive() for process in pool["processes"])
    with pytest.raises(KeyError):
        pool["workers"]


def test_the_parents_model_stays_where_it_is_and_as_it_is(model: SparseEncoder, pool: WorkerPool) -> None:
    model.train()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    model.encode(TEXTS, pool=pool)
    assert model.training
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert not any(tensor.is_shared() for tensor in model.state_dict().values())
    model.eval()


def test_an_error_in_a_worker_is_raised_here_and_the_pool_lives_on(model: SparseEncoder, pool: WorkerPool) -> None:
    with pytest.raises(ValueError, match="max_length must be at least 3") as caught:
        pool.encode(TEXTS, workers.EncodeSettings(max_length=1), chunk_size=2)
    assert isinstance(caught.value.__cause__, RemoteTracebackError)
    assert "Traceback (most recent call last)" in str(caught.value.__cause__)
    assert torch.equal(model.encode(TEXTS, pool=pool).to_dense(), model.encode(TEXTS).to_dense())


def test_an_interrupted_call_leaves_the_pool_usable(model: SparseEncoder, pool: WorkerPool) -> None:
    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.encode(TEXTS, workers.EncodeSettings(prompt="sun "), chunk_size=2, on_done=interrupt)
    # What the workers still answer to the interrupted call is not taken for an answer to this one.
    assert torch.equal(model.encode(TEXTS, pool=pool, chunk_size=3).to_dense(), model.encode(TEXTS).to_dense())


def test_a_list_of_devices_starts_workers_for_one_call(model: SparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[WorkerPool] = []
    stop = WorkerPool.stop
    monkeypatch.setattr(WorkerPool, "stop", lambda self: (started.append(self["processes"]), stop(self)))
    rows = model.encode(TEXTS, device=["cpu", "cpu"])
    assert torch.equal(rows.to_dense(), model.encode(TEXTS).to_dense())
    assert len(started[0]) == 2
    assert not any(process.is_alive() for process in started[0])


def test_a_dead_worker_is_noticed_within_seconds(model: SparseEncoder) -> None:
    with model.start_multi_process_pool(["cpu"]) as own:
        model.encode(TEXTS, pool=own)
        os.kill(own["processes"][0].pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(RuntimeError, match="ended with exit code -9"):
            model.encode(TEXTS, pool=own)
        assert time.monotonic() - started < 3


def test_a_worker_that_cannot_start_is_noticed(model: SparseEncoder) -> None:
    with WorkerPool(model, ["no such device"]) as own:
        for _ in range(2):  # it is gone by the second call, and what it said is not
            with pytest.raises(RuntimeError, match="device string: '?no such device") as caught:
                model.encode(TEXTS, pool=own)
            assert "in a worker process" in str(caught.value.__cause__)


def test_a_text_that_is_not_finite_is_named_by_its_place_in_the_call(tmp_path: Path) -> None:
    broken = SparseEncoder(str(write_masked_language_model(tmp_path / "model")), device="cpu")
    positions = next(value for name, value in broken.named_parameters() if "embeddings.position" in name)
    positions.data[20] = float("nan")
    texts = [*["rain"] * 4, "rain " * 30, "rain"]
    with broken.start_multi_process_pool(["cpu"]) as own, pytest.raises(ValueError, match=r"texts\[4\] has weights"):
        broken.encode(texts, pool=own, chunk_size=1)


def test_stopping_twice_is_no_error(model: SparseEncoder) -> None:
    own = model.start_multi_process_pool(["cpu"])
    (process,) = own["processes"]
    model.stop_multi_process_pool(own)
    model.stop_multi_process_pool(own)
    assert not process.is_alive()
    with pytest.raises(RuntimeError, match="the pool was stopped"):
        model.encode(TEXTS, pool=own)


def test_a_pool_needs_devices_and_numbers_that_fit(model: SparseEncoder, pool: WorkerPool) -> None:
    with pytest.raises(ValueError, match="at least one device"):
        model.start_multi_process_pool([])
    with pytest.raises(ValueError, match="chunk_size must be a positive integer, got 0"):
        model.encode(TEXTS, pool=pool, chunk_size=0)
    with pytest.raises(TypeError, match="pool must come from start_multi_process_pool"):
        model.encode(TEXTS, pool={"input": None})


def test_default_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workers.default_devices() == ["cpu"] * 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert workers.default_devices() == ["cuda:0", "cuda:1"]


@pytest.mark.slow
def test_ctrl_c_ends_call_and_workers_at_once(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "model")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            import sys
            from sparse_encoder import SparseEncoder

            if __name__ == "__main__":
                signal.signal(signal.SIGINT, signal.default_int_handler)  # shells switch it off in the background
                model = SparseEncoder(sys.argv[1], device="cpu")
                with model.start_multi_process_pool(["cpu", "cpu"]) as pool:
                    model.encode(["rain"] * 4, pool=pool, chunk_size=1)
                    print(*(process.pid for process in pool["processes"]), flush=True)
                    model.encode(["rain sun"] * 200_000, pool=pool, chunk_size=100_000)
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "model"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    time.sleep(1.0)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert "KeyboardInterrupt" in errors
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
