"""Whether PPO could use the decisions: token ids, log-probabilities, how they were sampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from simtune.data.sampled import unusable
from simtune.doctor.finding import Finding, graded, of, ok
from simtune.doctor.subject import Subject
from simtune.train.episode_turns import turn_of

_MANY: Final = 0.05

_MENDING: Final = {
    "no token ids": (
        "no-token-ids",
        "have no token ids, so PPO leaves their episodes out",
        "answer with simtune.Reply(text, prompt_token_ids=..., token_ids=..., logprobs=...) or "
        "with simtune.policy.local.LocalPolicy; ask a vLLM server for return_token_ids",
    ),
    "sampled greedily": (
        "greedy-sampling",
        "were sampled greedily, and PPO refuses them: one answer is no distribution",
        "sample with temperature=1.0 where episodes are for PPO",
    ),
    "sampled with top_p, top_k or min_p": (
        "cut-sampling",
        "were sampled with top_p, top_k or min_p, so their log-probabilities are not the policy's",
        "sample with top_p=1, top_k=0, min_p=0 where episodes are for PPO",
    ),
    "no option that was chosen": (
        "no-chosen-option",
        "are among named options, and do not say which one was taken",
        "capture token_ids equal to one of sampling['choice_token_ids'], as LocalPolicy does",
    ),
    "": (
        "no-logprobs",
        "have no log-probability for each token, so PPO recomputes them under the model it "
        "starts from, which may not be the one that sampled",
        "ask the model for logprobs, and answer with simtune.Reply(..., logprobs=...)",
    ),
}
"""Why PPO cannot use a decision -> code, what that means, how to mend it."""


def check(subject: Subject) -> Iterator[Finding]:
    """Judge each decision as PPO would, by environment and model."""
    sample = subject.sample
    asked: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str, str]] = Counter()
    for event in sample.decisions:
        group = (event.env or "-", event.model or "-")
        asked[group] += 1
        decision = event.decision()
        reason = unusable(decision)
        if reason is None and not turn_of(decision).behaviour_logprobs:
            reason = ""
        if reason is not None:
            found[(*group, reason)] += 1
    for (env, model, reason), count in sorted(found.items()):
        code, meaning, fix = _MENDING[reason]
        whole = asked[env, model]
        yield graded(
            code,
            count / whole,
            _MANY,
            f"env {env}, model {model}: {of(count, whole)} decisions{sample.scope} {meaning}",
            fix,
        )
    if asked and not found:
        yield ok(
            "tokens",
            f"all {len(sample.decisions):,} decisions have token ids and log-probabilities "
            "that PPO can use",
        )
