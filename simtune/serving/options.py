"""What `simtune serve` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from simtune.errors import OptionError

EngineName: TypeAlias = Literal["transformers", "vllm"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeOptions(msgspec.Struct, kw_only=True, frozen=True):
    """The options of `simtune serve`.

    Attributes:
        llm_path: base model directory.
        adapter: adapters that are loaded at the start: ids of the registry, or directories.
        models_dir: the registry.
        host: address that is listened on.
        port: 0 takes a free one.
        api_key: keys of which a request must bring one; none: anybody may ask.
        capture: store that every answer is captured into; None: none is.
        engine: who computes.
        max_concurrency: answers that are in work at a time; more are refused with 429.
        max_request_bytes: size of the largest request.
        max_tokens: longest answer where the request does not say.
        max_adapters: adapters that stay loaded.
        cache_bytes: keys and values of each adapter's cache.
        timeout: seconds that an answer may take.
        poll: seconds between looks at the registry.
    """

    llm_path: str
    adapter: Sequence[str] = ()
    models_dir: str = "./models"
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: Sequence[str] = ()
    capture: str | None = None
    engine: EngineName = "transformers"
    max_concurrency: int = 64
    max_request_bytes: int = 4 * 2**20
    max_tokens: int = 256
    max_adapters: int = 8
    cache_bytes: int = 2**31
    timeout: float = 120.0
    poll: float = 0.5

    def check(self) -> None:
        """Refuse what cannot be served, before a model is loaded.

        Raises:
            OptionError: a value is out of range, or anybody on the network could ask.
        """
        limits = {
            "--max-concurrency": self.max_concurrency,
            "--max-request-bytes": self.max_request_bytes,
            "--max-tokens": self.max_tokens,
            "--max-adapters": self.max_adapters,
            "--cache-bytes": self.cache_bytes,
            "--timeout": self.timeout,
            "--poll": self.poll,
        }
        for name, value in limits.items():
            if value <= 0:
                raise OptionError(f"{name} is above 0", got=value)
        if not 0 <= self.port < 65536:
            raise OptionError("no such port", expected="--port 0 to 65535", got=self.port)
        if self.host not in LOOPBACK and not self.api_key:
            raise OptionError(
                f"{self.host} can be reached from other machines, and anybody could ask",
                expected="an API key beyond loopback",
                fix="--api-key KEY, or SIMTUNE_API_KEY=KEY",
            )
