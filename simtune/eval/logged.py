"""The gate where no simulator can be run: candidate and champion on logged decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from simtune.data.sampled import captured_logprob, unusable
from simtune.errors import DataError
from simtune.eval.metrics import Metric
from simtune.eval.off_policy import WEIGHT_CAP, LoggedEpisode, OffPolicy, evaluate_logged
from simtune.eval.verdict import Rule, Verdict, judge
from simtune.policy.local import LocalPolicy
from simtune.policy.scoring import decision_logprobs
from simtune.records import Decision, Episode

MIN_ESS = 50.0


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """Logged episodes that can be weighted.

    Attributes:
        episodes: complete ones.
        credit: what each decision earned, `[n][T]`.
        captured: log-probability of each decision under the policy that made it, `[n][T]`.
        skipped: how many were left out, by reason.
    """

    episodes: list[Episode]
    credit: list[list[float]]
    captured: list[list[float]]
    skipped: dict[str, int]

    @property
    def decisions(self) -> list[Decision]:
        """All of them, one episode after another."""
        return [decision for episode in self.episodes for decision in episode.decisions]


def usable_logs(episodes: Iterable[Episode], metric: Metric, *, newest: int | None = None) -> Logs:
    """Take the complete episodes whose every decision has its captured log-probability.

    Args:
        episodes: in the order in which they ended.
        metric: what they are worth.
        newest: how many of the last ones; all where None.

    Raises:
        DataError: there is none; says why each was left out.
    """
    found: list[tuple[Episode, list[float], list[float]]] = []
    skipped: Counter[str] = Counter()
    for episode in episodes:
        reason, captured = _captured(episode)
        credit = metric.credit(episode) if reason is None else None
        if reason is None and credit is not None:
            found.append((episode, credit, captured))
        else:
            skipped[reason or f"no {metric.name}"] += 1
    if not found:
        raise DataError(
            "no logged episode can be weighted",
            expected="complete episodes with token ids and log-probabilities",
            got="; ".join(f"{count} left out: {why}" for why, count in skipped.items())
            or "no episode",
            fix="capture with a policy that returns both; or compare in the environment: --env",
        )
    kept = found[-newest:] if newest else found
    return Logs(
        episodes=[one[0] for one in kept],
        credit=[one[1] for one in kept],
        captured=[one[2] for one in kept],
        skipped=dict(skipped),
    )


def judge_logged(
    logs: Logs,
    candidate: Callable[[], LocalPolicy],
    champion: Callable[[], LocalPolicy],
    *,
    metric: Metric,
    rule: Rule,
    names: tuple[str, str] = ("candidate", "champion"),
    min_ess: float = MIN_ESS,
    cap: float = WEIGHT_CAP,
    seed: int = 0,
) -> Verdict:
    """Weigh logged episodes by both policies, and say whether the candidate is better.

    Args:
        logs: what was captured.
        candidate: loads it; one policy at a time is in memory.
        champion: likewise.
        metric: what an episode is worth.
        rule: when the candidate is promoted.
        names: of the two.
        min_ess: effective sample size that either needs; below it nothing is promoted.
        cap: largest importance weight.
        seed: of the bootstrap.
    """
    ratios = [_log_ratios(logs, load()) for load in (candidate, champion)]
    found = evaluate_logged(
        [
            LoggedEpisode(rewards=credit, log_ratios=[ratios[0][at], ratios[1][at]])
            for at, credit in enumerate(logs.credit)
        ],
        cap=cap,
        confidence=rule.confidence,
        seed=seed,
    )
    promote, reason = judge(rule, found.difference, metric.name)
    if min(found.sizes) < min_ess:
        promote = False
        side = names[found.sizes.index(min(found.sizes))]
        reason = (
            f"the logged decisions say too little about {side}: effective sample size "
            f"{min(found.sizes):.4g} of {len(logs.episodes)} episodes, {min_ess:g} are needed"
        )
    return Verdict(
        promote=promote,
        reason=reason,
        candidate=names[0],
        champion=names[1],
        method="off-policy",
        metric=metric.name,
        episodes=len(logs.episodes),
        candidate_mean=found.values[0],
        champion_mean=found.values[1],
        difference=found.difference,
        margin=rule.margin,
        confidence=rule.confidence,
        details=_details(logs, found, min_ess=min_ess, cap=cap),
    )


def _details(logs: Logs, found: OffPolicy, *, min_ess: float, cap: float) -> dict[str, Any]:
    by = Counter(decision.adapter or "base" for decision in logs.decisions)
    return {
        "effective_sample_size": found.sizes,
        "min_ess": min_ess,
        "weight_cap": cap,
        "share_at_cap": found.capped,
        "decisions": len(logs.decisions),
        "decided_by": dict(by.most_common(5)),
        "skipped": logs.skipped,
    }


def _log_ratios(logs: Logs, policy: LocalPolicy) -> list[list[float]]:
    values = iter(decision_logprobs(policy, logs.decisions))
    return [[next(values) - mu for mu in captured] for captured in logs.captured]


def _captured(episode: Episode) -> tuple[str | None, list[float]]:
    """Why an episode cannot be weighted, or its decisions' captured log-probabilities."""
    if not episode.ended or episode.aborted or not episode.decisions:
        return "unfinished, aborted or empty", []
    known = []
    for decision in episode.decisions:
        reason = unusable(decision)
        if reason is not None:
            return reason, []
        logprob = captured_logprob(decision)
        if logprob is None:
            return "no log-probabilities", []
        known.append(logprob)
    return None, known
