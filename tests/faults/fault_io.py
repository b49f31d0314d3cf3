"""Experiments in which the operating system refuses: no room, no sync, no descriptor."""

import contextlib
import errno
import json
import os
import resource
import time
import warnings

import simtune
from simtune.errors import CaptureError
from tests.faults.fault_children import Child, check_contiguous, read_back, use

DURABILITIES = ("buffered", "os", "disk")
POLICIES = ("block", "raise", "drop")


@contextlib.contextmanager
def full_disk():
    """No file can grow by a byte: EFBIG, Python ignores the signal."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def nearly_full_disk():
    """Files end at 1,500 bytes, in the middle of a record: a write is done in part."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def failing_sync():
    """The disk has lost pages and says so: EIO from fdatasync."""
    real = os.fdatasync

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fdatasync = fail
    yield
    os.fdatasync = real


@contextlib.contextmanager
def no_descriptors():
    """No file can be opened: EMFILE, from here on when a segment ends and the next begins."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


FAULTS = {
    "full-disk": full_disk,
    "nearly-full-disk": nearly_full_disk,
    "failing-sync": failing_sync,
    "no-descriptors": no_descriptors,
}


def refused(root, fault, rounds, seed):
    """Capture before, during and after a fault, in each durability and policy.

    Must hold: the caller sees an error while it lasts (an exception with `raise`, else one warning,
    or an exception from `flush`); what was taken and acknowledged, before, during and
    after, is there once and in order; capture goes on by itself when the fault is over.
    """
    root.mkdir(parents=True)
    for durability in DURABILITIES:
        for policy in POLICIES:
            case = f"{fault}, {durability}, {policy}"
            directory = root / f"{durability}-{policy}"
            child = Child(_program(directory, fault, durability, policy))
            child.finish()
            assert child.status == 0, case
            said = json.loads((root / f"{durability}-{policy}.json").read_text())
            found = read_back(directory)
            check_contiguous(found)
            (rows,) = found.values()
            responses = [row.response for _, row in rows if row.kind == "decision"]
            _check(said, responses, policy, case)
    return {"cases": len(DURABILITIES) * len(POLICIES)}


def _check(said, responses, policy, case):
    assert len(set(responses)) == len(responses), f"{case}: doubles in {responses}"
    assert responses == sorted(responses, key=int), f"{case}: {responses}"
    told = said["flush"] or said["raised"] or said["warned"]
    assert told, f"{case}: nobody was told"
    missing = set(said["taken"]) - set(responses)
    assert not missing, f"{case}: lost {missing}"
    assert said["after"] == [str(number) for number in range(200, 205)], case
    # A failing sync is seen where one was asked for: at each decision, by flush, or at a rotation.
    by_capture = case.split(",")[0] != "failing-sync" or " disk" in case
    if policy == "raise":
        assert said["raised"] or not by_capture, f"{case}: the caller was not told"
        assert not said["warned"], f"{case}: {said['warned']}"
    else:
        assert not said["raised"], f"{case}: {said['raised']}"
        assert by_capture <= len(said["warned"]) <= 1, f"{case}: {said['warned']}"
        assert said["taken"] == [str(number) for number in (*range(5), *range(100, 120))], case


def _program(root, fault, durability, policy):
    def program(_):
        use(root, durability=durability, backpressure=policy, segment_bytes=2000)
        said = {"taken": [], "raised": [], "warned": [], "flush": "", "after": []}
        log = simtune.episode()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            _capture(log, range(5), said, "taken")
            simtune.flush()
            with FAULTS[fault]():
                _capture(log, range(100, 110), said, "taken")
                try:
                    simtune.flush()
                except CaptureError as error:
                    said["flush"] = str(error)
                time.sleep(0.05)  # the flusher tries too
                _capture(log, range(110, 120), said, "taken")
            with contextlib.suppress(CaptureError):
                simtune.flush()
            _capture(log, range(199, 200), {"raised": [], "taken": []}, "taken")
            _capture(log, range(200, 205), said, "after")
            simtune.flush()
        said["warned"] = [str(warning.message) for warning in warned]
        root.with_suffix(".json").write_text(json.dumps(said))

    return program


def _capture(log, numbers, said, key):
    for number in numbers:
        try:
            if log.decision("p" * 200, str(number)):
                said[key].append(str(number))
        except CaptureError as error:
            said["raised"].append(str(error))


EXPERIMENTS = {fault: (refused, fault) for fault in FAULTS}
