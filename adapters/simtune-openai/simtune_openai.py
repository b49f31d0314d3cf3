"""Captures what an OpenAI client asks and is answered: `simtune_openai.capture(client)`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import simtune
from simtune.errors import OptionError

__all__ = ["capture"]

Client = TypeVar("Client")

_RESOURCES = (("chat", "completions"), ("completions",), ("responses",))
_CAPTURED = "_simtune_captured"


def capture(
    client: Client,
    *,
    agent: str | None = None,
    action: str | None = None,
    parse: Callable[[Any], Any] | None = None,
    token_ids: bool = False,
) -> Client:
    """Capture the chat completions, completions and responses that this client creates.

    What `create` returns and raises stays as it is: whole answers, streams (what is consumed of
    them), and coroutines of `AsyncOpenAI`. A decision belongs to the current `simtune.episode`.

    Args:
        client: an `OpenAI` or `AsyncOpenAI` client, or one of its kind; changed in place.
        agent: who decides; the episode's agent by default.
        action: name of the decision point; the resource by default, as `chat.completions`.
        parse: turns an answer into the action, for the record only.
        token_ids: ask for token ids and log-probabilities, which training needs; for simtune's
            server and vLLM. Others refuse what they do not know.

    Returns:
        The same client.

    Raises:
        OptionError: it is no such client, or captured already.
    """
    if getattr(client, _CAPTURED, False):
        raise OptionError("this client is captured already", expected="one capture(client)")
    found = 0
    for path in _RESOURCES:
        resource: Any = client
        for name in path:
            resource = getattr(resource, name, None)
        create = getattr(resource, "create", None)
        if callable(create):
            found += 1
            point = simtune.capture(agent=agent, action=action or ".".join(path), parse=parse)(_ask)
            extra = _EXTRA[path] if token_ids else {}
            resource.create = _captured(create, point, extra)
    if not found:
        raise OptionError(
            "there is nothing to capture in this",
            expected="a client with chat.completions, completions or responses",
            got=type(client).__name__,
        )
    client.__dict__[_CAPTURED] = True
    return client


_EXTRA: dict[tuple[str, ...], dict[str, Any]] = {
    ("chat", "completions"): {"logprobs": True},
    ("completions",): {"logprobs": 0},
    ("responses",): {},
}
"""What makes each resource tell log-probabilities; responses have no token ids."""


def _ask(messages: Any, call: Callable[[], Any]) -> Any:
    """The decision point: what is captured is `messages`, and what `call` gives."""
    return call()


def _captured(
    create: Callable[..., Any], point: Callable[..., Any], extra: Mapping[str, Any]
) -> Callable[..., Any]:
    @functools.wraps(create)
    def captured(*args: Any, **kwargs: Any) -> Any:
        if extra:
            body = {"return_token_ids": True, **(kwargs.get("extra_body") or {})}
            kwargs = {**extra, **kwargs, "extra_body": body}
        return point(_prompt(kwargs), lambda: create(*args, **kwargs))

    return captured


def _prompt(asked: Mapping[str, Any]) -> Any:
    """The messages, the prompt, or the input with its instructions before it."""
    for name in ("messages", "prompt"):
        if name in asked:
            return asked[name]
    said = asked.get("input", "")
    if asked.get("instructions"):
        before = {"role": "system", "content": asked["instructions"]}
        return [before, *([{"role": "user", "content": said}] if isinstance(said, str) else said)]
    return said
