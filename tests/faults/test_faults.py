"""What was promised holds under kill -9, Ctrl-C, full disks, failing syncs, torn and damaged files.

Each test runs an experiment of `python -m tests.faults` in a process of its own, so that it can
fork. A failure prints the command, seed included, that repeats it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DURABILITIES = ["buffered", "os", "disk"]


def experiment(name, rounds=1):
    """Run one; returns the counts it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", name, "--rounds", str(rounds)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {key: int(value) for key, value in re.findall(r"'([\w ]+)': (\d+)", done.stdout)}


@pytest.mark.parametrize("durability", DURABILITIES)
def test_kill_9_at_100_random_points_loses_nothing_acknowledged(durability):
    """Injected: SIGKILL after a random count of decisions or a random time, 100 writers.

    Must hold: what the durability promises (buffered: all before a `flush` that returned; os and
    disk: each call that returned) is there, unchanged, and each writer left a contiguous prefix.
    """
    counts = experiment(f"kill-{durability}", rounds=100)
    assert counts["rows"] >= counts["acknowledged"] > 500


@pytest.mark.parametrize("durability", DURABILITIES)
def test_ctrl_c_anywhere_in_capture_breaks_nothing(durability):
    """Injected: SIGINT at random points, 20 of them in the middle of a capture, 30 writers.

    Must hold: each decision whose capture returned is there once; numbers have no gap and no
    double; capture goes on after each.
    """
    counts = experiment(f"interrupt-{durability}", rounds=30)
    assert counts["interrupts"] > 600


@pytest.mark.parametrize("durability", DURABILITIES)
def test_30_forks_under_capturing_threads(durability):
    """Injected: 30 forks, half of them from a thread, while three other threads capture.

    Must hold: no child hangs; parent and children lose and double nothing; a child is a writer
    of its own.
    """
    assert experiment(f"forks-{durability}", rounds=30)["forks"] == 30


@pytest.mark.parametrize(
    "fault", ["full-disk", "nearly-full-disk", "failing-sync", "no-descriptors"]
)
def test_an_operating_system_that_refuses_is_seen_and_survived(fault):
    """Injected: RLIMIT_FSIZE of 0 and of half a record, EIO from fdatasync, EMFILE at a rotation.

    Must hold, in each durability and policy: the caller is told as the policy says; all that was
    taken before, during and after is there once; capture goes on without a restart.
    """
    assert experiment(fault)["cases"] == 9


def test_a_compactor_killed_at_every_step_loses_and_doubles_nothing():
    """Injected: the compactor ends before its 1st, 2nd, ... file operation or sync, or half-way
    through a write; its recovery is killed at a random step as well.

    Must hold after each: a plain glob over `data/v1` is correct, and log and files together hold
    each row. After one more compaction: each row once, nothing left over.
    """
    assert experiment("compactor-one-file")["steps"] > 30


@pytest.mark.slow
def test_a_compactor_of_many_files_killed_at_every_step():
    """As above, with a commit for each segment."""
    assert experiment("compactor-many-files")["steps"] > 100


def test_a_log_torn_at_every_byte():
    """Injected: a segment is cut off at each byte.

    Must hold: exactly the records before the cut are read.
    """
    assert experiment("torn")["cuts"] > 1000


def test_random_damage_never_makes_a_wrong_row():
    """Injected: a flipped bit, 64 zeros, 64 random bytes or missing bytes at a random place.

    Must hold: no stored row differs from what was captured, none is doubled; all that precedes
    the damage and every other segment is there.
    """
    assert experiment("flipped", rounds=40)["rounds"] == 40


def test_1000_asyncio_tasks_capture_into_their_own_episodes():
    """Injected: 1,000 tasks that take turns at each decision.

    Must hold: each decision is in its task's episode, in order.
    """
    assert experiment("tasks")["rows"] == 7000


def test_8_processes_share_an_episode():
    """Injected: 8 processes capture into one episode at once.

    Must hold: 8 writers, nothing lost, one episode with all decisions.
    """
    assert experiment("processes")["decisions"] == 400


def test_a_clock_set_back_changes_no_order():
    """Injected: `time.time_ns` goes back by an hour within an episode.

    Must hold: order by `seq` and `step`; nothing is lost.
    """
    assert experiment("clock-set-back")["rows"] == 62
