"""Starts a server and stops it in order: answers in flight first, then what was captured."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn

from simtune.errors import OptionError
from simtune.policy.local import load_base, stop_ids
from simtune.policy.slots import fits
from simtune.serving.app import Front
from simtune.serving.asks import Ask
from simtune.serving.capturing import Capture
from simtune.serving.engine import Engine
from simtune.serving.lane import Lane
from simtune.serving.models import Models
from simtune.serving.options import ServeOptions
from simtune.serving.prompts import Prompts

SWITCH_SECONDS = 0.0005
"""How long a Python thread runs on while another waits: the event loop beside the engine."""


def serve(options: ServeOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted or terminated.

    Args:
        options: checked.
        on_ready: called with the server's address once it listens.

    Raises:
        SimtuneError: a model cannot be loaded.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    loop_holder: list[asyncio.AbstractEventLoop] = []

    def wake(news: Sequence[Ask]) -> None:
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            loop_holder[0].call_soon_threadsafe(_deliver, news)

    front = build(options, Engine(wake))
    server = _Server(
        uvicorn.Config(
            front.app(),
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(options.timeout) + 1,
        ),
        on_ready,
    )
    # After uvicorn has ended in order it raises the signal once more; that is the end then.
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM,)}
    try:
        asyncio.run(_run(server, front, loop_holder))
    except KeyboardInterrupt:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        front.engine.stop()
        if front.capture is not None:
            front.capture.close()


def build(options: ServeOptions, engine: Engine) -> Front:
    """Load the base model and the adapters, and put the server together.

    Raises:
        SimtuneError: one of them cannot be loaded, or cannot be served.
    """
    options.check()
    model, tokenizer = load_base(options.llm_path)
    if not fits(model):
        raise OptionError(
            f"{options.llm_path!r} cannot be served by this engine",
            expected="a model whose layers are all full attention, on SDPA or eager attention",
            fix="--engine vllm",
        )
    model.requires_grad_(False)
    ends = frozenset(stop_ids(model, tokenizer))
    config = model.config.get_text_config(decoder=True)

    def lane_of(weights: Any, adapter: str | None) -> Lane:
        return Lane(
            weights,
            adapter=adapter,
            ends=ends,
            pad_id=tokenizer.pad_token_id or 0,
            limit=options.max_concurrency,
            budget=options.cache_bytes,
        )

    models = Models(
        base_name=Path(options.llm_path).name,
        base_path=options.llm_path,
        base=model,
        lane_of=lane_of,
        models_dir=options.models_dir,
        keep=options.max_adapters,
    )
    models.follow()
    for name in options.adapter:
        models.hold(name)
    context = config.max_position_embeddings
    prompts = Prompts(tokenizer, ends, context=context, vocabulary=config.vocab_size)
    capture = None if options.capture is None else Capture(os.fspath(options.capture))
    return Front(options, models, engine, prompts, tokenizer, capture)


async def _run(
    server: uvicorn.Server, front: Front, loop_holder: list[asyncio.AbstractEventLoop]
) -> None:
    loop_holder.append(asyncio.get_running_loop())
    front.engine.start()
    follows = asyncio.ensure_future(_follow(front))
    try:
        await server.serve()
    finally:
        follows.cancel()


async def _follow(front: Front) -> None:
    """Keep `champion` and `latest` where the registry has them."""
    while True:
        await asyncio.sleep(front.options.poll)
        if front.models.changed():
            await asyncio.to_thread(front.models.follow)


def _deliver(news: Sequence[Ask]) -> None:
    for ask in news:
        ask.notify.set()


class _Server(uvicorn.Server):
    """Says where it listens: with port 0 that is known late."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: Any = None) -> None:
        """As uvicorn's, then say so."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            self._on_ready(f"http://{host}:{port}")
