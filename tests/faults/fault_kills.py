"""Experiments with writers that are killed or interrupted at random points."""

import os
import random
import signal
import threading
import time

import simtune
from tests.faults.fault_children import (
    Child,
    check_contiguous,
    content,
    kill_at_random,
    read_back,
    use,
)

SMALL = {"segment_bytes": 6000, "segment_seconds": 0.01}


def decisions_of(found):
    """The decisions among the rows that were read back."""
    return [row for rows in found.values() for _, row in rows if row.kind == "decision"]


def write_forever(root, durability, seed):
    """A program: captures decision after decision, and tells those whose safety was promised."""

    def program(acknowledge):
        use(root, durability=durability, **SMALL)
        rng = random.Random(seed)
        log = simtune.episode()
        for number in range(1_000_000):
            log.decision(content(number), str(number))
            if durability == "buffered":
                if rng.random() < 0.9:
                    continue
                simtune.flush()
            acknowledge(number)

    return program


def kill(root, durability, rounds, seed):
    """Kill -9 at random points; returns how many rows were found and acknowledged in all.

    Must hold: what was acknowledged is there, with its content, and each writer's rows are a
    prefix of what it captured.
    """
    rng = random.Random(seed)
    seen, rows, acknowledged = set(), 0, 0
    for index in range(rounds):
        child = Child(write_forever(root, durability, rng.random()))
        numbers = kill_at_random(child, rng, numbers=40, seconds=0.03)
        told = max(numbers, default=-1)
        found = read_back(root, seen)
        assert len(found) <= 1, f"round {index}: {found.keys()}"
        check_contiguous(found)
        decisions = decisions_of(found)
        assert len(decisions) > told, f"round {index}: {len(decisions)} rows, {told} acknowledged"
        for number, row in enumerate(decisions):
            assert row.response == str(number), f"round {index}, row {number}: {row.response}"
            said = row.prompt[0]["content"] if row.prompt else ""
            assert said == content(number), f"round {index}, row {number}"
        seen |= found.keys()
        rows += len(decisions)
        acknowledged += told + 1
    return {"rows": rows, "acknowledged": acknowledged}


def interrupt(root, durability, rounds, seed):
    """Ctrl-C (SIGINT) at random points; the simulation catches it and goes on.

    Must hold: every decision whose capture returned is there once, and nothing breaks the
    sequence. One that the interrupt cut short is there at most once.
    """
    rng = random.Random(seed)

    def program(acknowledge):
        use(root, durability=durability, **SMALL)
        log, number, armed = simtune.episode(), 0, False

        def ctrl_c(*_):
            nonlocal armed
            if armed:
                armed = False
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, ctrl_c)
        log.decision(content(0), "0")
        acknowledge(0)
        interrupted = 0
        while interrupted < 20:
            number += 1
            try:
                armed = True
                log.decision(content(number), str(number))
                armed = False
                acknowledge(number)
            except KeyboardInterrupt:
                interrupted += 1
        simtune.flush()

    seen, rows, interrupts = set(), 0, 0
    for index in range(rounds):
        child = Child(program)
        found = child.wait_for(1, 10.0)
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            # Read meanwhile: a child that waits for room in a full pipe is never interrupted.
            found += child.wait_for(10**9, rng.random() * 0.002)
            os.kill(child.pid, signal.SIGINT)
            interrupts += 1
        told = child.finish(found)
        assert child.status == 0, f"round {index}: status {child.status}"
        written = read_back(root, seen)
        check_contiguous(written)
        responses = [int(row.response) for row in decisions_of(written)]
        assert responses == sorted(set(responses)), f"round {index}: {responses}"
        assert set(told) <= set(responses), f"round {index}: {set(told) - set(responses)}"
        seen |= written.keys()
        rows += len(responses)
    return {"rows": rows, "interrupts": interrupts}


def forks(root, durability, rounds, seed):
    """Fork while three threads capture, from the main thread and from one of the threads.

    Must hold: parent and children lose nothing and double nothing, no child hangs, and each
    child is a writer of its own.
    """

    def program(acknowledge):
        use(root, durability=durability, segment_bytes=50_000)
        log, stop = simtune.episode(), threading.Event()
        made = [0, 0, 0]

        def work(place):
            while not stop.is_set():
                log.decision("p", f"thread {place}")
                made[place] += 1
                time.sleep(0.0002)

        threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
        for thread in threads:
            thread.start()
        for index in range(rounds):
            worker = threading.Thread(target=_fork_a_child, args=(log, index))
            if index % 2:
                worker.start()
                worker.join()
            else:
                worker.run()
        stop.set()
        for thread in threads:
            thread.join()
        simtune.flush()
        for count in made:
            acknowledge(count)

    child = Child(program)
    made = child.finish()
    assert child.status == 0, child.status
    found = read_back(root)
    check_contiguous(found)
    responses = [
        [row.response for _, row in rows if row.kind == "decision"] for rows in found.values()
    ]
    of_children = [said for said in responses if said[0].startswith("child")]
    assert sorted(of_children) == sorted([f"child {i}"] * 3 for i in range(rounds))
    (parent,) = (said for said in responses if not said[0].startswith("child"))
    assert [parent.count(f"thread {place}") for place in range(3)] == made
    return {"rows": sum(map(len, responses)), "forks": rounds}


def _fork_a_child(log, index):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            for _ in range(3):
                log.decision("p", f"child {index}")
            simtune.flush()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


EXPERIMENTS = {
    **{
        f"{name}-{durability}": (function, durability)
        for name, function in (("kill", kill), ("interrupt", interrupt), ("forks", forks))
        for durability in ("buffered", "os", "disk")
    },
}
