"""Whether a model's chat template gives the prompts that the sampler was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from simtune.doctor.chosen import chosen
from simtune.doctor.finding import Finding, error, first_line, note, of, ok, warning
from simtune.doctor.subject import Subject
from simtune.policy.chats import ChatEncoder
from simtune.recording.guard import attempt
from simtune.records import Decision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_AROUND: Final = 30


def check(subject: Subject) -> Iterator[Finding]:
    """Render captured prompts with the model's template and tokenizer, and compare token ids."""
    if subject.llm_path is None:
        return
    decisions = chosen(subject)
    if not decisions:
        yield note(
            "no-sample",
            "no captured decision has a prompt with its token ids, so nothing can be compared",
            "capture with simtune.Reply(..., prompt_token_ids=..., token_ids=..., logprobs=...)",
        )
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(subject.llm_path)
    highest = max(max((*each.prompt_token_ids, *each.token_ids)) for each in decisions)
    if highest >= len(tokenizer):
        yield error(
            "other-tokenizer",
            f"token id {highest} was captured from {_models(decisions)}, and the tokenizer of "
            f"{subject.llm_path} has {len(tokenizer):,} tokens",
            "--llm-path of the model that was sampled from",
        )
        return
    yield from _compared(tokenizer, decisions)


def _compared(tokenizer: PreTrainedTokenizerFast, decisions: list[Decision]) -> Iterator[Finding]:
    found: Counter[str] = Counter()
    example = ""
    for decision in decisions:
        kind, detail = _difference(tokenizer, decision)
        found[kind] += 1
        if kind == "template-drift" and not example:
            example = detail
    count = len(decisions)
    if found["template-drift"]:
        yield warning(
            "template-drift",
            f"{of(found['template-drift'], count)} prompts of {_models(decisions)} are rendered "
            f"differently; {example}",
            "train with the chat template that the sampler used (chat_template.jinja of its "
            "model directory, and the same template options, such as enable_thinking)",
        )
    if found["other-tokens"]:
        yield warning(
            "other-tokens",
            f"{of(found['other-tokens'], count)} prompts have the same text and other token ids",
            "sample with the tokenizer files of --llm-path, and add no special tokens to what "
            "the chat template gives",
        )
    if found["same"] == count:
        yield ok("prompts", f"{count} captured prompts are rendered to the same token ids")


def _models(decisions: list[Decision]) -> str:
    return ", ".join(sorted({each.model or "a model without a name" for each in decisions}))


def _difference(tokenizer: PreTrainedTokenizerFast, decision: Decision) -> tuple[str, str]:
    """`same`, `other-tokens` or `template-drift`, and for the last where it begins.

    A prompt that goes on from sampled answers has their own tokens, which tokenising the text
    anew need not give: there only the text counts.
    """
    encoded, failure = attempt(ChatEncoder(tokenizer, ()), [decision.prompt])
    if encoded is None:
        return "template-drift", f"the template refuses a captured prompt: {first_line(failure)}"
    if encoded[0] == decision.prompt_token_ids:
        return "same", ""
    captured = _text(tokenizer, decision.prompt_token_ids)
    rendered = _text(tokenizer, encoded[0])
    if captured == rendered:
        grown = any(message.get("role") == "assistant" for message in decision.prompt)
        return ("same" if grown else "other-tokens"), ""
    pairs = enumerate(zip(captured, rendered, strict=False))
    shorter = min(len(captured), len(rendered))
    at = next((place for place, (one, other) in pairs if one != other), shorter)
    shown = [text[max(0, at - _AROUND) : at + _AROUND] for text in (captured, rendered)]
    return "template-drift", f"captured {shown[0]!r}, rendered {shown[1]!r}"


def _text(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
