"""Experiments with many tasks, many processes, and a clock that goes backwards."""

import asyncio
import os
import time

import simtune
from simtune.recording import open_episode
from tests.faults.fault_children import Child, check_contiguous, read_back, use


def tasks(root, count, rounds, seed):
    """1,000 asyncio tasks, each with an episode of its own, that take turns at every decision.

    Must hold: each decision is in the episode of its task, in order, with its steps from 0.
    """

    async def play(number):
        async with simtune.episode(env=str(number)) as log:
            for step in range(5):
                await asyncio.sleep(0)
                decide(f"{number}.{step}")
            log.finish(terminated=True)

    @simtune.capture
    def decide(prompt):
        return prompt

    async def everything():
        await asyncio.gather(*(play(number) for number in range(count)))

    def program(_):
        use(root)
        asyncio.run(everything())
        simtune.flush()

    _finish(Child(program))
    found = read_back(root)
    check_contiguous(found)
    (rows,) = found.values()
    episodes = {row.episode_id: row.env for _, row in rows if row.kind == "episode_start"}
    assert sorted(map(int, episodes.values())) == list(range(count))
    said = {episode_id: [] for episode_id in episodes}
    for _, row in rows:
        if row.kind == "decision":
            said[row.episode_id].append((row.step, row.response))
    for episode_id, number in episodes.items():
        assert said[episode_id] == [(step, f"{number}.{step}") for step in range(5)]
    assert sum(row.kind == "episode_end" for _, row in rows) == count
    return {"rows": len(rows), "tasks": count}


def processes(root, count, rounds, seed):
    """8 processes capture into one episode at the same time.

    Must hold: each is a writer of its own, all that each captured is there in its order, and the
    store gives one episode with all of it.
    """

    def program(acknowledge):
        use(root)
        log = open_episode(env="shared")
        children = [os.fork() or _play(log, number) for number in range(count)]
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        log.finish(terminated=True)
        simtune.flush()

    _finish(Child(program))
    found = read_back(root)
    check_contiguous(found)
    assert len(found) == count + 1
    said = sorted(
        [row.response for _, row in rows if row.kind == "decision"] for rows in found.values()
    )
    assert said == sorted([[], *([f"{number}.{i}" for i in range(50)] for number in range(count))])
    (episode,) = simtune.read(root).episodes()
    responses = [decision.response for decision in episode.decisions]
    assert sorted(responses) == sorted(response for one in said for response in one)
    assert episode.ended
    return {"decisions": len(responses), "processes": count}


def _play(log, number):
    code = 1
    try:
        for i in range(50):
            log.decision("p", f"{number}.{i}")
        simtune.flush()
        code = 0
    finally:
        os._exit(code)


def clock(root, seconds, rounds, seed):
    """The wall clock is set back by an hour in the middle of an episode, and segments rotate.

    Must hold: nothing is lost, the order is that of the calls, and it says so in `seq` and
    `step`, in the log and in the store; `ts` tells what the clock said.
    """

    def program(_):
        use(root, durability="os", segment_bytes=3000)
        real = time.time_ns
        with simtune.episode(env="clock") as log:
            for number in range(60):
                if number == 30:
                    time.time_ns = lambda: real() - seconds * 10**9
                log.decision("p" * 200, str(number))

    _finish(Child(program))
    found = read_back(root)
    check_contiguous(found)
    (rows,) = found.values()
    decisions = [row for _, row in rows if row.kind == "decision"]
    assert [row.response for row in decisions] == [str(number) for number in range(60)]
    assert decisions[30].ts < decisions[29].ts - (seconds - 60) * 10**6
    (episode,) = simtune.read(root).episodes()
    assert [decision.response for decision in episode.decisions] == [str(i) for i in range(60)]
    assert [decision.step for decision in episode.decisions] == list(range(60))
    return {"rows": len(rows)}


def _finish(child):
    child.finish()
    assert child.status == 0, child.status


EXPERIMENTS = {
    "tasks": (tasks, 1000),
    "processes": (processes, 8),
    "clock-set-back": (clock, 3600),
}
