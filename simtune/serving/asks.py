"""One answer that is wanted of a model, and what has been sampled of it so far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from simtune.policy.choices import Options
from simtune.policy.rows import packed

if TYPE_CHECKING:
    from simtune.serving.texts import TextSoFar

Finish: TypeAlias = Literal["stop", "length", "cancelled", "failed"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is drawn.

    Attributes:
        max_tokens: longest answer.
        temperature: divides the logits; 0 takes the most probable token each time, and gives
            log-probabilities at temperature 1.
        seed: the same seed draws the same answer, whoever asks beside it; None: any.
        alternatives: how many of the most probable tokens are told at each place.
        options: token ids of the named options to choose among; None: write an answer.
        length_normalised: options are scored by the mean over their tokens.
    """

    max_tokens: int
    temperature: float = 1.0
    seed: int | None = None
    alternatives: int = 0
    options: Options | None = None
    length_normalised: bool = False


class Ask:
    """A prompt on its way through a lane; filled by the engine's thread, read by the front.

    The lists only grow, `alternatives` last: its length is how many tokens can be read.

    Args:
        prompt: token ids, `[prompt_len]`.
        wanted: how the answer is drawn.
        text: decodes on the way, where stop texts or a stream need it.
        streams: the front wants to know of each token; else of the end only.
        notify: whom the front wakes when something is new.

    Attributes:
        token_ids: sampled ids, or those of the option that was taken.
        logprobs: of each sampled id under the sampling distribution; none for an option.
        alternatives: (id, log-probability) of the most probable tokens at each place.
        choice_logprobs: log-probability of every option.
        chosen: which option was taken.
        finish: why the answer ended; None while it has not.
        error: what failed, where `finish` says so.
        cancelled: nobody waits for it any more; the front sets it.
        reused: tokens of the prompt that were not computed again.
    """

    def __init__(
        self,
        prompt: list[int],
        wanted: Wanted,
        *,
        text: TextSoFar | None = None,
        streams: bool = False,
        notify: Any = None,
    ) -> None:
        self.prompt = prompt
        self.wanted = wanted
        self.text = text
        self.streams = streams
        self.notify = notify
        self.packed = packed(prompt)
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.alternatives: list[list[tuple[int, float]]] = []
        self.choice_logprobs: list[float] = []
        self.chosen = 0
        self.finish: Finish | None = None
        self.error = ""
        self.cancelled = False
        self.reused = 0
        self.row = -1
        self.computed = 0
        self.generator: Any = None
        self.began = time.perf_counter()
        self.first_token_s: float | None = None

    def take(
        self, token: int, logprob: float, others: list[tuple[int, float]], ends: frozenset[int]
    ) -> None:
        """A token was drawn; notes where that ends the answer."""
        if self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self.began
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        stopped = self.text is not None and self.text.add(token)
        if token in ends or stopped:
            self.finish = "stop"
        elif len(self.token_ids) >= self.wanted.max_tokens:
            self.finish = "length"
        self.alternatives.append(others)

    def choose(self, option: int, logprobs: list[float]) -> None:
        """An option was taken."""
        assert self.wanted.options is not None
        self.first_token_s = time.perf_counter() - self.began
        self.chosen, self.choice_logprobs = option, logprobs
        self.token_ids = list(self.wanted.options[option])
        self.finish = "stop"

    def fail(self, error: str) -> None:
        """The answer cannot be finished."""
        self.finish, self.error = "failed", error
