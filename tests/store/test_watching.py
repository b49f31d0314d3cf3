"""The compactor that stays: one a host, ends between two files, reports what it did."""

import os
import signal
import subprocess
import sys
import threading

import pyarrow.parquet as pq
import pytest
from store_rows import WRITER, decision, write_segment

from simtune.errors import DataError, OptionError
from simtune.store import watch

SCRIPT = """
import sys
from simtune.store import watch
watch(sys.argv[1], interval=0.05, on_report=lambda report: print(report.rows, flush=True))
print("ended", flush=True)
"""


def begun(root):
    """A watcher in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def rows_in(root):
    return sum(pq.read_metadata(path).num_rows for path in (root / "data/v1").glob("*.parquet"))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_watcher_takes_what_comes_and_ends_cleanly_on_a_signal(tmp_path, sent):
    write_segment(tmp_path, [decision(step=0), decision(step=1)])
    with begun(tmp_path) as process:
        assert process.stdout.readline() == "2\n"
        write_segment(tmp_path, [decision(step=2)], segno=1, first_seq=2)
        assert process.stdout.readline() == "1\n"
        process.send_signal(sent)
        assert process.stdout.readline() == "ended\n"
    assert process.returncode == 0
    assert rows_in(tmp_path) == 3
    assert os.listdir(tmp_path / "wal") == []


def test_a_second_watcher_is_told_who_the_first_is(tmp_path):
    write_segment(tmp_path, [decision()])
    with begun(tmp_path) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(DataError, match=f"process {process.pid}"):
            watch(tmp_path)
        process.send_signal(signal.SIGKILL)
    # The lock goes with the process, whatever ended it.
    ended = threading.Event()
    ended.set()
    watch(tmp_path, stop=ended)


def test_stop_is_heeded_between_two_files_and_the_rest_stays_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("simtune.store.compaction._GROUP_BYTES", 1)
    for segno in range(3):
        write_segment(tmp_path, [decision(step=segno)], segno=segno, first_seq=segno)
    stop = threading.Event()
    reports = []

    def stopped(event, arguments):
        if event == "os.rename" and str(arguments[1]).startswith(f"{tmp_path}/data/v1/"):
            stop.set()

    sys.addaudithook(stopped)
    watch(tmp_path, stop=stop, on_report=reports.append)
    assert [(report.segments, report.rows, len(report.files)) for report in reports] == [(1, 1, 1)]
    assert sorted(os.listdir(tmp_path / "wal")) == [f"{WRITER}-{n:08d}.wal" for n in (1, 2)]


def test_damage_that_stays_is_reported_once(tmp_path):
    path = tmp_path / "wal" / f"{WRITER}-00000000.wal"
    path.parent.mkdir()
    path.write_bytes(b"SIMTUNE1 no header")
    stop = threading.Event()
    reports = []
    ending = threading.Timer(0.2, stop.set)
    ending.start()
    watch(tmp_path, interval=0.02, stop=stop, on_report=reports.append)
    ending.join()
    assert [report.damaged for report in reports] == [[str(path)]]


def test_signals_are_the_callers_again_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    stop = threading.Event()
    stop.set()
    watch(tmp_path, stop=stop)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_is_a_time(tmp_path, interval):
    with pytest.raises(OptionError, match="interval"):
        watch(tmp_path, interval=interval)
