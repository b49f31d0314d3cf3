"""What a policy answered, read from whatever the wrapped function returned.

A `simtune.Reply` carries everything. OpenAI's formats, whole or as a stream, are recognised by
their shape. Any other value is kept as JSON.
"""

from __future__ import annotations

from simtune.recording.completions import Answer, read_completion
from simtune.recording.conversion import Notes, to_json
from simtune.recording.streams import Streamed
from simtune.reply import Reply


def read_answer(result: object, notes: Notes) -> Answer:
    """Find the text and what training needs in a result; conversions are added to `notes`."""
    if isinstance(result, Reply):
        return Answer(
            text=str(result),
            prompt_token_ids=result.prompt_token_ids,
            token_ids=result.token_ids,
            logprobs=result.logprobs,
            sampling=result.sampling,
            model=result.model,
            adapter=result.adapter,
            choices=result.choices,
            choice_logprobs=result.choice_logprobs,
        )
    if isinstance(result, Streamed):
        return result.answer
    if isinstance(result, str):
        return Answer(text=result)
    return read_completion(result, notes) or Answer(
        text=to_json(result, "response", notes) or "",
        extra={} if result is None else {"response": "json"},
    )
