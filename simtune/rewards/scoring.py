"""Run rewards over the episodes of a whole store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from simtune.errors import DataError, OptionError
from simtune.records import Episode
from simtune.rewards.call import ScoredEpisode, score_episode
from simtune.rewards.registration import RegisteredReward, select
from simtune.store import read
from simtune.store.scores import Score, write_scores


class RewardSummary(msgspec.Struct, kw_only=True):
    """What scoring a store with one reward came to.

    Attributes:
        name: the reward.
        version: its version.
        plugin: where it came from.
        episodes: how many were looked at.
        scored: how many got a score.
        failed: how many did not; `reasons` says why, with counts.
        decisions: how many decisions got a score of their own.
        mean: mean score of the scored episodes; None where there are none.
    """

    name: str
    version: str
    plugin: str
    episodes: int = 0
    scored: int = 0
    failed: int = 0
    decisions: int = 0
    mean: float | None = None
    reasons: dict[str, int] = msgspec.field(default_factory=dict)


def score_store(
    root: str | Path,
    names: Sequence[str],
    *,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[RewardSummary]:
    """Score every episode of a store with some rewards, into sidecars beside the episodes.

    Every episode gets a row (null with the reason in `detail` where the reward failed), and each
    of its decisions one where the reward scores decisions; the episode's is then their sum.

    Args:
        root: directory of the store.
        names: rewards to run, without weights; none means the environment's own.
        on_episode: called after each episode.

    Raises:
        OptionError: an unknown reward, a weight (scores have none), or no such store.
        DataError: the store holds no episode.
    """
    for name in names:
        if "=" in name:
            raise OptionError(
                f"a score has no weight: {name!r}", expected="NAME", fix="weigh it in training"
            )
    totals = [_Total(registered) for registered, _ in select(names)]
    write_scores(root, _rows(read(root).episodes(), totals, on_episode))
    summaries = [total.summary() for total in totals]
    if not summaries[0].episodes:
        raise DataError("the store holds no episode", got=Path(root).resolve())
    return summaries


class _Total:
    """Counts of one reward while a store is scored."""

    def __init__(self, registered: RegisteredReward) -> None:
        self.registered = registered
        self.scores: list[float] = []
        self.reasons: Counter[str] = Counter()
        self.decisions = 0

    def add(self, scored: ScoredEpisode) -> None:
        self.decisions += sum(score is not None for score in scored.decisions)
        if scored.score is None:
            self.reasons[str(scored.error)] += 1
        else:
            self.scores.append(scored.score)

    def summary(self) -> RewardSummary:
        failed = self.reasons.total()
        return RewardSummary(
            name=self.registered.name,
            version=self.registered.version,
            plugin=self.registered.plugin,
            episodes=len(self.scores) + failed,
            scored=len(self.scores),
            failed=failed,
            decisions=self.decisions,
            mean=math.fsum(self.scores) / len(self.scores) if self.scores else None,
            reasons=dict(self.reasons.most_common()),
        )


def _rows(
    episodes: Iterable[Episode],
    totals: Sequence[_Total],
    on_episode: Callable[[Episode], None] | None,
) -> Iterator[Score]:
    for episode in episodes:
        for total in totals:
            scored = score_episode(total.registered, episode)
            total.add(scored)
            yield from _score_rows(total.registered, episode, scored)
        if on_episode is not None:
            on_episode(episode)


def _score_rows(
    registered: RegisteredReward, episode: Episode, scored: ScoredEpisode
) -> Iterator[Score]:
    subjects: list[tuple[str | None, float | None, str | None]] = [
        (None, scored.score, scored.error)
    ]
    if scored.per_decision:
        subjects += [
            (decision.decision_id, score, "no score was given" if score is None else None)
            for decision, score in zip(episode.decisions, scored.decisions, strict=True)
        ]
    for decision_id, score, error in subjects:
        yield Score(
            decision_id=decision_id,
            episode_id=episode.episode_id,
            scorer=registered.name,
            scorer_version=registered.version,
            score=score,
            detail=None if error is None else {"error": error},
        )
