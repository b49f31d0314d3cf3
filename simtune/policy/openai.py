"""A policy that answers through an OpenAI-compatible endpoint: simtune's, vLLM's, or any other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from simtune.errors import MissingExtraError, OptionError, PolicyError
from simtune.policy.local import Deciding
from simtune.records import Messages
from simtune.reply import Reply


class OpenAIPolicy:
    """Asks an endpoint, many prompts at a time, and returns `Reply` objects.

    simtune's server and vLLM tell token ids and log-probabilities; answers of other endpoints
    carry their text alone, and cannot be trained on by PPO.

    Args:
        base_url: of the endpoint, `http://127.0.0.1:8000/v1`.
        model: name of the model there.
        api_key: what the endpoint asks for.
        temperature: sampling temperature.
        max_new_tokens: longest answer, tokens.
        greedy: ask for temperature 0.
        seed: answer i of this policy is asked with `seed + i`; None: not seeded.
        stop: texts that end an answer.
        concurrency: requests that are in work at a time.
        timeout: seconds that one answer may take.
        retries: how often a request is asked again after 408, 409, 429, 5xx or a broken
            connection, at growing intervals or when the server says.
        token_ids: ask for token ids and log-probabilities; False for endpoints that refuse.
        decision: `choose` has the endpoint choose among named options; simtune's alone can.
        length_normalised: options are scored by the mean over their tokens.

    Raises:
        MissingExtraError: the `openai` package is not installed.
        OptionError: a value cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 16,
        greedy: bool = False,
        seed: int | None = None,
        stop: Sequence[str] = (),
        concurrency: int = 32,
        timeout: float = 120.0,
        retries: int = 5,
        token_ids: bool = True,
        decision: Deciding = "generate",
        length_normalised: bool = False,
    ) -> None:
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise MissingExtraError("OpenAIPolicy", package="openai", extra="openai") from error
        if concurrency < 1 or max_new_tokens < 1:
            raise OptionError("concurrency and max_new_tokens are at least 1")
        if decision not in ("generate", "choose"):
            raise OptionError(
                f"unknown way to decide {decision!r}", expected="generate | choose", got=decision
            )
        self.model = model
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.greedy = greedy
        self.seed = seed
        self.stop = tuple(stop)
        self.token_ids = token_ids
        self.decision = decision
        self.length_normalised = length_normalised
        self.base_url = base_url
        # Some clients refuse an empty key; servers without keys do not look at it.
        self._client = OpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout, max_retries=retries
        )
        self._asked = 0
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="simtune-openai")

    def act(
        self, prompts: Sequence[Messages], choices: Sequence[Sequence[str]] | None = None
    ) -> list[Reply]:
        """Answer each prompt, all at the same time.

        Args:
            prompts: chats.
            choices: the named options of each prompt; needed where `decision` is `choose`.

        Raises:
            PolicyError: the endpoint refuses, or cannot be reached.
            OptionError: there are no options to choose among.
        """
        options: list[Sequence[str] | None] = [None] * len(prompts)
        if self.decision == "choose":
            if choices is None or len(choices) != len(prompts):
                raise OptionError(
                    "the policy was asked to choose, but not given the options",
                    expected="act(prompts, choices=[[name, ...], ...])",
                )
            options = list(choices)
        seeds: list[int | None] = [None] * len(prompts)
        if self.seed is not None:
            seeds = [self.seed + self._asked + at for at in range(len(prompts))]
        self._asked += len(prompts)
        return list(self._threads.map(self._ask, prompts, options, seeds))

    def __call__(self, messages: Messages, choices: Sequence[str] | None = None) -> Reply:
        """Answer one prompt."""
        return self.act([messages], None if choices is None else [choices])[0]

    def close(self) -> None:
        """End the connections."""
        self._threads.shutdown()
        self._client.close()

    def _ask(self, messages: Messages, options: Sequence[str] | None, seed: int | None) -> Reply:
        from openai import APIError

        temperature = 0.0 if self.greedy else self.temperature
        asked: dict[str, Any] = {"temperature": temperature, "max_tokens": self.max_new_tokens}
        extra: dict[str, Any] = {}
        if self.token_ids:
            extra["return_token_ids"] = True
            asked["logprobs"] = True
        if options is not None:
            extra |= {"choices": list(options), "length_normalised": self.length_normalised}
        if seed is not None:
            asked["seed"] = seed
        if self.stop:
            asked["stop"] = list(self.stop)
        try:
            answer = self._client.chat.completions.create(
                model=self.model,
                messages=[_plain(message) for message in messages],
                extra_body=extra,
                **asked,
            )
        except APIError as error:
            raise PolicyError(
                f"{self.base_url} does not answer as {self.model!r}",
                got=error,
                fix="token_ids=False, if the endpoint knows no return_token_ids"
                if getattr(error, "status_code", None) == 400 and self.token_ids
                else None,
            ) from error
        kept = ("temperature", "max_tokens", "seed", "stop")
        sampling: dict[str, Any] = {name: asked[name] for name in kept if name in asked}
        return self._reply(answer, options, sampling)

    def _reply(self, answer: Any, options: Sequence[str] | None, sampling: dict[str, Any]) -> Reply:
        if not answer.choices:
            raise PolicyError(f"{self.base_url} gave an answer without choices", got=answer)
        choice = answer.choices[0]
        prompt = getattr(answer, "prompt_token_ids", None)
        prompt = prompt or getattr(choice, "prompt_token_ids", None) or ()
        ids = getattr(choice, "token_ids", None) or ()
        told = getattr(choice, "choice_logprobs", None) or ()
        if options is not None:
            if len(told) != len(options):
                raise PolicyError(
                    f"{self.base_url} does not choose among options",
                    expected="simtune serve",
                    fix='decision="generate"',
                )
            sampling = {
                "decision": "choose",
                "temperature": sampling["temperature"],
                "length_normalised": self.length_normalised,
                "choice_token_ids": getattr(choice, "choice_token_ids", None),
            }
        logprobs = [
            math.nan if entry.logprob is None else entry.logprob
            for entry in (choice.logprobs and choice.logprobs.content) or ()
        ]
        return Reply(
            choice.message.content or "",
            prompt_token_ids=prompt,
            token_ids=ids,
            # Without ids, or where they do not fit, there is nothing that they could belong to.
            logprobs=logprobs if len(logprobs) == len(ids) else (),
            sampling=sampling,
            model=answer.model,
            adapter=getattr(answer, "adapter", None),
            choices=options or (),
            choice_logprobs=told,
        )


def _plain(message: dict[str, Any]) -> Any:
    """A message without what endpoints do not know; a `Reply` is its text."""
    return {name: value for name, value in message.items() if value is not None}
