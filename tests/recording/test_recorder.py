"""The recorder's promises: durability, back-pressure, errors that are seen, forks, threads."""

import errno
import fcntl
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings

import pytest
from read_back import said, wait_until

import simtune
from simtune import config
from simtune.errors import BackpressureError, CaptureError, OptionError, RecordSizeError
from simtune.recording import recorder, seal, segments
from simtune.recording.guard import failures
from simtune.recording.recorders import active
from simtune.recording.segments import iter_segment, sealed_segments


def fill(log, count, size=0):
    return [log.decision("p" * size, str(i)) for i in range(count)]


def use(monkeypatch, **settings):
    """Settings that `simtune.configure` does not offer."""
    root = config.current().root
    monkeypatch.setattr(config, "_current", config.Config(root=root, **settings))


def live_segment(store):
    (path,) = (store.root / "wal").glob("*.wal")
    return path


def test_buffered_rows_reach_the_file_by_themselves(store):
    log = simtune.episode()
    log.decision("p", "r")
    wait_until(lambda: (store.root / "wal").exists() and len(list(iter_live(store))) == 2)


def iter_live(store):
    for path in (store.root / "wal").glob("*.wal"):
        yield from iter_segment(path)


@pytest.mark.parametrize("durability", ["os", "disk"])
def test_os_and_disk_rows_are_in_the_file_on_return(store, durability):
    simtune.configure(durability=durability)
    log = simtune.episode()
    for count in range(1, 5):
        log.decision("p", "r")
        assert len(list(iter_live(store))) == count + 1


def test_a_live_segment_is_locked_and_not_listed(store):
    simtune.episode().decision("p", "r")
    simtune.flush()
    assert sealed_segments(store.root) == []
    with open(live_segment(store), "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    seal(store.root)
    assert sealed_segments(store.root) == [live_segment(store)]


def test_sealing_a_store_nobody_wrote_to_does_nothing(tmp_path, store):
    seal(tmp_path)
    assert not (tmp_path / "wal").exists()


def test_segments_rotate_by_size_without_a_gap(store, monkeypatch):
    use(monkeypatch, segment_bytes=4096, durability="os")
    ids = fill(simtune.episode(), 60, size=500)
    items = store.items()
    assert [id_ for id_, row in items if row.kind == "decision"] == ids
    assert len(sealed_segments(store.root)) > 5


def test_segments_rotate_by_age(store, monkeypatch):
    use(monkeypatch, segment_seconds=0.05)
    simtune.episode().decision("p", "r")
    wait_until(lambda: len(sealed_segments(store.root)) == 1)


def test_the_settings_are_checked(store):
    with pytest.raises(OptionError, match="durability"):
        simtune.configure(durability="eternal")
    with pytest.raises(OptionError, match="backlog_bytes is too small"):
        simtune.configure(backlog_bytes=0)
    limits = {"buffer_bytes": 10**6, "backlog_bytes": 10**9, "record_bytes": 10**5}
    found = simtune.configure(**limits, compactor="none")
    assert {name: getattr(found, name) for name in limits} == limits
    assert found.compactor == "none"
    assert simtune.configure(durability="os").durability == "os"
    assert config.current().backpressure == "block"


def test_raise_tells_the_caller_and_keeps_what_it_had(store, monkeypatch):
    use(monkeypatch, backpressure="raise", buffer_bytes=2000)
    log = simtune.episode()
    with active().io, pytest.raises(BackpressureError, match="wait to be written"):
        fill(log, 100, size=200)
    kept = len(store.rows("decision"))
    assert 5 < kept < 10
    log.decision("p", "later")
    assert len(store.rows("decision")) == kept + 1


def test_drop_counts_exactly(store, monkeypatch):
    use(monkeypatch, backpressure="drop", buffer_bytes=2000)
    log = simtune.episode()
    with active().io:
        ids = fill(log, 100, size=200)
        with pytest.warns(RuntimeWarning, match="no decision to reward"):
            log.reward(1.0)
    kept = [id_ for id_ in ids if id_]
    simtune.flush()
    log.decision("p", "later")
    log.decision("p", "last")
    *before, later, last = store.rows("decision")
    assert len(before) == len(kept)
    assert said(later.extra) == {"dropped": 100 - len(kept)}
    assert last.extra is None
    assert store.rows("reward") == []


def test_block_waits_and_loses_nothing(store, monkeypatch):
    use(monkeypatch, buffer_bytes=2000)
    log = simtune.episode()
    done = threading.Event()

    def work():
        fill(log, 100, size=200)
        done.set()

    recorder = active()
    with recorder.io:
        worker = threading.Thread(target=work)
        worker.start()
        assert not done.wait(0.1)
    worker.join()
    assert [row.response for row in store.rows("decision")] == [str(i) for i in range(100)]


def test_a_row_over_the_size_limit_is_counted_and_the_next_one_is_kept(store, monkeypatch):
    use(monkeypatch, record_bytes=1000)
    log = simtune.episode()
    with pytest.warns(RuntimeWarning, match=r"(?s)RecordSizeError: .*at most 1000.*got: 2\d\d\d"):
        assert log.decision("p" * 2000, "large") == ""
    assert failures() == {"RecordSizeError": 1}
    log.decision("p", "small")
    assert [row.response for row in store.rows("decision")] == ["small"]
    use(monkeypatch, record_bytes=1000, backpressure="raise")
    with pytest.raises(RecordSizeError):
        simtune.episode().decision("p" * 2000, "large")


def test_rows_that_the_disk_no_longer_gives_back_are_said(store, monkeypatch):
    """A sync fails, and then the pages it was for cannot be read: capture goes on behind them."""
    log = simtune.episode()
    log.decision("p", "safe")
    simtune.flush()
    log.decision("p", "lost")
    disk = FullDisk(monkeypatch, call="fdatasync", code=errno.EIO)
    with pytest.raises(CaptureError, match="Input/output"):
        simtune.flush()
    disk.full = False
    monkeypatch.setattr(segments.os, "pread", lambda fd, size, offset: b"\0" * size)
    with pytest.raises(CaptureError, match="up to 1 records, not yet synced, can no"):
        simtune.flush()
    log.decision("p", "later")
    assert [row.response for row in store.rows("decision")] == ["safe", "lost", "later"]


def test_a_signal_handler_that_flushes_in_the_middle_of_a_write_does_not_hang(store, monkeypatch):
    """As of a batch system's SIGTERM; what it captures itself is kept."""
    simtune.configure(durability="disk")
    log = simtune.episode()
    log.decision("p", "first")
    real, told = os.fdatasync, []

    def handler(*_):
        log.decision("p", "of the handler")
        with pytest.raises(CaptureError, match="signal handler"):
            simtune.flush()
        told.append(True)

    def interrupted(fd):
        if not told:
            signal.raise_signal(signal.SIGUSR1)
        real(fd)

    before = signal.signal(signal.SIGUSR1, handler)
    monkeypatch.setattr(segments.os, "fdatasync", interrupted)
    try:
        with pytest.warns(RuntimeWarning, match="signal handler"):
            log.decision("p", "interrupted")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert told
    responses = [row.response for row in store.rows("decision")]
    assert responses == ["first", "interrupted", "of the handler"]


def test_out_of_memory_in_the_flusher_loses_nothing(store, monkeypatch):
    log = simtune.episode()
    log.decision("p", "0")
    simtune.flush()
    real = recorder.Recorder._write
    monkeypatch.setattr(recorder.Recorder, "_write", _out_of_memory)
    log.decision("p", "1")
    wait_until(lambda: active()._news)
    monkeypatch.setattr(recorder.Recorder, "_write", real)
    with pytest.warns(RuntimeWarning, match="MemoryError"):
        log.decision("p", "2")
    assert [row.response for row in store.rows("decision")] == ["0", "1", "2"]


def _out_of_memory(*_, **__):
    raise MemoryError


class FullDisk:
    """Lets writes fail after some bytes of them, as a full disk does."""

    def __init__(self, monkeypatch, *, after=0, call="pwrite", code=errno.ENOSPC):
        self.full = True
        real = getattr(os, call)

        def fails(fd, *data):
            if not self.full:
                return real(fd, *data)
            if after and data:
                real(fd, bytes(data[0][:after]), *data[1:])
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(segments.os, call, fails)


@pytest.mark.parametrize("durability", ["buffered", "os", "disk"])
@pytest.mark.parametrize(
    ("call", "after", "code"),
    [("pwrite", 0, errno.ENOSPC), ("pwrite", 50, errno.EFBIG), ("fdatasync", 0, errno.EIO)],
)
def test_an_io_error_is_seen_and_nothing_is_lost(store, monkeypatch, durability, call, after, code):
    simtune.configure(durability=durability)
    log = simtune.episode()
    ids = fill(log, 5)
    simtune.flush()
    disk = FullDisk(monkeypatch, call=call, after=after, code=code)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ids += fill(log, 5)
        with pytest.raises(CaptureError, match=os.strerror(code)):
            simtune.flush()
        time.sleep(0.05)
        ids += fill(log, 5)
    expected = 0 if (durability, call) in (("buffered", "fdatasync"), ("os", "fdatasync")) else 1
    assert len([w for w in seen if w.category is RuntimeWarning]) == expected
    disk.full = False
    ids += fill(log, 5)
    simtune.flush()
    decisions = [(id_, row) for id_, row in store.items() if row.kind == "decision"]
    assert [id_ for id_, _ in decisions] == ids
    assert "" not in ids


def test_a_disk_that_stays_full_is_not_filled_with_empty_segments(store, monkeypatch):
    simtune.configure(durability="os")
    log = simtune.episode()
    log.decision("p", "0")
    disk = FullDisk(monkeypatch, call="fdatasync", code=errno.EIO)
    for _ in range(10):
        with pytest.raises(CaptureError):
            simtune.flush()
    disk.full = False
    log.decision("p", "1")
    assert [row.response for row in store.rows("decision")] == ["0", "1"]
    assert len(list((store.root / "wal").iterdir())) <= 2


def test_after_a_failed_sync_everything_unsafe_is_written_again(store, monkeypatch):
    log = simtune.episode()
    fill(log, 3)
    disk = FullDisk(monkeypatch, call="fdatasync", code=errno.EIO)
    with pytest.raises(CaptureError):
        simtune.flush()
    before = live_segment(store).stat().st_ino
    disk.full = False
    simtune.flush()
    assert live_segment(store).stat().st_ino != before
    assert len(list(iter_live(store))) == 4


def test_no_descriptor_for_the_next_segment_is_seen_and_survived(store, monkeypatch):
    use(monkeypatch, segment_bytes=2000, durability="os")
    log = simtune.episode()
    fill(log, 1)
    real = os.open

    def refuse(path, *args):
        if str(path).endswith(".new"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *args)

    with monkeypatch.context() as patch, pytest.warns(RuntimeWarning, match="Too many open files"):
        patch.setattr(segments.os, "open", refuse)
        ids = fill(log, 20, size=500)
    ids += fill(log, 2)
    found = [id_ for id_, row in store.items() if row.kind == "decision"]
    assert found[1:] == ids
    assert len(sealed_segments(store.root)) >= 2


def test_with_raise_the_next_capture_raises_the_io_error(store, monkeypatch):
    simtune.configure(backpressure="raise")
    log = simtune.episode()
    log.decision("p", "0")
    simtune.flush()
    disk = FullDisk(monkeypatch)
    log.decision("p", "1")
    wait_until(lambda: active()._news)
    with pytest.raises(CaptureError, match="No space left"):
        log.decision("p", "not taken")
    disk.full = False
    wait_until(lambda: len(list(iter_live(store))) == 3)
    assert [row.response for row in store.rows("decision")] == ["0", "1"]


def test_a_root_that_cannot_be_made_does_not_stop_the_simulation(store, tmp_path):
    (tmp_path / "file").touch()
    simtune.configure(root=tmp_path / "file" / "store", durability="os")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        simtune.episode().decision("p", "r")
    assert failures()["CaptureError"] >= 1
    (tmp_path / "file").unlink()
    simtune.flush()


def test_a_forked_child_is_a_writer_of_its_own(store):
    log = simtune.episode()
    log.decision("p", "parent before")
    pid = os.fork()
    if pid == 0:
        log.decision("p", "child")
        simtune.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    log.decision("p", "parent after")
    items = [(id_[:16], row) for id_, row in store.items() if row.kind == "decision"]
    by_writer = {}
    for writer, row in items:
        by_writer.setdefault(writer, []).append(row.response)
    assert sorted(by_writer.values()) == [["child"], ["parent before", "parent after"]]
    assert {row.episode_id for _, row in items} == {log.id}


def test_forks_under_capturing_threads(store):
    log = simtune.episode()
    stop = threading.Event()
    made = [0] * 3

    def work(number):
        while not stop.is_set():
            log.decision("p", f"thread {number}")
            made[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            log.decision("p", "child")
            simtune.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    responses = [row.response for row in store.rows("decision")]
    assert responses.count("child") == 8
    assert [responses.count(f"thread {number}") for number in range(3)] == made


def _in_child(root):
    simtune.configure(root=root)
    simtune.episode().decision("p", "from a process pool")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_multiprocessing_child_flushes_at_its_end(store, method):
    child = multiprocessing.get_context(method).Process(target=_in_child, args=(str(store.root),))
    child.start()
    child.join()
    assert store.only().response == "from a process pool"


def run_python(code, *args, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True, **options
    )


WRITER = """
import sys, simtune
simtune.configure(root=sys.argv[1], durability=sys.argv[2])
with simtune.episode() as log:
    while True:
        print(log.decision("p" * 300, "r"), flush=True)
"""


@pytest.mark.parametrize("durability", ["os", "disk"])
@pytest.mark.parametrize("kill_after", [1, 7, 60])
def test_kill_9_loses_nothing_that_was_acknowledged(store, durability, kill_after):
    with run_python(WRITER, store.root, durability) as child:
        acknowledged = [child.stdout.readline().strip() for _ in range(kill_after)]
        child.kill()
        acknowledged += child.stdout.read().split()
    found = [id_ for id_, row in store.items() if row.kind == "decision"]
    assert found[: len(acknowledged)] == acknowledged
    assert [int(id_.split("-")[1]) for id_ in found] == list(range(1, len(found) + 1))


AT_EXIT = """
import sys, atexit, simtune
simtune.configure(root=sys.argv[1])
log = simtune.episode()
@atexit.register
def late():
    log.decision("p", "before the flush")
log.decision("p", "r")
atexit.unregister(late)
from simtune.recording import recorders
atexit.unregister(recorders._close_all)
atexit.register(late)
def later():
    log.decision("p", "after the flush")
atexit.unregister(late)
atexit.register(later)
atexit.register(recorders._close_all)
atexit.register(late)
"""


def test_an_ordinary_exit_flushes_and_later_captures_are_still_kept(store):
    with run_python(AT_EXIT, store.root) as child:
        assert child.wait() == 0
    assert [row.response for row in store.rows("decision")] == [
        "r",
        "before the flush",
        "after the flush",
    ]


LEFT_RUNNING = """
import os, sys, threading, time, simtune
simtune.configure(root=sys.argv[1])
log = simtune.episode()
def work(number):
    while True:
        log.decision("p", str(number))
for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
time.sleep(0.2)
log.decision("p", "last of the main thread")
"""


def test_daemon_threads_that_capture_to_the_end_do_not_break_it(store):
    """The interpreter shuts down under them; the log ends in whole records without a gap."""
    with run_python(LEFT_RUNNING, store.root) as child:
        assert child.wait(timeout=60) == 0
    items = store.items()
    assert [int(id_.split("-")[1]) for id_, _ in items] == list(range(len(items)))
    assert "last of the main thread" in [row.response for _, row in items]


OS_EXIT = """
import os, sys, simtune
simtune.configure(root=sys.argv[1], durability=sys.argv[2])
log = simtune.episode()
for number in range(20):
    log.decision("p", str(number))
    if number == 9:
        simtune.flush()
os._exit(0)
"""


@pytest.mark.parametrize(("durability", "least"), [("buffered", 10), ("os", 20), ("disk", 20)])
def test_os_exit_loses_no_more_than_what_was_not_flushed(store, durability, least):
    with run_python(OS_EXIT, store.root, durability) as child:
        assert child.wait() == 0
    responses = [row.response for row in store.rows("decision")]
    assert responses == [str(number) for number in range(len(responses))]
    assert len(responses) >= least


def test_the_callers_time_is_microseconds(store):
    """A generous bound; the benchmark measures it properly."""
    long = [{"role": "system", "content": "s" * 500}, {"role": "user", "content": "u" * 1000}]
    full = simtune.Reply("r" * 200, token_ids=range(64), logprobs=[-0.1] * 64)
    log = simtune.episode()
    for prompt, reply in (("hi", "left"), (long, full)):
        taken = []
        for _ in range(2000):
            start = time.perf_counter_ns()
            log.decision(prompt, reply)
            taken.append(time.perf_counter_ns() - start)
        median = statistics.median(taken) / 1000
        print(f"{median:.1f} µs per decision of {len(reply)} characters")
        assert median < 100
