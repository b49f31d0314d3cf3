"""What the model was asked, as messages: found among the arguments of the wrapped function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from simtune.recording.conversion import Notes, to_json
from simtune.records import Message, Messages

_NAMES = ("messages", "prompt")
_SEQUENCES = (list, tuple)


def messages_of(prompt: object, notes: Notes) -> Messages:
    """A prompt as a new list of new messages, so that later changes to it do not show.

    Text becomes one user message; a list of messages is taken as it is; anything else becomes a
    user message that holds its JSON.
    """
    if type(prompt) is list:  # of dicts, nearly always: without a call for each
        copied = [item.copy() for item in prompt if type(item) is dict and "role" in item]
        if len(copied) == len(prompt):
            return copied
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if type(prompt) is not list and _is_message(prompt):
        return [_message(prompt)]
    if isinstance(prompt, _SEQUENCES):
        copied = [_message(item) for item in prompt if _is_message(item)]
        if len(copied) == len(prompt):
            return copied
    return [{"role": "user", "content": to_json(prompt, "prompt", notes) or ""}]


class PromptFinder:
    """Finds the prompt in the arguments of one function.

    A parameter called `messages` or `prompt` holds it; else the first argument does where it is
    text or messages; else all arguments together, as JSON, are the prompt.

    Args:
        function: the function that asks the model.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = _signature(function)
        names = list(self._signature.parameters) if self._signature else []
        self._first = 1 if names[:1] in (["self"], ["cls"]) else 0
        self._positions = [(name, names.index(name) if name in names else None) for name in _NAMES]
        self._named_at = next((at for _, at in self._positions if at is not None), len(names))

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any], notes: Notes) -> Messages:
        """The messages of one call; conversions are added to `notes`."""
        if not kwargs and self._named_at < len(args):
            return messages_of(args[self._named_at], notes)
        for name, position in self._positions:
            if name in kwargs:
                return messages_of(kwargs[name], notes)
            if position is not None and position < len(args):
                return messages_of(args[position], notes)
        first = args[self._first] if len(args) > self._first else next(iter(kwargs.values()), None)
        if isinstance(first, str) or _are_messages(first):
            return messages_of(first, notes)
        content = to_json(self._named(args, kwargs), "arguments", notes) or ""
        return [{"role": "user", "content": content}]

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        args = args[self._first :]
        names = list(self._signature.parameters)[self._first :] if self._signature else []
        named = dict(zip(names, args, strict=False))
        named.update({str(i): value for i, value in enumerate(args) if i >= len(names)})
        return {**named, **kwargs}


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # built in C, without a signature
        return None


def _are_messages(value: object) -> bool:
    if isinstance(value, _SEQUENCES):
        return bool(value) and all(_is_message(item) for item in value)
    return _is_message(value)


def _is_message(value: object) -> bool:
    if type(value) is dict:
        return "role" in value
    if isinstance(value, Mapping):
        return "role" in value
    return hasattr(value, "role") and hasattr(value, "content")


def _message(value: Any) -> Message:
    if type(value) is dict:
        return value.copy()
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):  # the message objects of the OpenAI client
        return {key: item for key, item in value.model_dump().items() if item is not None}
    named = {name: getattr(value, name, None) for name in ("name", "tool_calls", "tool_call_id")}
    kept = {name: item for name, item in named.items() if item is not None}
    return {"role": value.role, "content": value.content, **kept}
