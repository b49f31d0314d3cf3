"""One request on its way: its answers are asked for, waited for, and captured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from simtune.records import Messages
from simtune.reply import Reply
from simtune.serving.asks import Ask
from simtune.serving.capturing import Capture, Decided, Turn
from simtune.serving.metrics import Metrics
from simtune.serving.models import Served
from simtune.serving.refusals import Refusal
from simtune.serving.replies import Form
from simtune.serving.requests import Asked

DONE = b"data: [DONE]\n\n"


class Answering:
    """The answers of one request.

    Args:
        asked: the request.
        served: what answers, to the end.
        form: writes the response.
        asks: the answers, not yet submitted.
        said: the chat, or the prompt as text.
        turn: the decision that it is.
        capture: where it is captured; None: nowhere.
        model: name of the base model, for the record.
        timeout: seconds until an answer is given up.
        metrics: counts it.
    """

    def __init__(
        self,
        asked: Asked,
        served: Served,
        form: Form,
        asks: Sequence[Ask],
        *,
        said: Messages | str,
        turn: Turn,
        capture: Capture | None,
        model: str,
        timeout: float,
        metrics: Metrics,
    ) -> None:
        self.asks = asks
        self._asked = asked
        self._served = served
        self.form = form
        self._said = said
        self._turn = turn
        self._capture = capture
        self._model = model
        self._timeout = timeout
        self._metrics = metrics
        self._news = asyncio.Event()
        self._began = time.perf_counter()
        self._closed = False
        for ask in asks:
            ask.notify = self._news

    @property
    def ended(self) -> bool:
        """Whether every answer is there."""
        return all(ask.finish is not None for ask in self.asks)

    async def whole(self, gone: Callable[[], Awaitable[None]]) -> tuple[bytes, Decided | None]:
        """Wait for the answers; the body, and the captured decision.

        Args:
            gone: returns when the client has gone.

        Raises:
            Refusal: the time is up, the client has gone, or the model failed.
        """
        waits = asyncio.ensure_future(self._all())
        leaves = asyncio.ensure_future(gone())
        try:
            await asyncio.wait(
                {waits, leaves}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not waits.done():
                if leaves.done():
                    raise Refusal(499, "the client has gone", code="client_closed_request")
                raise await self._too_late()
            self._check()
            texts = [self.form.text(ask) for ask in self.asks]
            decided = await self._decide(texts)
            return msgspec.json.encode(self.form.whole(self.asks, texts, _ids(decided))), decided
        finally:
            waits.cancel()
            leaves.cancel()
            self.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The answers as events, as they come."""
        read = [0] * len(self.asks)
        shown = [""] * len(self.asks)
        told = [False] * len(self.asks)
        try:
            yield _event(self.form.opening(self.asks))
            async with asyncio.timeout(max(0.0, self._began + self._timeout - time.perf_counter())):
                while not all(told):
                    await self._news.wait()
                    self._news.clear()
                    self._check()
                    chunks = []
                    for at, ask in enumerate(self.asks):
                        if not told[at]:
                            chunks += self._new(at, ask, read, shown)
                            told[at] = ask.finish is not None
                    if chunks:
                        yield b"".join(chunks)
            decided = await self._decide(shown)
            for at, ask in enumerate(self.asks):
                yield _event(self.form.ending(at, ask, _ids(decided)))
            if self._asked.wants_usage():
                yield _event(self.form.count(self.asks))
        except TimeoutError:
            yield b"data: " + (await self._too_late()).body() + b"\n\n"
        except Refusal as refusal:
            yield b"data: " + refusal.body() + b"\n\n"
        finally:
            left_early = not self.ended
            self.close()
            if left_early and self._capture is not None and any(shown):
                # The consumer had enough: the answer is what it took.
                self._capture.submit(self._decision(shown, closed_early=True))
        yield DONE

    def close(self) -> None:
        """Stop what nobody waits for any more, and count; once."""
        if self._closed:
            return
        self._closed = True
        for ask in self.asks:
            if ask.finish is None:
                ask.cancelled = True
        self._count()

    def _new(self, at: int, ask: Ask, read: list[int], shown: list[str]) -> list[bytes]:
        """What is new of an answer, as events."""
        ended = ask.finish is not None
        end = len(ask.token_ids) if ended else len(ask.alternatives)
        assert ask.text is not None
        if ask.choice_logprobs:
            text = self.form.text(ask)
        else:
            text = ask.text.rest(ask.token_ids) if ended else ask.text.news()
        begin, read[at] = read[at], end
        tokens_told = self._asked.return_token_ids or self._asked.tells_logprobs()
        if not text and not (tokens_told and end > begin):
            return []
        offset = len(shown[at])
        shown[at] += text
        return [_event(self.form.piece(at, ask, text, begin, end, offset))]

    async def _all(self) -> None:
        while not self.ended:
            await self._news.wait()
            self._news.clear()

    def _check(self) -> None:
        for ask in self.asks:
            if ask.finish == "failed":
                raise Refusal(500, f"the model could not answer: {ask.error}", code="engine_error")

    async def _too_late(self) -> Refusal:
        error = f"TimeoutError: no whole answer after {self._timeout:g} s"
        if self._capture is not None:
            await self._decide([self.form.text(ask) for ask in self.asks], error=error)
        return Refusal(504, f"no whole answer after {self._timeout:g} s", code="timeout")

    async def _decide(self, texts: Sequence[str], error: str | None = None) -> Decided | None:
        if self._capture is None:
            return None
        return await asyncio.wrap_future(self._capture.submit(self._decision(texts, error=error)))

    def _decision(
        self, texts: Sequence[str], *, error: str | None = None, closed_early: bool = False
    ) -> Callable[[], Decided]:
        """The first answer as a decision, as in every capture; the others are noted."""
        assert self._capture is not None
        ask = self.asks[0]
        extra: dict[str, Any] = {"request": self.form.id, "served": self._served.id}
        if ask.finish is not None:
            extra["finish_reason"] = ask.finish
        if self._asked.user is not None:
            extra["user"] = self._asked.user
        if texts[1:]:
            extra["other_choices"] = list(texts[1:])
        if closed_early:
            extra["closed_early"] = True
        return partial(
            self._capture.decide,
            self._turn,
            self._said,
            self._reply(ask, texts[0]),
            latency_us=int(1e6 * (time.perf_counter() - self._began)),
            extra=extra,
            error=error,
        )

    def _reply(self, ask: Ask, text: str) -> Reply:
        wanted, count = ask.wanted, len(ask.alternatives)
        sampling = self.form.sampling(ask)
        if wanted.options is not None and ask.choice_logprobs:
            return Reply(
                text,
                prompt_token_ids=ask.prompt,
                token_ids=ask.token_ids,
                choices=self._asked.choices or (),
                choice_logprobs=ask.choice_logprobs,
                sampling=sampling,
                model=self._model,
                adapter=self._served.adapter,
            )
        return Reply(
            text,
            prompt_token_ids=ask.prompt,
            token_ids=ask.token_ids[:count],
            logprobs=ask.logprobs[:count],
            sampling=sampling,
            model=self._model,
            adapter=self._served.adapter,
        )

    def _count(self) -> None:
        for ask in self.asks:
            self._metrics.answers[self._served.adapter or "base", ask.finish or "cancelled"] += 1
            self._metrics.prompt_tokens += len(ask.prompt)
            self._metrics.reused_tokens += ask.reused
            self._metrics.sampled_tokens += len(ask.alternatives)
            if ask.first_token_s is not None:
                self._metrics.first_token.add(ask.first_token_s)
        self._metrics.duration.add(time.perf_counter() - self._began)


def _event(body: Any) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _ids(decided: Decided | None) -> dict[str, str]:
    if decided is None:
        return {}
    return {"episode": decided.episode, "decision": decided.decision}
