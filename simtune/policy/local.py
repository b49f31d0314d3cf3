"""A policy that answers with a model in this process: base weights, or base and LoRA adapter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from simtune.errors import MissingExtraError, OptionError
from simtune.policy.adapter_hash import saved_sha256
from simtune.policy.chats import ChatEncoder
from simtune.policy.generation import Settings
from simtune.policy.stopping import Stops
from simtune.records import Messages
from simtune.reply import Reply

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from simtune.policy.sampler import See

Deciding: TypeAlias = Literal["generate", "choose"]
"""`generate`: write an answer, token by token; `choose`: take one of the named options."""


class LocalPolicy:
    """Answers prompts in batches and returns `Reply` objects with token ids and log-probabilities.

    What was computed for a prompt is kept for the prompts that go on from it, until the weights
    change; see `Sampler`.

    Args:
        model: a causal language model, with or without PEFT layers.
        tokenizer: its tokenizer; the chat template comes from it.
        temperature: sampling temperature.
        max_new_tokens: longest answer, tokens.
        greedy: take the most probable token, or option, each time.
        seed: seed of the sampler.
        name: recorded as the base model with every decision.
        adapter: content hash of the adapter, recorded with every decision.
        decision: whether answers are generated, or chosen among the options that `act` is given.
        length_normalised: options are scored by the mean instead of the sum over their tokens.
        stop: texts that end an answer; the answer's text stops before them.

    Raises:
        OptionError: an unknown `decision`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 16,
        greedy: bool = False,
        seed: int = 0,
        name: str | None = None,
        adapter: str | None = None,
        decision: Deciding = "generate",
        length_normalised: bool = False,
        stop: Sequence[str] = (),
    ) -> None:
        import torch

        from simtune.policy.answering import Answering
        from simtune.policy.choices import OptionIds

        if decision not in ("generate", "choose"):
            raise OptionError(
                f"unknown way to decide {decision!r}", expected="generate | choose", got=decision
            )
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.greedy = greedy
        self.name = name
        self.adapter = adapter
        self.decision = decision
        self.length_normalised = length_normalised
        self.stop = tuple(stop)
        self.generator = torch.Generator(device=model.device).manual_seed(seed)
        self.pad_id: int = tokenizer.pad_token_id or 0
        self._eos_ids = frozenset(stop_ids(model, tokenizer))
        self.encode = ChatEncoder(tokenizer, self._eos_ids)
        self._option_ids = OptionIds(tokenizer)
        self._answering = Answering(model, self.pad_id)

    @classmethod
    def load(
        cls, model_dir: str | Path, adapter_dir: str | Path | None = None, **settings: Any
    ) -> LocalPolicy:
        """Load a base model directory and, where given, a LoRA adapter on top of it.

        Decisions then carry the hash of the adapter's weights, the registry's `weights_sha256`.

        Raises:
            OptionError: a directory does not hold what it should.
            CorruptError: the adapter's weights cannot be read.
        """
        model, tokenizer = load_base(model_dir)
        if adapter_dir is not None:
            from peft import PeftModel

            if not (Path(adapter_dir) / "adapter_config.json").is_file():
                raise OptionError(
                    f"no adapter in {str(adapter_dir)!r}",
                    expected="a directory with adapter_config.json",
                    fix="simtune models ls",
                )
            settings.setdefault("adapter", saved_sha256(adapter_dir))
            with quiet():
                model = PeftModel.from_pretrained(model, str(adapter_dir)).eval()
        settings.setdefault("name", str(model_dir))
        return cls(model, tokenizer, **settings)

    def act(
        self, prompts: Sequence[Messages], choices: Sequence[Sequence[str]] | None = None
    ) -> list[Reply]:
        """Answer each prompt; one batch, so the caller decides how large.

        Args:
            prompts: chats; where the last answer in one is a `Reply`, its own tokens are gone on
                from.
            choices: the named options of each prompt; needed where `decision` is `choose`, and
                not looked at where it is `generate`.

        Raises:
            OptionError: there are no options to choose among.
        """
        prompt_ids = self.encode(prompts)
        if self.decision == "generate":
            replies = self._generate(prompt_ids)
        elif choices is None or len(choices) != len(prompts):
            raise OptionError(
                "the policy was asked to choose, but not given the options",
                expected="act(prompts, choices=[[name, ...], ...]), options for each prompt",
                got=None if choices is None else f"{len(choices)} for {len(prompts)} prompts",
            )
        else:
            replies = self._choose(prompt_ids, choices)
        return replies

    def __call__(self, messages: Messages, choices: Sequence[str] | None = None) -> Reply:
        """Answer one prompt."""
        return self.act([messages], None if choices is None else [choices])[0]

    def forget(self) -> None:
        """Compute everything anew from here on.

        Roll-outs do this at their start, so that what they give does not depend on what was
        asked before. A change of weights is noticed without it.
        """
        self._answering.forget()

    def watched(self, see: See) -> AbstractContextManager[None]:
        """Inside this context `see` is shown each prompt that is computed, and its last state.

        Called as `see(prompt_ids, states)`, states being `[b, hidden]`, where the model's layers
        allow a kept cache; not at all elsewhere, nor for a prompt that was computed before.
        """
        return self._answering.watched(see)

    def _generate(self, prompt_ids: list[list[int]]) -> list[Reply]:
        stops = Stops(self.tokenizer, self.stop) if self.stop else None
        sampled = self._answering.sample(prompt_ids, self._settings(stops))
        texts = self.tokenizer.batch_decode(
            [answer.token_ids for answer in sampled], skip_special_tokens=True
        )
        sampling: dict[str, Any] = {
            "temperature": 0.0 if self.greedy else self.temperature,
            "max_tokens": self.max_new_tokens,
        }
        if stops is not None:
            texts = [stops.before(text) for text in texts]
            sampling["stop"] = list(self.stop)
        return [
            Reply(
                text,
                prompt_token_ids=ids,
                token_ids=answer.token_ids,
                logprobs=answer.logprobs,
                sampling=sampling,
                model=self.name,
                adapter=self.adapter,
            )
            for text, ids, answer in zip(texts, prompt_ids, sampled, strict=True)
        ]

    def _choose(self, prompt_ids: list[list[int]], choices: Sequence[Sequence[str]]) -> list[Reply]:
        options = [self._option_ids(names) for names in choices]
        taken = self._answering.choose(
            prompt_ids, options, self._settings(), length_normalised=self.length_normalised
        )
        return [
            Reply(
                names[at],
                prompt_token_ids=ids,
                token_ids=each[at],
                choices=names,
                choice_logprobs=logprobs,
                sampling={
                    "decision": "choose",
                    "temperature": 0.0 if self.greedy else self.temperature,
                    "length_normalised": self.length_normalised,
                    "choice_token_ids": [list(option) for option in each],
                },
                model=self.name,
                adapter=self.adapter,
            )
            for names, ids, each, (at, logprobs) in zip(
                choices, prompt_ids, options, taken, strict=True
            )
        ]

    def _settings(self, stopped: Stops | None = None) -> Settings:
        return Settings(
            eos_ids=self._eos_ids,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            greedy=self.greedy,
            generator=self.generator,
            stopped=stopped,
        )


def load_base(
    model_dir: str | Path,
    *,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    placed: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a model and its tokenizer from a Hugging Face directory, in eval mode.

    Args:
        model_dir: a Hugging Face model directory.
        dtype: of the weights; None: bfloat16 on a GPU, float32 on a CPU.
        attention: transformers' name of an attention implementation; None: its own choice.
        placed: False leaves the model where it was read, for whoever divides it over devices.

    Raises:
        MissingExtraError: transformers is not installed.
        OptionError: the directory does not hold a model, or its tokenizer has no chat template.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("a local model", package="transformers", extra="train") from error
    if not (Path(model_dir) / "config.json").is_file():
        raise OptionError(
            f"no model in {str(model_dir)!r}",
            expected="a Hugging Face model directory (config.json, weights, tokenizer)",
            got="no such directory" if not Path(model_dir).exists() else "no config.json in it",
            fix="simtune models pull-base tiny --output base-tiny",
        )
    on_gpu = torch.cuda.is_available()
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            str(model_dir),
            dtype=dtype or (torch.bfloat16 if on_gpu else torch.float32),
            attn_implementation=attention,
        )
    tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
    if tokenizer.chat_template is None:
        raise OptionError(
            f"the tokenizer in {str(model_dir)!r} has no chat template",
            expected="chat_template.jinja or chat_template in tokenizer_config.json",
        )
    if placed:
        model.to("cuda" if on_gpu else "cpu")
    return model.eval(), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own chatter off while a model is read, written or wrapped.

    That is transformers' progress bars, and a deprecation that peft 0.21 runs into with
    transformers 5.2x: no user can act on it.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that end an answer: the generation config's and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})
