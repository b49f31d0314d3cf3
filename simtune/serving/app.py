"""The routes of the server."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from simtune.errors import SimtuneError
from simtune.serving.answering import Answering
from simtune.serving.asks import Ask, Wanted
from simtune.serving.capturing import (
    Begun,
    Capture,
    Finished,
    Rewarded,
    Turn,
    checked_id,
    turn_of,
)
from simtune.serving.engine import Engine
from simtune.serving.metrics import Metrics
from simtune.serving.models import Models, Served, UnknownModelError
from simtune.serving.options import ServeOptions
from simtune.serving.prompts import Prompts
from simtune.serving.refusals import Refusal, unusable
from simtune.serving.replies import Form
from simtune.serving.requests import Asked, ChatAsked, TextAsked, check, parse
from simtune.serving.responses import Events, gone, json_response, model_entry, refused
from simtune.serving.tokens import TokenTexts

EPISODE = "x-simtune-episode"
ADAPTER = "x-simtune-adapter"
MODEL = "x-simtune-model"
DECISION = "x-simtune-decision"
BODY_SECONDS = 30.0

T = TypeVar("T")
Work = Callable[[Request], Awaitable[Response]]


class Wakened(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/simtune/adapters`."""

    model: str


class Front:
    """Everything between HTTP and the engine; its methods run on the event loop's thread."""

    def __init__(
        self,
        options: ServeOptions,
        models: Models,
        engine: Engine,
        prompts: Prompts,
        tokenizer: Any,
        capture: Capture | None,
    ) -> None:
        self.options = options
        self.models = models
        self.engine = engine
        self.capture = capture
        self.metrics = Metrics()
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._tokens = TokenTexts(tokenizer)
        self._keys = [key.encode() for key in options.api_key]

    def app(self) -> Starlette:
        """The ASGI application."""
        routes: list[tuple[str, str, Work]] = [
            ("POST", "/v1/chat/completions", self.chat),
            ("POST", "/v1/completions", self.text),
            ("GET", "/v1/models", self.list_models),
            ("GET", "/v1/models/{model:path}", self.show_model),
            ("POST", "/v1/simtune/adapters", self.load_adapter),
            ("POST", "/v1/simtune/episodes", self.begin),
            ("POST", "/v1/simtune/episodes/{episode}/reward", self.reward),
            ("POST", "/v1/simtune/episodes/{episode}/finish", self.finish),
            ("GET", "/health", self.health),
            ("GET", "/metrics", self.show_metrics),
        ]
        return Starlette(
            routes=[
                Route(path, self._guarded(path, work), methods=[method])
                for method, path, work in routes
            ],
            exception_handlers={HTTPException: _no_route},
        )

    # Completions

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        asked = parse(await self._body(request), ChatAsked)
        check(asked)
        turn = turn_of(request.headers.get(EPISODE), asked.metadata)
        served = await self._served(asked.model)
        prompt = self._prompts.chat(asked.messages, turn.episode)
        if asked.max_completion_tokens is not None:
            asked.max_tokens = asked.max_completion_tokens
        return await self._answer(request, asked, served, [prompt], turn, asked.messages)

    async def text(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        asked = parse(await self._body(request), TextAsked)
        check(asked)
        turn = turn_of(request.headers.get(EPISODE), asked.metadata)
        served = await self._served(asked.model)
        prompts = self._prompts.texts(asked)
        if self.capture is not None and len(prompts) > 1:
            raise unusable("a captured request has one prompt: it is one decision", "prompt")
        said = self._tokenizer.decode(prompts[0], skip_special_tokens=False)
        return await self._answer(request, asked, served, prompts, turn, said)

    async def _answer(
        self,
        request: Request,
        asked: Asked,
        served: Served,
        prompts: Sequence[list[int]],
        turn: Turn,
        said: Any,
    ) -> Response:
        if self.capture is None and (turn.episode or turn.env or turn.agent or turn.run_id):
            raise _no_capture()
        if self.capture is not None:
            self.capture.check(turn)
        form = Form(asked, served, self._tokenizer, self._tokens)
        count = asked.n or 1
        with self._take_places(count * len(prompts)) as places:
            asks = [self._ask(asked, form, ids, at) for ids in prompts for at in range(count)]
            answering = Answering(
                asked,
                served,
                form,
                asks,
                said=said,
                turn=turn,
                capture=self.capture,
                model=self.options.llm_path,
                timeout=self.options.timeout,
                metrics=self.metrics,
            )
            for ask in asks:
                self.engine.submit(served.lane, ask)
            headers = {ADAPTER: served.adapter or "base", MODEL: served.id}
            if asked.stream:
                return self._stream(answering, headers, asked, turn, places.pop_all())
            body, decided = await answering.whole(lambda: gone(request))
            if decided is not None:
                headers |= {EPISODE: decided.episode, DECISION: decided.decision}
            self._remember(answering, asked, turn, form)
            return Response(body, headers=headers, media_type="application/json")

    def _stream(
        self,
        answering: Answering,
        headers: dict[str, str],
        asked: Asked,
        turn: Turn,
        places: ExitStack,
    ) -> Response:
        async def events() -> AsyncIterator[bytes]:
            async for piece in answering.pieces():
                yield piece
            self._remember(answering, asked, turn, answering.form)

        def ended() -> None:
            answering.close()
            places.close()

        if turn.episode is not None:
            headers[EPISODE] = turn.episode
        return Events(events(), headers, ended)

    def _remember(self, answering: Answering, asked: Asked, turn: Turn, form: Form) -> None:
        """Keep the tokens of answers, for chats that go on from them."""
        if isinstance(asked, ChatAsked):
            for ask in answering.asks:
                if ask.finish in ("stop", "length"):
                    self._prompts.conversations.remember(
                        asked.messages, form.text(ask), ask.prompt, ask.token_ids, turn.episode
                    )

    def _ask(self, asked: Asked, form: Form, prompt: list[int], at: int) -> Ask:
        options = None if asked.choices is None else self._prompts.options(asked.choices)
        if options is None:
            room = self._prompts.room(prompt, asked.max_tokens, self.options.max_tokens)
        else:
            room = self._prompts.room(prompt, sum(map(len, options)), 0)
        wanted = Wanted(
            max_tokens=room,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            seed=None if asked.seed is None else asked.seed + at,
            alternatives=asked.alternatives(),
            options=options,
            length_normalised=asked.length_normalised,
        )
        return Ask(prompt, wanted, text=form.follows(asked.stops()), streams=bool(asked.stream))

    def _take_places(self, count: int) -> ExitStack:
        """See `Metrics.in_work`; refused where there are too many already."""
        limit = self.options.max_concurrency
        if self.metrics.in_flight + count > limit:
            raise Refusal(
                429,
                f"{self.metrics.in_flight} answers are in work, {limit} is the limit; try again",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        return self.metrics.in_work(count)

    async def _served(self, name: str) -> Served:
        try:
            served = self.models.ready(name)
            if served is None:
                served = await asyncio.to_thread(self.models.load, name)
        except UnknownModelError as error:
            raise Refusal(404, str(error), code="model_not_found", param="model") from error
        except SimtuneError as error:
            raise Refusal(400, str(error), code="model_unusable", param="model") from error
        return served

    # Models

    async def list_models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        names = self.models.names()
        return json_response(
            {"object": "list", "data": [model_entry(*each) for each in names.items()]}
        )

    async def show_model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        name = request.path_params["model"]
        names = self.models.names()
        if name not in names:
            raise Refusal(404, f"no model {name!r}", code="model_not_found", param="model")
        return json_response(model_entry(name, names[name]))

    async def load_adapter(self, request: Request) -> Response:
        """`POST /v1/simtune/adapters`: look at the registry now, and load a model of it."""
        asked = parse(await self._body(request), Wakened)
        await asyncio.to_thread(self.models.follow)
        served = await self._served(asked.model)
        return json_response({"model": served.id, "adapter": served.adapter})

    # Episodes

    async def begin(self, request: Request) -> Response:
        """`POST /v1/simtune/episodes`."""
        capture = self._capturing()
        said = parse(await self._body(request), Begun)
        return json_response({"episode": await _done(capture, capture.begin, said)})

    async def reward(self, request: Request) -> Response:
        """`POST /v1/simtune/episodes/{id}/reward`."""
        capture = self._capturing()
        said = parse(await self._body(request), Rewarded)
        await _done(capture, capture.reward, checked_id(request.path_params["episode"]), said)
        return json_response({"ok": True})

    async def finish(self, request: Request) -> Response:
        """`POST /v1/simtune/episodes/{id}/finish`."""
        capture = self._capturing()
        said = parse(await self._body(request), Finished)
        await _done(capture, capture.finish, checked_id(request.path_params["episode"]), said)
        return json_response({"ok": True})

    def _capturing(self) -> Capture:
        if self.capture is None:
            raise _no_capture()
        return self.capture

    # The server itself

    async def health(self, request: Request) -> Response:
        """`GET /health`."""
        if not self.engine.alive:
            raise Refusal(503, "the engine has stopped", code="engine_stopped")
        return json_response({"status": "ok"})

    async def show_metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        gauges = {
            "in_flight": ("Answers in work.", float(self.metrics.in_flight)),
            "waiting": ("Answers that wait for a place.", float(self.engine.waiting)),
            "adapters_loaded": ("Adapters that are loaded.", float(len(self.models.loaded))),
            "adapter_swaps": ("Moves of champion and latest.", float(self.models.swaps)),
            "cache_bytes": ("Keys and values.", float(self.models.cache_bytes())),
        }
        if self.capture is not None:
            open_now = float(self.capture.open_episodes)
            gauges["open_episodes"] = ("Episodes begun and not finished.", open_now)
        text = self.metrics.text(gauges)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _body(self, request: Request) -> bytes:
        limit = self.options.max_request_bytes
        too_large = Refusal(413, f"a request has at most {limit} bytes", code="request_too_large")
        said = request.headers.get("content-length", "0")
        if said.isdigit() and int(said) > limit:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        raise too_large
        except TimeoutError as error:
            raise Refusal(408, "the request did not come whole", code="timeout") from error
        return b"".join(parts)

    def _guarded(self, path: str, work: Work) -> Work:
        """A route: who may ask, and refusals in OpenAI's shape; everything is counted."""

        async def route(request: Request) -> Response:
            try:
                if path != "/health":
                    self._authorise(request)
                response = await work(request)
            except Refusal as refusal:
                response = refused(refusal)
            except ClientDisconnect:
                response = Response(status_code=499)
            self.metrics.requests[path, response.status_code] += 1
            return response

        return route

    def _authorise(self, request: Request) -> None:
        if not self._keys:
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = key.strip().encode()
        if kind.lower() != "bearer" or not any(hmac.compare_digest(given, k) for k in self._keys):
            raise Refusal(
                401,
                "an API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


async def _done(capture: Capture, work: Callable[..., T], *said: Any) -> T:
    return await asyncio.wrap_future(capture.submit(partial(work, *said)))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}: {error.detail}"
    return refused(Refusal(error.status_code, what, code="no_route"))


def _no_capture() -> Refusal:
    return Refusal(
        400,
        "this server captures nothing, so there are no episodes; start it with --capture ROOT",
        code="capture_off",
    )
