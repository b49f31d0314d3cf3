"""The decisions that are captured: a full one of about 2.5 kB, and a small one."""

from __future__ import annotations

from simtune import Reply
from simtune.records import Messages

SMALL_PROMPT: Messages = [{"role": "user", "content": "left or right?"}]
SMALL_ANSWER = "left"

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

SIZES = {"small": (SMALL_PROMPT, SMALL_ANSWER), "full": (FULL_PROMPT, FULL_ANSWER)}
