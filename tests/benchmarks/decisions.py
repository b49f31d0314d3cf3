"""Full decisions, of about 2.5 kB: one, and as many that differ as wanted."""

from __future__ import annotations

import random
from functools import cache

from simtune import Reply
from simtune.records import Messages

FULL_PROMPT: Messages = [
    {"role": "system", "content": "You steer one vehicle through a city's traffic. " * 10},
    {"role": "user", "content": "north 3 waiting, east 5 waiting, light is red; " * 21},
]
FULL_ANSWER = Reply(
    "The queue in the east is longer and has waited for two cycles, so: east. " * 3,
    prompt_token_ids=range(256),
    token_ids=range(1000, 1064),
    logprobs=[-0.1 * i for i in range(64)],
    sampling={"temperature": 1.0, "max_tokens": 64},
    model="tiny",
    adapter="0" * 64,
)

_VOCABULARY = 150_000
_SYSTEM = FULL_PROMPT[0]


@cache
def _pools() -> tuple[str, list[int], list[float]]:
    chance = random.Random(0)
    words = ["".join(chance.choices("aeinorst", k=chance.randint(2, 9))) for _ in range(5000)]
    text = " ".join(chance.choices(words, k=200_000))
    ids = [chance.randrange(_VOCABULARY) for _ in range(100_000)]
    return text, ids, [-chance.random() for _ in range(100_000)]


def varied(chance: random.Random) -> tuple[Messages, Reply]:
    """A full decision that no other equals: what compaction sorts and compresses."""
    text, ids, logprobs = _pools()
    at = chance.randrange(len(ids) - 256)
    prompt: Messages = [_SYSTEM, {"role": "user", "content": text[at * 10 : at * 10 + 1000]}]
    answer = Reply(
        text[at * 9 : at * 9 + 200],
        prompt_token_ids=ids[at : at + 256],
        token_ids=ids[at + 100 : at + 164],
        logprobs=logprobs[at : at + 64],
        sampling={"temperature": 1.0, "max_tokens": 64},
        model="tiny",
        adapter="0" * 64,
    )
    return prompt, answer
