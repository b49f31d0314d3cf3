"""What a policy answered, read from whatever the wrapped function returned.

A `simtune.Reply` carries everything. OpenAI's formats, whole or as a stream, are recognised by
their shape. Any other value is kept as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from simtune.recording.completions import Answer, read_completion
from simtune.recording.conversion import Notes, to_json
from simtune.recording.streams import Streamed
from simtune.records import Row
from simtune.reply import Reply

_NOTHING_ELSE: Final[Mapping[str, Any]] = {}


def fill_in(row: Row, result: object, notes: Notes) -> Mapping[str, Any]:
    """Fill the columns of a row that its answer fills.

    Args:
        row: the decision; what its caller has filled in of the choices stays.
        result: what the wrapped function returned.
        notes: conversions are added to it.

    Returns:
        What has no column.
    """
    answer: Reply | Answer
    if isinstance(result, Reply):
        answer = result
        row.response, extra = str.__str__(result), _NOTHING_ELSE
    else:
        answer = read = _read(result, notes)
        row.response, extra = read.text, read.extra
    row.prompt_token_ids = answer.prompt_token_ids
    row.token_ids = answer.token_ids
    row.logprobs = answer.logprobs
    row.model = answer.model
    row.adapter = answer.adapter
    row.choices = row.choices or answer.choices
    row.choice_logprobs = row.choice_logprobs or answer.choice_logprobs
    if answer.sampling is not None:
        row.sampling = to_json(answer.sampling, "sampling", notes)
    return extra


def _read(result: object, notes: Notes) -> Answer:
    if isinstance(result, Streamed):
        return result.answer
    if isinstance(result, str):
        return Answer(text=result)
    return read_completion(result, notes) or Answer(
        text=to_json(result, "response", notes) or "",
        extra={} if result is None else {"response": "json"},
    )
