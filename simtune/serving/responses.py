"""Responses, and the end of those that are streams."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from simtune.serving.refusals import Refusal


class Events(StreamingResponse):
    """A stream of events; `ended` is called however it ends, also where it never began."""

    def __init__(
        self, events: AsyncIterator[bytes], headers: dict[str, str], ended: Callable[[], None]
    ) -> None:
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def gone(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refused(refusal: Refusal) -> Response:
    """A refusal in OpenAI's shape."""
    return Response(
        refusal.body(),
        status_code=refusal.status,
        headers=refusal.headers,
        media_type="application/json",
    )


def json_response(body: Any) -> Response:
    """A body as JSON."""
    return Response(msgspec.json.encode(body), media_type="application/json")


def model_entry(name: str, adapter: str | None) -> dict[str, Any]:
    """A model as OpenAI lists it, with its content hash."""
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "simtune",
        "adapter": adapter,
    }
