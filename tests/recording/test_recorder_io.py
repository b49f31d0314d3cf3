"""A disk that refuses: errors are seen, nothing is lost, capture goes on."""

import errno
import os
import time
import warnings

import pytest
from read_back import wait_until

import simtune
from simtune import config
from simtune.errors import CaptureError
from simtune.recording import recorder, segments
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


def iter_live(store):
    for path in (store.root / "wal").glob("*.wal"):
        yield from iter_segment(path)


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
