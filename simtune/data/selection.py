"""Which captured episodes are learned from: complete, scored, good enough."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from simtune.data.samples import Sample, Selection, reasons
from simtune.errors import DataError
from simtune.records import Decision, Episode
from simtune.rewards.combining import combine, failures


class Ranked(msgspec.Struct, frozen=True):
    """An episode with the sum of its decisions' rewards."""

    episode: Episode
    score: float


def select_episodes(
    episodes: Iterable[Episode],
    *,
    rewards: Sequence[str] = (),
    top_fraction: float = 1.0,
    min_score: float | None = None,
) -> Selection:
    """Choose the better episodes of a store and take their valid decisions.

    Args:
        episodes: of any state; those still running or aborted are skipped and counted.
        rewards: `NAME[=WEIGHT]` each; none means the environment's own reward.
        top_fraction: share of the episodes of each environment that is kept, best first; ties go
            by episode id, so that the choice does not depend on the files' order.
        min_score: lowest score (sum over an episode's decisions) that is kept.

    Raises:
        DataError: nothing is left; the message says why each was left out.
        OptionError: an unknown reward.
    """
    skipped: Counter[str] = Counter()
    scored = list(_scored(episodes, rewards, skipped))
    chosen = _best(scored, top_fraction, min_score, skipped)
    samples = [
        sample for one in chosen for sample in episode_samples(one.episode, one.score, skipped)
    ]
    if not samples:
        failed = failures(rewards)
        raise DataError(
            "no captured decision is left to learn from",
            expected="complete episodes with valid decisions, and rewards that can score them",
            got=f"left out: {reasons(skipped)}" + (f" ({failed})" if failed else ""),
            fix="simtune episodes stats shows what is there",
        )
    return Selection(
        samples=samples,
        episodes=len(chosen),
        digest=episodes_digest(one.episode.episode_id for one in chosen),
        skipped=skipped,
    )


def episode_samples(episode: Episode, score: float, skipped: Counter[str]) -> list[Sample]:
    """The valid decisions of an episode, each with the episode's score; others are counted."""
    return [
        _sample(decision, score) for decision in episode.decisions if _usable(decision, skipped)
    ]


def episodes_digest(episode_ids: Iterable[str]) -> str:
    """sha256 over the sorted ids, one a line: the same set of episodes has the same digest."""
    return hashlib.sha256("\n".join(sorted(episode_ids)).encode()).hexdigest()


def _scored(
    episodes: Iterable[Episode], rewards: Sequence[str], skipped: Counter[str]
) -> Iterable[Ranked]:
    for episode in episodes:
        reason = _unfit(episode)
        per_decision = None if reason else combine(list(rewards), episode)
        if reason or per_decision is None:
            skipped[reason or "episodes that a reward failed on"] += 1
        else:
            yield Ranked(episode, math.fsum(per_decision))


def _unfit(episode: Episode) -> str | None:
    if episode.aborted:
        return "episodes aborted by an exception"
    if not episode.ended:
        return "episodes still running"
    return None if episode.decisions else "episodes without a decision"


def _best(
    scored: Sequence[Ranked],
    top_fraction: float,
    min_score: float | None,
    skipped: Counter[str],
) -> list[Ranked]:
    by_env: dict[str | None, list[Ranked]] = defaultdict(list)
    for one in scored:
        if min_score is not None and one.score < min_score:
            skipped[f"episodes scored below {min_score:g}"] += 1
        else:
            by_env[one.episode.env].append(one)
    kept = []
    for group in by_env.values():
        group.sort(key=lambda one: (-one.score, one.episode.episode_id))
        count = math.ceil(len(group) * top_fraction)
        kept += group[:count]
        if count < len(group):
            skipped["episodes outside the top fraction"] += len(group) - count
    return sorted(kept, key=lambda one: one.episode.episode_id)


def _usable(decision: Decision, skipped: Counter[str]) -> bool:
    if decision.error or not decision.valid:
        skipped["invalid decisions"] += 1
    elif not decision.prompt and not decision.prompt_token_ids:
        skipped["decisions without a prompt"] += 1
    elif not decision.response:
        skipped["empty decisions"] += 1
    else:
        return True
    return False


def _sample(decision: Decision, score: float) -> Sample:
    return Sample(
        prompt=decision.prompt,
        response=decision.response,
        prompt_token_ids=list(decision.prompt_token_ids),
        token_ids=list(decision.token_ids),
        score=score,
        origin=decision.decision_id,
    )
