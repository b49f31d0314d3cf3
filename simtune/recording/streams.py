"""The whole answer of a stream, from the chunks that were consumed of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from simtune.recording.completions import Answer, get, read_completion
from simtune.reply import Reply

_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class Streamed(str):
    """The text of a stream, and what else its chunks said."""

    __slots__ = ("answer",)
    answer: Answer


def join_chunks(chunks: Sequence[object]) -> object:
    """The whole answer of a stream: text where its chunks are text or OpenAI's, else a list."""
    if len(chunks) == 1 and isinstance(chunks[0], Reply):
        return chunks[0]
    texts = [chunk for chunk in chunks if isinstance(chunk, str)]
    if len(texts) == len(chunks):
        return "".join(texts)
    answer = None
    if all(_has_choices(chunk) for chunk in chunks):
        answer = _add_up(chunks)
    elif all(str(get(chunk, "type")).startswith("response.") for chunk in chunks):
        answer = _of_events(chunks)
    if answer is None:
        return list(chunks)
    streamed = Streamed(answer.text)
    streamed.answer = answer
    return streamed


def _has_choices(chunk: object) -> bool:
    choices = get(chunk, "choices")
    if not isinstance(choices, list | tuple):
        return False
    return all(_is_delta(choice) for choice in choices)


def _is_delta(choice: object) -> bool:
    return get(choice, "delta") is not None or isinstance(get(choice, "text"), str)


def _add_up(chunks: Iterable[object]) -> Answer | None:
    """The completion that would have come in one piece."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for name in ("model", "adapter", "sampling", "usage", "prompt_token_ids"):
            if value := get(chunk, name):
                whole[name] = value
        for choice in get(chunk, "choices"):
            _add(choices.setdefault(get(choice, "index") or 0, {}), choice)
    if not choices:
        choices[0] = {"message": {"content": ""}}
    return read_completion({**whole, "choices": [choices[i] for i in sorted(choices)]}, {})


def _add(into: dict[str, Any], choice: object) -> None:
    for name in ("finish_reason", "prompt_token_ids"):
        if value := get(choice, name):
            into[name] = value
    _extend(into, "token_ids", get(choice, "token_ids"))
    for name in ("content", "refusal", "tokens", "token_logprobs"):
        _extend(into.setdefault("logprobs", {}), name, get(choice, "logprobs", name))
    delta = get(choice, "delta")
    if delta is None:
        into["text"] = into.get("text", "") + get(choice, "text")
        return
    message = into.setdefault("message", {"content": None})
    for name in ("content", "refusal", "reasoning", "reasoning_content"):
        if isinstance(piece := get(delta, name), str):
            message[name] = (message.get(name) or "") + piece
    for call in get(delta, "tool_calls") or ():
        _add_call(message.setdefault("tool_calls", []), call)


def _extend(into: dict[str, Any], name: str, more: Any) -> None:
    if more:
        into[name] = [*into.get(name, ()), *more]


def _add_call(calls: list[dict[str, Any]], delta: object) -> None:
    """Pieces of one call share its index, and only the first of them has its id and name."""
    index = get(delta, "index") or 0
    while len(calls) <= index:
        calls.append({"function": {"arguments": ""}})
    call = calls[index]
    for name in ("id", "type"):
        if value := get(delta, name):
            call[name] = value
    if name := get(delta, "function", "name"):
        call["function"]["name"] = name
    call["function"]["arguments"] += get(delta, "function", "arguments") or ""


def _of_events(events: Sequence[object]) -> Answer | None:
    """What the events of the Responses API say; the last one holds it all."""
    for event in reversed(events):
        if get(event, "type") in _RESPONSE_ENDS:
            return read_completion(get(event, "response"), {})
    deltas = [event for event in events if get(event, "type") == "response.output_text.delta"]
    text = "".join(get(event, "delta") for event in deltas)
    models = [get(event, "response", "model") for event in events]
    return Answer(text=text, model=next((model for model in models if model), None))
