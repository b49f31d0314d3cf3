"""Play a candidate and the champion on the same seeds, and say whether it is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import fmean
from typing import Any, Literal, TypeAlias

import msgspec

from simtune.errors import DataError, OptionError
from simtune.eval.betting import Betting
from simtune.eval.intervals import Interval
from simtune.eval.metrics import Metric
from simtune.eval.sign_flip import sign_flip_bounds
from simtune.eval.verdict import Rule, Verdict, judge
from simtune.gym.rollouts import Player
from simtune.records import Episode

Method: TypeAlias = Literal["sign-flip", "betting"]


class Match(msgspec.Struct, kw_only=True):
    """How a candidate and the champion are compared.

    Attributes:
        env: a factory of environments, or a spec.
        metric: what an episode is worth.
        rule: when the candidate is promoted.
        method: `sign-flip` plays all episodes; `betting` stops as soon as the bounds decide, and
            needs the metric's range.
        episodes: pairs that are played; of `betting` the most.
        seed: of the first pair; pair i has `seed + i`.
        num_envs: environments stepped together; `betting` looks after as many pairs.
        history: earlier turns in the chats; None leaves it to the environment.
    """

    env: str | Callable[[], Any]
    metric: Metric
    rule: Rule
    method: Method = "sign-flip"
    episodes: int = 200
    seed: int = 0
    num_envs: int = 32
    history: int | str | None = None


def play_match(
    match: Match,
    candidate: Any,
    champion: Any,
    *,
    names: tuple[str, str] = ("candidate", "champion"),
    details: dict[str, Any] | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> Verdict:
    """Play both policies on the same seeds; nothing is captured.

    Args:
        match: how.
        candidate: a policy, see `simtune.gym.rollout`.
        champion: likewise.
        names: of the two.
        details: more about how it is played, for the verdict.
        on_episode: called as each episode ends.

    Raises:
        OptionError: fewer than one episode, or `betting` without a range.
        DataError: an episode has no value: of what is left out nothing could be promised.
        EnvironmentSpecError: the environment cannot be made or put into text.
    """
    if match.episodes < 1:
        raise OptionError("a match needs at least one episode", got=match.episodes)
    bets = _bets(match) if match.method == "betting" else None
    ours: list[float] = []
    theirs: list[float] = []
    difference = Interval(0.0, 0.0, 0.0)
    with ExitStack() as stack:
        play = [
            partial(_scores, stack.enter_context(_player(match, policy)), match, on_episode)
            for policy in (candidate, champion)
        ]
        step = match.episodes if bets is None else min(match.num_envs, match.episodes)
        while len(ours) < match.episodes:
            count = min(step, match.episodes - len(ours))
            start = match.seed + len(ours)
            new = [one(start, count) for one in play]
            ours += new[0]
            theirs += new[1]
            difference = _bounds(match, bets, ours, theirs, count)
            if bets and (match.rule.holds(difference) or match.rule.hopeless(difference)):
                break
    promote, reason = judge(match.rule, difference, match.metric.name)
    return Verdict(
        promote=promote,
        reason=reason,
        candidate=names[0],
        champion=names[1],
        method=match.method,
        metric=match.metric.name,
        episodes=len(ours),
        candidate_mean=fmean(ours),
        champion_mean=fmean(theirs),
        difference=difference,
        margin=match.rule.margin,
        confidence=match.rule.confidence,
        details={
            "env": match.env if isinstance(match.env, str) else None,
            "seeds": [match.seed, match.seed + len(ours) - 1],
            "episodes_at_most": match.episodes,
            "range": match.metric.bounds,
            "better": sum(a > b for a, b in zip(ours, theirs, strict=True)),
            "worse": sum(a < b for a, b in zip(ours, theirs, strict=True)),
        }
        | (details or {}),
    )


def _bets(match: Match) -> Betting:
    if match.metric.bounds is None:
        raise OptionError(
            f"to stop early, the range of {match.metric.name} has to be known",
            expected="--range LOW HIGH, which every episode keeps to",
            fix="or leave --max-episodes out and play --episodes N",
        )
    low, high = match.metric.bounds
    return Betting(low - high, high - low, confidence=match.rule.confidence)


def _bounds(
    match: Match, bets: Betting | None, ours: Sequence[float], theirs: Sequence[float], new: int
) -> Interval:
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if bets is None:
        return sign_flip_bounds(differences, confidence=match.rule.confidence, seed=match.seed)
    bets.add(differences[-new:])
    return bets.interval()


def _player(match: Match, policy: Any) -> Player:
    return Player(
        match.env,
        policy,
        num_envs=min(match.num_envs, match.episodes),
        history=match.history,
        capture=False,
    )


def _scores(
    player: Player,
    match: Match,
    on_episode: Callable[[Episode], None] | None,
    seed: int,
    count: int,
) -> list[float]:
    played = player.play(episodes=count, seeds=seed, on_episode=on_episode)
    found = []
    for at, episode in enumerate(played):
        value = match.metric.score(episode)
        if value is None:
            raise DataError(
                f"the episode of seed {seed + at} has no {match.metric.name}",
                expected="a value for every episode that is compared",
                got=match.metric.explain(),
                fix="--metric return, or a reward that scores every episode",
            )
        found.append(value)
    return found
