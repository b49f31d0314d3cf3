"""Captured episodes as turns that PPO can use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from simtune.data.sampled import chosen_option, unusable
from simtune.records import Decision, Episode, Messages
from simtune.train.turns import Turn


class EpisodeTurns(msgspec.Struct, kw_only=True):
    """The turns of one episode that PPO can use.

    Attributes:
        turns: one per decision, `[T]`.
        rewards: of each decision, `[T]`.
        episode_id: of the captured episode; empty for a row of a file.
        group: equal for episodes that began alike (same environment, same seed, so the same first
            prompt); empty where that is unknown.
        final: the state after the last decision where the episode was truncated and its tokens
            are known; None where nothing is left to bootstrap from.
    """

    turns: list[Turn]
    rewards: list[float]
    episode_id: str = ""
    group: str = ""
    final: Turn | None = None


def turn_of(decision: Decision) -> Turn:
    """A usable decision as a turn: the ids that were scored and sampled, as they were captured."""
    sampling = decision.sampling
    turn = Turn(
        prompt_ids=decision.prompt_token_ids,
        action_ids=decision.token_ids,
        behaviour_logprobs=decision.logprobs,
        temperature=sampling.get("temperature", 1.0),
        adapter=decision.adapter,
    )
    chosen = chosen_option(decision) if sampling.get("decision") == "choose" else None
    if chosen is not None:
        turn.options = sampling["choice_token_ids"]
        turn.chosen = chosen
        turn.length_normalised = bool(sampling.get("length_normalised", False))
        turn.behaviour_logprobs = decision.choice_logprobs[chosen : chosen + 1]
    logprobs = turn.behaviour_logprobs
    if len(logprobs) != turn.units or any(value != value for value in logprobs):
        turn.behaviour_logprobs = ()
    return turn


def episode_turns(
    episode: Episode,
    rewards: Sequence[float],
    encode: Callable[[Sequence[Messages]], list[list[int]]],
    skipped: Counter[str],
) -> EpisodeTurns | None:
    """Turn an episode into rows of the ids that were sampled; None where a decision lacks them.

    An episode is taken whole or not at all: credit flows through every decision.

    Args:
        episode: a captured episode.
        rewards: of each decision, `[T]`.
        encode: prompts to token ids; only for the state after a truncated episode, which was
            never sampled from, where its ids were not captured.
        skipped: counts skipped episodes by reason; changed in place.
    """
    reasons = {reason for decision in episode.decisions if (reason := unusable(decision))}
    if not episode.decisions or reasons:
        skipped[", ".join(sorted(reasons)) or "no decisions"] += 1
        return None
    seed = episode.metadata.get("seed")
    return EpisodeTurns(
        turns=[turn_of(decision) for decision in episode.decisions],
        rewards=list(rewards),
        episode_id=episode.episode_id,
        group="" if seed is None else f"{episode.env}|{seed}",
        final=_final(episode, encode),
    )


def _final(
    episode: Episode, encode: Callable[[Sequence[Messages]], list[list[int]]]
) -> Turn | None:
    """The state whose value a truncated episode bootstraps from; terminated wins over truncated."""
    if episode.terminated or not episode.truncated:
        return None
    if episode.final_prompt_token_ids:
        return Turn(prompt_ids=episode.final_prompt_token_ids)
    if episode.final_prompt:
        return Turn(prompt_ids=encode([episode.final_prompt])[0])
    return None
