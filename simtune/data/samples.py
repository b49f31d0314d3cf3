"""What training reads, wherever it came from: prompts, answers, scores."""

from __future__ import annotations

from collections import Counter

import msgspec

from simtune.records import Messages


class Sample(msgspec.Struct, kw_only=True, frozen=True):
    """One answer to one prompt.

    Attributes:
        prompt: the messages before the answer; the last is not the assistant's.
        response: the answer, verbatim.
        prompt_token_ids: ids the model was given, where they were captured.
        token_ids: ids the model sampled, where they were captured.
        score: of the episode, or the row's rating; None where nothing rated it.
        origin: `decision_id` in a store, `row N` in a file.
    """

    prompt: Messages
    response: str
    prompt_token_ids: list[int] = msgspec.field(default_factory=list)
    token_ids: list[int] = msgspec.field(default_factory=list)
    score: float | None = None
    origin: str = ""


class Selection(msgspec.Struct, kw_only=True):
    """Samples, and an account of what was left out.

    Attributes:
        samples: in an order that does not depend on how the store's files happen to lie.
        episodes: how many episodes they are from; 0 for a file.
        digest: sha256 over the sorted episode ids, one a line; of a file, over its bytes.
        skipped: how many episodes, decisions or rows were left out, by reason.
    """

    samples: list[Sample]
    episodes: int
    digest: str
    skipped: Counter[str] = msgspec.field(default_factory=Counter)


def reasons(skipped: Counter[str]) -> str:
    """The account as text: `12 unrated, 3 empty output`; `nothing` where nothing was."""
    return ", ".join(f"{count} {reason}" for reason, count in skipped.most_common()) or "nothing"
