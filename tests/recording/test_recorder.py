"""The recorder's promises: durability, back-pressure, rotation, limits."""

import fcntl
import statistics
import threading
import time

import pytest
from read_back import said, wait_until

import simtune
from simtune import config
from simtune.errors import BackpressureError, OptionError, RecordSizeError
from simtune.recording import seal
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
