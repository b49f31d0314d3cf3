"""Forks, threads, signals and the end of a process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

import simtune
from simtune.errors import CaptureError
from simtune.recording import segments


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
