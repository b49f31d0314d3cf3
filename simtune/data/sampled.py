"""Which captured decisions say exactly what a policy sampled, and with what probability."""

from __future__ import annotations

from simtune.records import Decision

UNTRAINABLE_SAMPLING = ("top_p", "top_k", "min_p")


def unusable(decision: Decision) -> str | None:
    """Why the probability of a decision under a policy cannot be told, or None where it can.

    A decision without log-probabilities can be used: they are recomputed.
    """
    if not decision.token_ids or not decision.prompt_token_ids:
        return "no token ids"
    sampling = decision.sampling
    if sampling.get("temperature", 1.0) <= 0:
        return "sampled greedily"
    if any(sampling.get(name) not in (None, 0, 1, 1.0) for name in UNTRAINABLE_SAMPLING):
        return "sampled with top_p, top_k or min_p"
    if sampling.get("decision") == "choose" and chosen_option(decision) is None:
        return "no option that was chosen"
    return None


def chosen_option(decision: Decision) -> int | None:
    """Index of the option that a decision took, by its ids; None where it cannot be told."""
    options = [list(option) for option in decision.sampling.get("choice_token_ids") or ()]
    ids = list(decision.token_ids)
    return options.index(ids) if all(options) and ids in options else None


def captured_logprob(decision: Decision) -> float | None:
    """Log-probability of a usable decision under the policy that made it, nats.

    That of the whole answer, or of the option that was taken; None where it was not captured.
    """
    if decision.sampling.get("decision") == "choose":
        at = chosen_option(decision)
        known = decision.choice_logprobs[at : at + 1] if at is not None else []
    else:
        known = decision.logprobs
        if len(known) != len(decision.token_ids):
            return None
    total = sum(known)
    return total if known and total == total else None
