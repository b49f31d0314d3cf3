"""Whose episode a decision belongs to: across tasks, threads and executors."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from read_back import said

import simtune


@simtune.capture
def ask(prompt):
    return prompt


@simtune.capture(agent="b")
async def ask_b(prompt):
    await asyncio.sleep(0)
    return prompt


def of(log, store):
    return [row.response for row in store.rows("decision") if row.episode_id == log.id]


def test_twelve_hundred_tasks_with_episodes_within_episodes(store):
    async def play(number):
        async with simtune.episode(seed=number) as outer:
            await ask_b(f"{number} outer")
            async with simtune.episode(agent="b", seed=number) as inner:
                await asyncio.sleep(0)
                await ask_b(f"{number} inner")
                simtune.reward(number)
            await ask_b(f"{number} outer")
            simtune.reward(-number)
        return outer.id, inner.id

    async def play_all():
        return await asyncio.gather(*(play(number) for number in range(1200)))

    played = asyncio.run(play_all())
    items = store.items()
    decisions = {id_: row for id_, row in items if row.kind == "decision"}
    told = {}
    for row in decisions.values():
        told.setdefault(row.episode_id, []).append((row.step, row.response))
    rewards = {}
    for _, row in items:
        if row.kind == "reward":
            rewards[row.episode_id] = row.reward
            assert decisions[row.target].episode_id == row.episode_id
    assert len(decisions) == 3600
    for number, (outer, inner) in enumerate(played):
        assert told[outer] == [(0, f"{number} outer"), (1, f"{number} outer")]
        assert told[inner] == [(0, f"{number} inner")]
        assert (rewards[outer], rewards[inner]) == (-number, number)


def test_what_a_task_opens_stays_its_own(store):
    async def play():
        with simtune.episode() as mine:

            async def child():
                with simtune.episode() as its:
                    ask("its")
                    await asyncio.sleep(0)
                    return its

            task = asyncio.create_task(child())
            await asyncio.sleep(0)
            ask("mine")
            return mine, await task

    mine, its = asyncio.run(play())
    assert (of(mine, store), of(its, store)) == (["mine"], ["its"])


def test_to_thread_and_copied_contexts_are_within_the_episode(store):
    async def play():
        with simtune.episode() as log:
            await asyncio.to_thread(ask, "to_thread")
        return log

    log = asyncio.run(play())
    with simtune.episode() as other:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(ask, "thread"))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, ask, "pool").result()
    assert of(log, store) == ["to_thread"]
    assert of(other, store) == ["thread", "pool"]


def test_a_thread_of_its_own_is_outside_unless_it_holds_the_log(store):
    def alone():
        ask("thread")
        simtune.reward(1.0)

    def with_log(log):
        log.decision("p", "by its log")

    with simtune.episode() as log, ThreadPoolExecutor(2) as pool:
        pool.submit(alone).result()
        pool.submit(with_log, log).result()
        thread = threading.Thread(target=alone)
        thread.start()
        thread.join()
    assert of(log, store) == ["by its log"]
    alone_rows = [row for row in store.rows("decision") if row.response == "thread"]
    assert len({row.episode_id for row in alone_rows}) == 2
    assert [row.episode_id for row in store.rows("reward")] == [
        row.episode_id for row in alone_rows
    ]


def test_an_executor_that_is_given_the_context_once_per_thread(store):
    with simtune.episode() as log:
        here = contextvars.copy_context()

        def enter():
            for variable, value in here.items():
                variable.set(value)

        with ThreadPoolExecutor(4, initializer=enter) as pool:
            assert list(pool.map(ask, "abcdefgh")) == list("abcdefgh")
    assert sorted(of(log, store)) == list("abcdefgh")


@pytest.mark.parametrize("runs", [1, 2])
def test_generators_may_leave_their_episodes_out_of_order(store, runs):
    def play(name):
        with simtune.episode(env=name):
            yield ask(name)

    for _ in range(runs):
        first, second = play("first"), play("second")
        next(first), next(second)
        first.close()
        ask("after first")
        second.close()
        ask("after both")
    envs = [row.env for row in store.rows("decision")]
    assert envs == ["first", "second", "second", None] * runs
    ends = [row.error for row in store.rows("episode_end")]
    assert ends == ["GeneratorExit: "] * 2 * runs
    assert {said(row.metadata)["aborted"] for row in store.rows("episode_end")} == {True}
