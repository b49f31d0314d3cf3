"""Answers in OpenAI's formats: chat completions, text completions, and responses.

Recognised by their shape, as objects of the client or as its JSON, so that no client library is
imported. Token ids are those that vLLM and simtune's server add where they are asked to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from simtune.recording.conversion import Notes, to_json

_TOKEN_ID = "token_id:"  # how vLLM names tokens with `return_tokens_as_token_ids`
_MESSAGE_NOTES = ("refusal", "reasoning", "reasoning_content")


class Answer(msgspec.Struct, kw_only=True):
    """The columns of a decision that its answer fills; `extra` is what has no column."""

    text: str
    prompt_token_ids: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    sampling: dict[str, Any] | None = None
    model: str | None = None
    adapter: str | None = None
    choices: Sequence[str] = ()
    choice_logprobs: Sequence[float] = ()
    extra: dict[str, Any] = {}


def read_completion(result: object, notes: Notes) -> Answer | None:
    """The first choice of a completion, or a response; None for anything else."""
    choices = get(result, "choices")
    if isinstance(choices, list | tuple) and choices:
        if get(choices[0], "message") is None and not isinstance(get(choices[0], "text"), str):
            return None
        return _read_choices(result, choices, notes)
    if get(result, "object") == "response" and isinstance(get(result, "output"), list | tuple):
        return _read_response(result)
    return None


def get(value: object, *path: str) -> Any:
    """What an object or a mapping holds under names within each other, None where it does not."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _read_choices(result: object, choices: Sequence[object], notes: Notes) -> Answer:
    choice = choices[0]
    text, extra = _text_of(choice, notes)
    for name, value in (
        ("finish_reason", get(choice, "finish_reason")),
        ("usage", _wire(get(result, "usage"))),
        ("other_choices", [_text_of(other, {})[0] for other in choices[1:]]),
    ):
        if value is not None and value != []:
            extra[name] = value
    token_ids, logprobs = _tokens_of(choice)
    if len(logprobs) != len(token_ids):
        # A log-probability belongs to a token id: without ids they are noted, not learned from.
        extra["token_logprobs"] = logprobs
        logprobs = []
    return Answer(
        text=text,
        prompt_token_ids=get(result, "prompt_token_ids") or get(choice, "prompt_token_ids") or (),
        token_ids=token_ids,
        logprobs=logprobs,
        sampling=dict(said) if isinstance(said := get(result, "sampling"), Mapping) else None,
        model=get(result, "model"),
        adapter=adapter if isinstance(adapter := get(result, "adapter"), str) else None,
        extra={name: value for name, value in extra.items() if value != []},
    )


def _text_of(choice: object, notes: Notes) -> tuple[str, dict[str, Any]]:
    """The text of a choice, and what else its message says."""
    message = get(choice, "message")
    if message is None:
        return get(choice, "text") or "", {}
    extra = {name: said for name in _MESSAGE_NOTES if (said := get(message, name))}
    content, called = get(message, "content"), get(message, "tool_calls")
    called = called or get(message, "function_call")
    if isinstance(content, str) and (content or not (called or get(message, "refusal"))):
        return content, {**extra, "tool_calls": _wire(called)} if called else extra
    refusal = extra.pop("refusal", None)
    if content is None and isinstance(refusal, str):
        return refusal, {**extra, "response": "refusal"}
    extra["response"] = "tool_calls" if called else "json"
    return to_json(_wire(called or content), "response", notes) or "", extra


def _tokens_of(choice: object) -> tuple[Sequence[int], list[float]]:
    """Token ids of a choice and log-probabilities, each empty where the server gave none."""
    said = get(choice, "logprobs")
    entries = get(said, "content") or get(said, "refusal") or ()
    names = [get(entry, "token") for entry in entries] or get(said, "tokens") or []
    given = [get(entry, "logprob") for entry in entries] or get(said, "token_logprobs") or []
    logprobs = [math.nan if logprob is None else logprob for logprob in given]
    token_ids = get(choice, "token_ids")
    if not token_ids and all(isinstance(name, str) and name[:9] == _TOKEN_ID for name in names):
        numbers = [name[9:] for name in names]
        token_ids = [int(number) for number in numbers if number.isdecimal()]
    return token_ids or (), logprobs


def _read_response(result: object) -> Answer:
    output = get(result, "output")
    parts = [part for item in output for part in get(item, "content") or ()]
    text = "".join(get(part, "text") or "" for part in parts if _is(part, "output_text"))
    refusals = [get(part, "refusal") for part in parts if _is(part, "refusal")]
    called = [_wire(item) for item in output if str(get(item, "type")).endswith("_call")]
    extra: dict[str, Any] = {}
    if not text and (refusals or called):
        extra["response"] = "refusal" if refusals else "tool_calls"
        text = "".join(map(str, refusals)) or to_json(called, "response", {}) or ""
    elif called:
        extra["tool_calls"] = called
    logprobs = [get(entry, "logprob") for part in parts for entry in get(part, "logprobs") or ()]
    for name, value in (
        ("finish_reason", get(result, "incomplete_details", "reason") or get(result, "status")),
        ("usage", _wire(get(result, "usage"))),
        ("token_logprobs", logprobs or None),
    ):
        if value is not None:
            extra[name] = value
    limits = {
        "temperature": get(result, "temperature"),
        "top_p": get(result, "top_p"),
        "max_tokens": get(result, "max_output_tokens"),
    }
    sampling = {name: value for name, value in limits.items() if value is not None}
    return Answer(text=text, sampling=sampling or None, model=get(result, "model"), extra=extra)


def _is(part: object, kind: str) -> bool:
    return bool(get(part, "type") == kind)


def _wire(value: Any) -> Any:
    """The JSON of the client's objects, as it came over the wire."""
    if isinstance(value, list | tuple):
        return [_wire(item) for item in value]
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
