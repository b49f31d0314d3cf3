"""What can be asked: the bodies of requests, and which of OpenAI's fields are heeded."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from simtune.serving.refusals import Refusal, unusable

MOST_ALTERNATIVES = 20
MOST_ANSWERS = 16
MOST_STOPS = 16
HOTTEST = 100.0


class Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of completion understand.

    Fields after `length_normalised` are understood in their neutral value only: answers are drawn
    from the full distribution, since training needs the policy's own probability of them.
    """

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    choices: list[str] | None = None
    length_normalised: bool = False

    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    service_tier: str | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def alternatives(self) -> int:
        """How many of the most probable tokens are to be told."""
        raise NotImplementedError

    def tells_logprobs(self) -> bool:
        """Whether log-probabilities are to be told."""
        raise NotImplementedError

    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def wants_usage(self) -> bool:
        """Whether the end of a stream counts tokens."""
        return bool((self.stream_options or {}).get("include_usage"))


class ChatAsked(Asked, kw_only=True):
    """The body of `/v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None

    def alternatives(self) -> int:
        """As `top_logprobs` says."""
        return self.top_logprobs or 0

    def tells_logprobs(self) -> bool:
        """As `logprobs` says."""
        return bool(self.logprobs)


class TextAsked(Asked, kw_only=True):
    """The body of `/v1/completions`."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    def alternatives(self) -> int:
        """As `logprobs` says."""
        return self.logprobs or 0

    def tells_logprobs(self) -> bool:
        """Where `logprobs` is given."""
        return self.logprobs is not None


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
}
"""Fields that mean nothing here beyond these values; any other is refused rather than ignored."""

T = TypeVar("T")
_UNKNOWN = re.compile(r"unknown field `(\w+)`")
_MISSING = re.compile(r"missing required field `(\w+)`")
_PATH = re.compile(r"`\$\.?([^`]*)`")


def parse(body: bytes, kind: type[T]) -> T:
    """Read a request's body.

    Raises:
        Refusal: it is not JSON, lacks a field, or has one that is unknown or of the wrong type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if unknown := _UNKNOWN.search(text):
            raise unusable(
                f"{unknown[1]!r} is not a field that this server understands",
                unknown[1],
                "unknown_parameter",
            ) from error
        if missing := _MISSING.search(text):
            raise unusable(f"{missing[1]!r} is missing", missing[1], "missing_parameter") from error
        path = _PATH.search(text)
        raise unusable(text, path[1] if path else None, "invalid_type") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is not JSON: {error}", code="invalid_json") from error


def check(asked: Asked) -> None:
    """Refuse values that cannot be heeded.

    Raises:
        Refusal: naming the field, and what it may be.
    """
    for name, neutral in NEUTRAL.items():
        value = getattr(asked, name, None)
        if value is not None and value not in neutral:
            raise unusable(
                f"{name} is not heeded: answers are drawn from the model's full distribution, as "
                f"plain text. Leave it out, or give {neutral[0]!r}",
                name,
                "unsupported_value",
            )
    _within(asked.temperature, "temperature", 0, HOTTEST)
    _within(asked.n, "n", 1, MOST_ANSWERS)
    _within(asked.max_tokens, "max_tokens", 1, 2**31)
    _within(getattr(asked, "max_completion_tokens", None), "max_completion_tokens", 1, 2**31)
    name = "top_logprobs" if isinstance(asked, ChatAsked) else "logprobs"
    _within(asked.alternatives(), name, 0, MOST_ALTERNATIVES)
    if isinstance(asked, ChatAsked) and asked.top_logprobs and not asked.logprobs:
        raise unusable("top_logprobs needs logprobs: true", "top_logprobs")
    if len(asked.stops()) > MOST_STOPS or "" in asked.stops():
        raise unusable(f"stop is at most {MOST_STOPS} texts, none of them empty", "stop")
    if asked.seed is not None and not -(2**63) <= asked.seed < 2**63:
        raise unusable("seed is an integer of 64 bits", "seed")
    unknown = set(asked.stream_options or ()) - {"include_usage"}
    if unknown or (asked.stream_options and not asked.stream):
        raise unusable("stream_options is {include_usage: bool}, of a stream", "stream_options")


def _within(value: float | None, name: str, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise unusable(f"{name} is from {low} to {high:g}, not {value}", name)
