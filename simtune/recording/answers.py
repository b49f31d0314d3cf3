"""What a policy answered, read from whatever the wrapped function returned.

A `simtune.Reply` carries everything. An OpenAI chat completion (an object or its JSON; vLLM's
token ids included) and the chunks of a stream are recognised by their shape, so that no client
library is imported. Any other value is kept as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from simtune.recording.conversion import Notes, to_json
from simtune.reply import Reply


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


def read_answer(result: object, notes: Notes) -> Answer:
    """Find the text and what training needs in a result; conversions are added to `notes`."""
    if isinstance(result, Reply):
        return Answer(
            text=str(result),
            prompt_token_ids=result.prompt_token_ids,
            token_ids=result.token_ids,
            logprobs=result.logprobs,
            sampling=result.sampling,
            model=result.model,
            adapter=result.adapter,
            choices=result.choices,
            choice_logprobs=result.choice_logprobs,
        )
    if isinstance(result, str):
        return Answer(text=result)
    choice = _first_choice(result)
    message = _get(choice, "message")
    if message is not None:
        return _read_completion(result, choice, message, notes)
    return Answer(
        text=to_json(result, "response", notes) or "",
        extra={} if result is None else {"response": "json"},
    )


def join_chunks(chunks: Sequence[object]) -> object:
    """The whole answer of a stream: text where every chunk is text, else the list of chunks."""
    texts = [chunk if isinstance(chunk, str) else _delta(chunk) for chunk in chunks]
    if len(texts) == 1 and isinstance(chunks[0], Reply):
        return chunks[0]
    if any(text is None for text in texts):
        return list(chunks)
    return "".join(text for text in texts if text is not None)


def _read_completion(result: object, choice: object, message: object, notes: Notes) -> Answer:
    extra: dict[str, Any] = {}
    content = _get(message, "content")
    if not isinstance(content, str):
        called = _get(message, "tool_calls")
        extra["response"] = "tool_calls" if called else "json"
        content = to_json(called or content, "response", notes) or ""
    token_ids = _get(choice, "token_ids") or ()
    logprobs = [_get(token, "logprob") for token in _get(choice, "logprobs", "content") or ()]
    if len(logprobs) != len(token_ids):
        if logprobs:
            extra["token_logprobs"] = logprobs
        logprobs = []
    for name, value in (
        ("finish_reason", _get(choice, "finish_reason")),
        ("usage", _get(result, "usage")),
    ):
        if value is not None:
            extra[name] = value
    return Answer(
        text=content,
        prompt_token_ids=_get(result, "prompt_token_ids") or (),
        token_ids=token_ids,
        logprobs=logprobs,
        model=_get(result, "model"),
        extra=extra,
    )


def _delta(chunk: object) -> str | None:
    """The text of one chunk of an OpenAI stream; the last ones have none."""
    if _get(chunk, "choices") == []:
        return ""
    delta = _get(_first_choice(chunk), "delta")
    if delta is None:
        return None
    content = _get(delta, "content")
    return content if isinstance(content, str) else ""


def _first_choice(result: object) -> object:
    choices = _get(result, "choices")
    return choices[0] if isinstance(choices, list | tuple) and choices else None


def _get(value: object, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value
