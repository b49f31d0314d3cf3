"""Log that waits for compaction is bounded, by whoever compacts it, and never looked at in vain."""

import fcntl
import os
import sys
import threading

import pyarrow.parquet as pq
import pytest
from read_back import said, wait_until

import simtune
from simtune import config
from simtune.errors import BackpressureError
from simtune.recording import backlog, recorder
from simtune.recording.backlog import LogSize, log_size
from simtune.recording.compactor import LOCK
from simtune.recording.guard import failures
from simtune.recording.recorders import active, statuses
from simtune.store import compact

LIMIT = 20_000


def use(monkeypatch, **settings):
    settings = {"durability": "os", "segment_bytes": 4000, "compactor": "none", **settings}
    root = config.current().root
    monkeypatch.setattr(config, "_current", config.Config(root=root, **settings))


def stored(root):
    paths = (root / "data" / "v1").glob("*.parquet")
    columns = [pq.read_table(path, columns=["kind", "seq", "response"]) for path in paths]
    rows = sorted(row for table in columns for row in zip(*table.to_pydict().values(), strict=True))
    return [response for kind, _, response in rows if kind == "decision"]


def fill_up(log):
    """Capture until the log is over its limit; returns how many decisions that took."""
    for number in range(1000):
        log.decision("p" * 500, str(number))
        if active().status().backlog_full:
            return number + 1
    raise AssertionError("the limit was never seen")


def test_block_waits_until_somebody_compacts_and_says_for_what(store, monkeypatch):
    use(monkeypatch, backlog_bytes=LIMIT)
    monkeypatch.setattr(recorder, "_PATIENCE_SECONDS", 0.1)
    log = simtune.episode()
    before = fill_up(log)
    done = threading.Event()

    def work():
        for number in range(before, before + 50):
            log.decision("p" * 500, str(number))
        done.set()

    with pytest.warns(RuntimeWarning, match=rf"(?s)waits for room.*--watch --store {store.root}"):
        worker = threading.Thread(target=work)
        worker.start()
        assert not done.wait(0.5)
        while not done.wait(0.05):
            compact(store.root)
    worker.join()
    simtune.recording.seal(store.root)
    compact(store.root)
    assert stored(store.root) == [str(number) for number in range(before + 50)]


def test_raise_tells_the_caller_and_capture_goes_on_after_compaction(store, monkeypatch):
    use(monkeypatch, backlog_bytes=LIMIT, backpressure="raise")
    log = simtune.episode()
    count = fill_up(log)
    with pytest.raises(BackpressureError, match="wait for compaction"):
        log.decision("p", "not taken")
    wait_until(lambda: not active()._log._segment)  # lets go of its segment, so that all can go
    compact(store.root)
    wait_until(lambda: not active().status().backlog_full)
    log.decision("p", "later")
    simtune.recording.seal(store.root)
    compact(store.root)
    assert stored(store.root) == [*(str(number) for number in range(count)), "later"]


def test_drop_counts_exactly_in_the_next_row_and_in_the_status(store, monkeypatch):
    use(monkeypatch, backlog_bytes=LIMIT, backpressure="drop")
    log = simtune.episode()
    fill_up(log)
    assert [log.decision("p", "dropped") for _ in range(7)] == [""] * 7
    (status,) = statuses()
    assert (status.dropped, status.backlog_full) == (7, True)
    assert status.backlog_bytes > LIMIT
    wait_until(lambda: not active()._log._segment)
    compact(store.root)
    wait_until(lambda: not active().status().backlog_full)
    log.decision("p", "next")
    log.decision("p", "last")
    following, last = store.rows("decision")
    assert said(following.extra) == {"dropped": 7}
    assert last.extra is None


def test_what_was_dropped_last_is_said_at_the_end(store, monkeypatch):
    use(monkeypatch, backlog_bytes=LIMIT, backpressure="drop")
    log = simtune.episode()
    fill_up(log)
    log.decision("p", "dropped")
    with pytest.warns(RuntimeWarning, match="the last 1 rows were dropped"):
        active().close()


def test_a_compactor_is_started_on_demand_and_blocked_callers_go_on(store, monkeypatch):
    use(monkeypatch, backlog_bytes=8 * LIMIT, compactor="auto")
    monkeypatch.setattr(recorder, "_PATIENCE_SECONDS", 60.0)
    log = simtune.episode()
    for number in range(600):  # twice the limit, so it only ends because somebody compacts
        log.decision("p" * 500, str(number))
    wait_until(lambda: not list((store.root / "_staging").glob("*.intent")))
    assert len(list((store.root / "data" / "v1").glob("*.parquet"))) >= 1
    wait_until(lambda: not active()._backlog._compactor._running(), seconds=20)
    simtune.recording.seal(store.root)
    compact(store.root)
    assert stored(store.root) == [str(number) for number in range(600)]
    assert failures() == {}
    assert (store.root / LOCK).read_text().count("error") == 0


def test_only_one_compactor_is_started_for_a_store(store, monkeypatch):
    (store.root / "_staging").mkdir(parents=True)
    started = []
    monkeypatch.setattr(os, "posix_spawn", lambda *_, **__: started.append(1) or 1)
    first, second = backlog.Compactor(store.root), backlog.Compactor(store.root)
    with open(store.root / LOCK, "w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert first.ensure() is None
        assert started == []
    assert second.ensure() is None
    assert started == [1]
    assert second.ensure() is None  # not again at once
    assert started == [1]


def test_a_compactor_that_cannot_run_is_said_and_capture_goes_on(store, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    use(monkeypatch, backlog_bytes=10**6, compactor="auto", backpressure="raise")
    log = simtune.episode()
    with pytest.warns(RuntimeWarning, match=r"(?s)no compactor could run.*episodes compact"):
        for number in range(400):
            log.decision("p" * 500, str(number))
    assert failures()["CompactorError"] >= 1
    assert len(store.rows("decision")) == 400


def test_the_log_is_not_looked_at_for_every_decision(store, monkeypatch):
    use(monkeypatch, segment_bytes=10**6)
    looks = []
    monkeypatch.setattr(backlog, "log_size", lambda root: looks.append(root) or LogSize())
    log = simtune.episode()
    for _ in range(500):
        log.decision("p" * 500, "r")
    assert len(looks) == 1


def test_the_size_of_a_log_is_that_of_all_its_writers(store):
    assert log_size(store.root) == LogSize()
    simtune.episode().decision("p", "r")
    simtune.flush()
    wal = store.root / "wal"
    (wal / f"{'0' * 16}-00000000.wal").write_bytes(b"x" * 1000)
    (wal / f"{'0' * 16}-00000001.new").touch()
    (wal / f"{'0' * 16}-00000002.wal.damaged").touch()
    size = log_size(store.root)
    assert (size.segments, size.unfinished, size.damaged) == (2, 1, 1)
    assert size.bytes == sum(path.stat().st_size for path in wal.glob("*.wal"))


def test_other_writers_of_the_store_count(store, monkeypatch):
    use(monkeypatch, backlog_bytes=LIMIT, backpressure="raise")
    simtune.episode().decision("p", "r")
    (store.root / "wal" / f"{'0' * 16}-00000000.wal").write_bytes(b"x" * LIMIT)
    with pytest.raises(BackpressureError):
        for _ in range(100):
            simtune.episode().decision("p" * 500, "r")
