"""Check a simulator's adapter by what it captures."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from simtune.errors import DataError
from simtune.records import Decision, Episode, Message


def check_adapter(simulate: Callable[[Path], object]) -> list[Episode]:
    """Run a simulation in a new store and check what it captured.

    Args:
        simulate: plays at least one episode; it is given the store's root, which is also the
            configured one while it runs.

    Returns:
        The episodes, for checks of your own.

    Raises:
        DataError: nothing was captured, or everything that is wrong with it.
    """
    from simtune import config, configure, read
    from simtune.recording import seal

    before = config.current().root
    with tempfile.TemporaryDirectory(prefix="simtune-check-") as directory:
        root = Path(directory) / "store"
        configure(root=str(root))
        try:
            simulate(root)
            seal(root)
            played = list(read(root).episodes())
        finally:
            configure(root=before)
    problems = [
        f"episode {episode.episode_id}: {problem}"
        for episode in played
        for problem in _episode_problems(episode)
    ]
    if problems:
        raise DataError("the adapter captures wrongly:\n- " + "\n- ".join(problems))
    return played


def _episode_problems(episode: Episode) -> Iterator[str]:
    if not episode.decisions:
        yield "it holds no decision"
    if not episode.ended:
        yield "it was never finished; leave `with simtune.episode(...)` or call finish()"
    elif not (episode.terminated or episode.truncated or episode.aborted):
        yield "its end says neither terminated nor truncated"
    if episode.env is None:
        yield "it has no env: name the simulation"
    rewarded = any(decision.reward is not None for decision in episode.decisions)
    if not rewarded and episode.success is None:
        yield "nothing to learn from: no reward, and no `success` in its outcome"
    steps = defaultdict(list)
    for decision in episode.decisions:
        steps[decision.agent_id].append(decision.step)
        for problem in _decision_problems(decision):
            yield f"decision {decision.decision_id}: {problem}"
    for agent, found in steps.items():
        if found != list(range(len(found))):
            yield f"steps of agent {agent!r} are {found}, not 0, 1, 2, ..."


def _says_something(message: Message) -> bool:
    said = message.get("content") is not None or message.get("tool_calls")
    return bool(message.get("role") and said)


def _decision_problems(decision: Decision) -> Iterator[str]:
    if not decision.prompt:
        yield "it has no prompt"
    if any(not _says_something(message) for message in decision.prompt):
        yield "a message of its prompt lacks role or content"
    if not decision.valid and not decision.error:
        yield "it is invalid without saying why"
    if decision.logprobs and len(decision.logprobs) != len(decision.token_ids):
        yield f"{len(decision.logprobs)} logprobs for {len(decision.token_ids)} tokens"
    if any(logprob > 0 for logprob in decision.logprobs):
        yield "a log-probability is above 0: they are natural logarithms"
